//! Images of a server, by label.
//!
//! ```text
//! GET BASE/manifest.json             {"labels": [{"name": "tench", "images": ["SHA256 in hex", …]}, …]}
//! GET BASE/images?label=NAME&n=K     the bytes of that label's image K, from 0: a PNG or a JPEG
//! ```
//!
//! The manifest fixes the set: images are numbered through the labels in its order, and bytes with
//! another digest than it names are refused. So a server can fail, but not show one validator another
//! image than the others. Images are kept by digest in a folder of bounded size, the oldest of which go.
//!
//! The address is agreed, hence others' word: a server in this machine's own networks is asked only
//! where its operator has said so ([`Reach`]).
//!
//! Fingerprint: the way of decoding, and for each label its name and the digests of its images.

use std::path::PathBuf;
use std::time::Duration;

use perturb_types::Digest;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::parquet::fits;
use super::{ImageSource, SourceError, SourceImage, decode};
use crate::pace::Until;
use crate::pixels::PngLimits;
use crate::remote::{Client, Patience, Reach, base, cut};
use crate::shelf::{Room, Shelf};
use crate::used::MAX_IMAGES;

/// Bytes of a manifest: half a million images, each 67 bytes of JSON.
const MAX_MANIFEST: u64 = 32 << 20;

/// What a request may cost: a round has time for it before it begins.
const PATIENCE: Patience = Patience { timeout: Duration::from_secs(20), tries: 3, pause: Duration::from_millis(500) };

/// Images kept: one and a half times ImageNet-100, whose images have 110 kB on average.
const KEPT: Room = Room { files: 200_000, bytes: 20 << 30 };

#[derive(Deserialize)]
struct Manifest {
    labels: Vec<Label>,
}

#[derive(Debug, Deserialize)]
struct Label {
    name: String,
    images: Vec<Digest>,
}

/// A server's set of images.
#[derive(Debug)]
pub struct HttpSource {
    base: String,
    client: Client,
    labels: Vec<Label>,
    /// The first image of each label.
    starts: Vec<u64>,
    len: u64,
    fingerprint: Digest,
    kept: Option<Shelf>,
    limits: PngLimits,
}

impl HttpSource {
    /// Asks a server for its manifest; images are kept in the folder `kept`, where one is given.
    ///
    /// # Errors
    /// No server, or a manifest that is refused.
    pub fn open(url: &str, kept: Option<PathBuf>, limits: PngLimits, reach: Reach) -> Result<Self, SourceError> {
        Self::with_client(url, kept, limits, Client::new(PATIENCE, reach))
    }

    fn with_client(url: &str, kept: Option<PathBuf>, limits: PngLimits, client: Client) -> Result<Self, SourceError> {
        let refused = |why: String| SourceError::Set { set: url.to_owned(), why };
        let base = base(url).map_err(|e| refused(e.to_string()))?.to_owned();
        let text = client
            .get(&format!("{base}/manifest.json"), MAX_MANIFEST, &Until::default())
            .map_err(|e| SourceError::Away { set: url.to_owned(), why: e.to_string() })?;
        let Manifest { labels } =
            serde_json::from_slice(&text).map_err(|e| refused(format!("its manifest: {}", cut(e))))?;
        if labels.len() > usize::from(u16::MAX) {
            return Err(refused(format!("{} labels, at most 65535 are possible", labels.len())));
        }
        let mut all = Sha256::new().chain_update(b"perturb/http-set/1");
        all.update(decode::way_of_decoding().map_err(refused)?.0);
        let (mut starts, mut len) = (Vec::with_capacity(labels.len()), 0u64);
        for (at, label) in labels.iter().enumerate() {
            if !fits(&label.name) {
                return Err(refused(format!("label {at} has no usable name")));
            }
            all.update((label.name.len() as u64).to_le_bytes());
            all.update(label.name.as_bytes());
            all.update((label.images.len() as u64).to_le_bytes());
            label.images.iter().for_each(|digest| all.update(digest.0));
            starts.push(len);
            len += label.images.len() as u64;
        }
        if len == 0 || len > MAX_IMAGES {
            return Err(refused(format!("{len} images; between 1 and {MAX_IMAGES} are needed")));
        }
        let kept = kept.map(|folder| Shelf::new(folder, KEPT));
        Ok(Self { base, client, labels, starts, len, fingerprint: Digest(all.finalize().into()), kept, limits })
    }

    /// The bytes of an image, from the folder or from the server.
    fn bytes(&self, label: &Label, n: u64, digest: &Digest, until: &Until) -> Result<Vec<u8>, SourceError> {
        let (name, most) = (digest.to_string(), self.limits.max_bytes as u64);
        let kept = self.kept.as_ref().and_then(|shelf| shelf.get(&name, most));
        if let Some(bytes) = kept.filter(|bytes| Digest::of(bytes) == *digest) {
            return Ok(bytes);
        }
        let away = |why: String| SourceError::Away { set: self.base.clone(), why };
        let url = format!("{}/images?label={}&n={n}", self.base, escaped(&label.name));
        let bytes = self.client.get(&url, most, until).map_err(|e| away(e.to_string()))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(away(format!("image {n} of `{}` has digest {found}, the manifest says {digest}", label.name)));
        }
        if let Some(shelf) = &self.kept {
            // A full disk costs the copy, not the round.
            let _ = shelf.put(&name, &bytes);
        }
        Ok(bytes)
    }
}

/// A text as part of a query.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

