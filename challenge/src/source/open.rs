//! From the agreed text to the set; see the table in [`crate::source`].

use std::path::PathBuf;

use super::digests::Digests;
use super::http::HttpSource;
use super::parquet::ParquetSource;
use super::{DemoSource, FolderSource, ImageSource, SourceError};
use crate::pixels::PngLimits;
use crate::remote::Reach;

/// The revision where none is named. A network should name one: the fingerprint is checked anyway, but
/// a name that moves tells an operator nothing.
const REVISION: &str = "main";

/// Where things lie on this machine.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The hub's cache.
    pub hub: PathBuf,
    /// The file in which digests are remembered.
    pub digests: Option<PathBuf>,
    /// The folder in which images of servers are kept.
    pub images: Option<PathBuf>,
    /// Which servers a text may name: an agreed one those that everybody can reach, an operator's own
    /// any.
    pub reach: Reach,
}

/// Opens the set that a text names.
///
/// # Errors
/// A text of no such form, or a set that is not there or is refused.
pub fn open(text: &str, places: &Places) -> Result<Box<dyn ImageSource>, SourceError> {
    let unknown = |why: &str| SourceError::Set { set: format!("image source `{text}`"), why: why.to_owned() };
    let limits = PngLimits::default();
    let digests = || Digests::open(places.digests.clone());
    let (kind, rest) = text.split_once(':').ok_or_else(|| unknown("no `KIND:…`"))?;
    Ok(match kind {
        "demo" => {
            let numbers = rest.split_once(':').and_then(|(seed, len)| Some((seed.parse().ok()?, len.parse().ok()?)));
            let (seed, len) = numbers.ok_or_else(|| unknown("not `demo:SEED:LEN`"))?;
            Box::new(DemoSource::new(seed, len))
        }
        "folder" => Box::new(FolderSource::open(rest.as_ref(), limits)?),
        "parquet" => Box::new(ParquetSource::open(rest.as_ref(), None, &mut digests(), limits)?),
        "imagenet-100" => {
            let (split, revision) = rest.split_once('@').unwrap_or((rest, REVISION));
            if split.is_empty() {
                return Err(unknown("not `imagenet-100:SPLIT` or `imagenet-100:SPLIT@REVISION`"));
            }
            Box::new(ParquetSource::imagenet_100(&places.hub, split, revision, &mut digests(), limits)?)
        }
        "http" | "https" => Box::new(HttpSource::open(text, places.images.clone(), limits, places.reach)?),
        _ => return Err(unknown("known are demo, folder, parquet, imagenet-100, http and https")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::remote::testing::{Reply, Server};

    #[test]
    fn a_text_names_a_set_or_is_refused_with_what_is_known() {
        let places = Places::default();
        assert_eq!(open("demo:3:10", &places).unwrap().fingerprint(), DemoSource::new(3, 10).fingerprint());
        for (text, why) in [
            ("demo", "KIND"),
            ("demo:3", "demo:SEED:LEN"),
            ("demo:a:b", "demo:SEED:LEN"),
            ("imagenet-100:", "SPLIT"),
            ("imagenet-100:train@../..", "no revision"),
            ("zip:a", "known are"),
        ] {
            let Err(refused) = open(text, &places) else { panic!("{text} was opened") };
            assert!(refused.to_string().contains(why), "{refused}");
        }
    }

    #[test]
    fn an_agreed_address_cannot_be_one_of_this_machines_own_networks() {
        let server = Server::start(|_| Reply::ok(r#"{"labels": [{"name": "a", "images": []}]}"#));
        let opened = |reach| open(&server.url(""), &Places { reach, ..Places::default() }).map(|_| ());
        let refused = opened(Reach::Public).unwrap_err().to_string();
        assert!(refused.contains("only the operator may name"), "{refused}");
        assert_eq!(server.requests(), 0);
        let refused = opened(Reach::Anywhere).unwrap_err().to_string();
        assert!(refused.contains("0 images"), "{refused}");
    }
}
