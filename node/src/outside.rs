//! Images and judges of meaning from outside, as this machine is configured for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use color_eyre::eyre::{Context, Result, bail, eyre};
use perturb_challenge::classifier::Classifier;
use perturb_challenge::rules::SemanticRule;
use perturb_challenge::semantics::labels::Labels;
use perturb_challenge::semantics::llm::{Api, Llm, Service};
use perturb_challenge::semantics::wordnet::Wordnet;
use perturb_challenge::semantics::{Exact, Semantics};
use perturb_challenge::source::ImageSource;
use perturb_challenge::source::open::{Places, open};
use perturb_challenge::source::parquet::hub;

use crate::cli::ImagesArgs;
use crate::config::Config;

/// `perturb images`: what an image set is.
///
/// # Errors
/// It is not there, or is refused; the file cannot be written.
pub fn images(args: &ImagesArgs) -> Result<()> {
    let places = Places { hub: hub::cache(|name| std::env::var_os(name)), ..Places::default() };
    let set = open(&args.source, &places)?;
    println!("images       {}", set.len());
    println!("labels       {}", set.label_names().len());
    println!("fingerprint  {}", set.fingerprint());
    if let (Some(index), Some(out)) = (args.image, &args.out) {
        let image = set.get(index)?;
        let names = set.label_names();
        let name = image.label.and_then(|l| names.get(usize::from(l))).map_or("none", String::as_str);
        std::fs::write(out, image.pixels.encode_png()?).wrap_err_with(|| format!("{}", out.display()))?;
        println!("image {index}: {}×{}, label {name}", image.pixels.width, image.pixels.height);
    }
    Ok(())
}

/// Bytes of a file with a key.
const MAX_KEY: u64 = 4096;

/// Where images and language models are found here.
#[derive(Clone, Debug)]
pub struct Outside {
    places: Places,
    /// An agreed image source, and where this machine has the same set.
    elsewhere: BTreeMap<String, String>,
    llm: Service,
}

impl Outside {
    /// As a configuration says.
    ///
    /// # Errors
    /// An interface nobody knows, a key's file that cannot be read.
    pub fn new(config: &Config) -> Result<Self> {
        let api = Api::by_name(&config.llm_api)
            .ok_or_else(|| eyre!("llm_api is `{}`: known are `ollama` and `openai`", config.llm_api))?;
        let key = config.llm_key_file.as_deref().map(key).transpose()?;
        let folder = &config.data_dir;
        Ok(Self {
            places: Places {
                hub: hub::cache(|name| std::env::var_os(name)),
                digests: Some(folder.join("digests.json")),
                images: Some(folder.join("images")),
            },
            elsewhere: config.image_sources.clone(),
            llm: Service { api, url: config.llm_url.clone(), key, transcripts: Some(folder.join("transcripts")) },
        })
    }

    /// The image set of an agreed text.
    ///
    /// # Errors
    /// It is not there, or is refused.
    pub fn source(&self, agreed: &str) -> Result<Arc<dyn ImageSource>> {
        let here = self.elsewhere.get(agreed).map_or(agreed, String::as_str);
        Ok(open(here, &self.places)?.into())
    }

    /// The judge of an agreed rule, for a classifier.
    ///
    /// # Errors
    /// It cannot judge that classifier's classes.
    pub fn judge(&self, rule: &SemanticRule, classifier: &dyn Classifier) -> Result<Arc<dyn Semantics>> {
        Ok(match rule {
            SemanticRule::None | SemanticRule::Exact => Arc::new(Exact),
            SemanticRule::Wordnet if classifier.classes() == IMAGENET_CLASSES => Arc::new(Wordnet),
            SemanticRule::Wordnet => bail!(
                "meaning by wordnet is known of ImageNet's {IMAGENET_CLASSES} classes; the model has {}",
                classifier.classes()
            ),
            SemanticRule::Llm { model } => {
                let Some(labels) = labels(classifier) else {
                    bail!("the rules judge meaning by a language model, but the model's classes have no names");
                };
                Arc::new(Llm::new(&self.llm, model, labels)?)
            }
        })
    }
}

const IMAGENET_CLASSES: usize = 1000;

/// The names of a classifier's classes, where they are known by their number.
pub fn labels(classifier: &dyn Classifier) -> Option<Labels> {
    match classifier.classes() {
        IMAGENET_CLASSES => Some(Labels::imagenet()),
        n if n == perturb_challenge::demo::CLASSES => Some(Labels::demo()),
        _ => None,
    }
}

fn key(file: &Path) -> Result<String> {
    let named = || format!("{}", file.display());
    if std::fs::metadata(file).wrap_err_with(named)?.len() > MAX_KEY {
        bail!("{}: no key, it is longer than {MAX_KEY} bytes", file.display());
    }
    let key = std::fs::read_to_string(file).wrap_err_with(named)?.trim().to_owned();
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
        bail!("{}: no key of printable characters", file.display());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use perturb_challenge::classifier::ClassifierError;
    use perturb_challenge::pixels::Pixels;
    use perturb_types::Digest;

    struct Of(usize);

    impl Classifier for Of {
        fn name(&self) -> &str {
            "of"
        }
        fn digest(&self) -> Digest {
            Digest([0; 32])
        }
        fn classes(&self) -> usize {
            self.0
        }
        fn logits(&self, _: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
            Err(ClassifierError("none".into()))
        }
    }

    #[test]
    fn a_judge_is_given_only_where_it_can_judge() {
        let outside = Outside::new(&Config::default()).unwrap();
        let name = |rule: &str, classes| {
            let rule = SemanticRule::by_name(rule).unwrap();
            outside.judge(&rule, &Of(classes)).map(|j| j.name().to_owned()).map_err(|e| e.to_string())
        };
        assert_eq!(name("none", 3).unwrap(), "exact");
        assert_eq!(name("wordnet", 1000).unwrap(), "wordnet");
        assert_eq!(name("llm", 10).unwrap(), "llm");
        assert!(name("wordnet", 10).unwrap_err().contains("the model has 10"));
        assert!(name("llm", 7).unwrap_err().contains("no names"));
    }

    #[test]
    fn an_agreed_set_may_lie_elsewhere_here() {
        let image_sources = [("folder:theirs".to_owned(), "demo:3:10".to_owned())].into();
        let outside = Outside::new(&Config { image_sources, ..Config::default() }).unwrap();
        assert_eq!(outside.source("folder:theirs").unwrap().len(), 10);
        assert!(outside.source("folder:nowhere-at-all").is_err());
        assert!(Outside::new(&Config { llm_api: "telepathy".into(), ..Config::default() }).is_err());
    }
}