impl ImageSource for HttpSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    fn label_names(&self) -> Vec<String> {
        self.labels.iter().map(|l| l.name.clone()).collect()
    }

    fn get(&self, index: u64) -> Result<SourceImage, SourceError> {
        self.get_until(index, &Until::default())
    }

    fn get_until(&self, index: u64, until: &Until) -> Result<SourceImage, SourceError> {
        // Labels without images begin where the next one does: the last of them has the image.
        let at = self.starts.partition_point(|start| *start <= index).saturating_sub(1);
        let range = SourceError::Range { index, len: self.len };
        let (Some(label), Some(start)) = (self.labels.get(at), self.starts.get(at)) else { return Err(range) };
        let n = index - start;
        let digest = usize::try_from(n).ok().and_then(|n| label.images.get(n)).ok_or(range)?;
        let bytes = self.bytes(label, n, digest, until)?;
        let image = decode::image(&bytes, &self.limits);
        let pixels = image.map_err(|why| SourceError::Image { set: self.base.clone(), index, why })?;
        Ok(SourceImage { pixels, label: Some(at as u16) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;

    use super::*;
    use crate::pixels::Pixels;
    use crate::remote::testing::{Reply, Server, Virtual};

    fn picture(value: u8) -> Vec<u8> {
        Pixels::new(4, 4, vec![value; 48]).unwrap().encode_png().unwrap()
    }

    fn manifest() -> String {
        let digest = |value| Digest::of(&picture(value));
        format!(
            r#"{{"labels": [{{"name": "tench, Tinca tinca", "images": ["{}", "{}"]}}, {{"name": "none", "images": []}},
               {{"name": "crane", "images": ["{}"]}}]}}"#,
            digest(0),
            digest(1),
            digest(2)
        )
    }

    fn open(server: &Server, kept: Option<PathBuf>) -> Result<HttpSource, SourceError> {
        let client = Client::with_pace(PATIENCE, Reach::Anywhere, Arc::new(Virtual::default()));
        HttpSource::with_client(&server.url("/set/"), kept, PngLimits::default(), client)
    }

    #[test]
    fn images_are_asked_for_by_label_and_kept_by_digest() {
        let server = Server::start(|asked| match asked.path.as_str() {
            "/set/manifest.json" => Reply::ok(manifest()),
            "/set/images?label=tench%2C%20Tinca%20tinca&n=1" => Reply::ok(picture(1)),
            "/set/images?label=crane&n=0" => Reply::ok(picture(2)),
            _ => Reply::status(404),
        });
        let folder = tempfile::tempdir().unwrap();
        let set = open(&server, Some(folder.path().to_owned())).unwrap();
        assert_eq!((set.len(), set.label_names()[2].as_str()), (3, "crane"));
        let image = set.get(1).unwrap();
        assert_eq!((image.pixels.rgb[0], image.label), (1, Some(0)));
        assert_eq!(set.get(2).unwrap().label, Some(2));
        let before = server.requests();
        assert_eq!(set.get(1).unwrap(), image);
        assert_eq!(server.requests(), before, "the second time it comes from the folder");
        assert!(matches!(set.get(0), Err(SourceError::Away { .. })));
        assert!(matches!(set.get(3), Err(SourceError::Range { .. })));
        assert_eq!(open(&server, None).unwrap().fingerprint(), set.fingerprint());

        let name = Digest::of(&picture(1)).to_string();
        let path = folder.path().join(&name[..2]).join(&name);
        std::fs::write(&path, picture(9)).unwrap();
        assert_eq!(set.get(1).unwrap(), image, "a damaged copy is fetched again");
    }

    #[test]
    fn another_image_than_the_manifest_names_is_refused() {
        let server = Server::start(|asked| match asked.path.as_str() {
            "/set/manifest.json" => Reply::ok(manifest()),
            _ => Reply::ok(picture(7)),
        });
        let refused = open(&server, None).unwrap().get(0).unwrap_err().to_string();
        assert!(refused.contains("the manifest says"), "{refused}");
    }

    #[test]
    fn a_manifest_that_makes_no_set_is_refused() {
        for (text, why) in [
            ("", "manifest"),
            (r#"{"labels": []}"#, "0 images"),
            (r#"{"labels": [{"name": "", "images": []}]}"#, "no usable name"),
            (r#"{"labels": [{"name": "a", "images": ["12"]}]}"#, "manifest"),
        ] {
            let server = Server::start(move |_| Reply::ok(text));
            let refused = open(&server, None).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let server = Server::start(|_| Reply::status(500));
        assert!(matches!(open(&server, None), Err(SourceError::Away { .. })));
        assert_eq!(server.requests(), 3);
        assert!(HttpSource::open("ftp://somewhere", None, PngLimits::default(), Reach::Public).is_err());
    }

    #[test]
    fn what_a_manifest_says_is_not_repeated_at_length() {
        let server = Server::start(|_| Reply::ok(format!(r#"{{"labels": "{}"}}"#, "x".repeat(1 << 20))));
        let refused = open(&server, None).unwrap_err().to_string();
        assert!(refused.contains("xxx") && refused.chars().count() < 400, "{} characters", refused.len());
    }

    #[test]
    fn no_image_is_fetched_when_time_is_over() {
        let server = Server::start(|_| Reply::ok(manifest()));
        let set = open(&server, None).unwrap();
        let late = set.get_until(0, &Until::default().unless(|| true)).unwrap_err();
        assert!(matches!(&late, SourceError::Away { why, .. } if why.contains("no time")), "{late}");
        assert_eq!(server.requests(), 1);
    }
}
