//! Models, images and judges of meaning from outside, as this machine is configured for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use color_eyre::eyre::{Context, Result, bail, eyre};
use perturb_challenge::classifier::Classifier;
use perturb_challenge::file;
use perturb_challenge::remote::Reach;
use perturb_challenge::rules::SemanticRule;
use perturb_challenge::semantics::labels::Labels;
use perturb_challenge::semantics::llm::{Api, Llm, Service};
use perturb_challenge::semantics::wordnet::Wordnet;
use perturb_challenge::semantics::{Exact, Semantics};
use perturb_challenge::source::ImageSource;
use perturb_challenge::source::open::{Places, open};
use perturb_challenge::source::parquet::hub;

use perturb_types::Digest;

use crate::cli::ImagesArgs;
use crate::config::Config;

/// `perturb images`: what an image set is.
///
/// # Errors
/// It is not there, or is refused; the file cannot be written.
pub fn images(args: &ImagesArgs) -> Result<()> {
    let hub = hub::cache(|name| std::env::var_os(name));
    let places = Places { hub, reach: Reach::Anywhere, ..Places::default() };
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

/// A name and a digest, and the classifier while anybody uses it.
type Opened = BTreeMap<(String, Digest), Weak<dyn Classifier>>;

/// Where models, images and language models are found here.
#[derive(Clone)]
pub struct Outside {
    device: tch::Device,
    /// Two challenges with one model hold it in memory once.
    opened: Arc<Mutex<Opened>>,
    places: Places,
    /// An agreed image source, and where this machine has the same set.
    elsewhere: BTreeMap<String, String>,
    llm: Service,
}

impl Outside {
    /// As a configuration says.
    ///
    /// # Errors
    /// An interface nobody knows, a key's file that cannot be read, a device that is not there.
    pub fn new(config: &Config) -> Result<Self> {
        let api = Api::by_name(&config.llm_api)
            .ok_or_else(|| eyre!("llm_api is `{}`: known are `ollama` and `openai`", config.llm_api))?;
        let key = config.llm_key_file.as_deref().map(key).transpose()?;
        let folder = &config.data_dir;
        Ok(Self {
            device: config.device()?,
            opened: Arc::default(),
            places: Places {
                hub: hub::cache(|name| std::env::var_os(name)),
                digests: Some(folder.join("digests.json")),
                images: Some(folder.join("images")),
                reach: Reach::Public,
            },
            elsewhere: config.image_sources.clone(),
            llm: Service { api, url: config.llm_url.clone(), key, transcripts: Some(folder.join("transcripts")) },
        })
    }

    /// The classifier of an agreed name with exactly the agreed weights.
    ///
    /// # Errors
    /// A name that this version does not know, or weights that are not here or are others.
    pub fn classifier(&self, name: &str, digest: Digest) -> Result<Arc<dyn Classifier>> {
        // The agreed state names a model in full, never a file of this machine.
        if name != "demo" && perturb_model::zoo::find(name).is_none_or(|spec| spec.name != name) {
            bail!("this version does not know the model `{}`", name.escape_default());
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|_, classifier| classifier.strong_count() > 0);
        let key = (name.to_owned(), digest);
        if let Some(classifier) = opened.get(&key).and_then(Weak::upgrade) {
            return Ok(classifier);
        }
        let classifier: Box<dyn Classifier> = perturb_model::open(name, Some(digest.0), self.device)?;
        let classifier: Arc<dyn Classifier> = Arc::from(classifier);
        opened.insert(key, Arc::downgrade(&classifier));
        Ok(classifier)
    }

    /// The image set of an agreed text.
    ///
    /// # Errors
    /// It is not there, or is refused.
    pub fn source(&self, agreed: &str) -> Result<Arc<dyn ImageSource>> {
        Ok(match self.elsewhere.get(agreed) {
            // The operator's own word.
            Some(here) => open(here, &Places { reach: Reach::Anywhere, ..self.places.clone() })?,
            None => open(agreed, &self.places)?,
        }
        .into())
    }

    /// The judge of an agreed rule, for a classifier.
    ///
    /// # Errors
    /// It cannot judge that classifier's classes.
    pub fn judge(&self, rule: &SemanticRule, classifier: &dyn Classifier) -> Result<Arc<dyn Semantics>> {
        Ok(match rule {
            SemanticRule::None | SemanticRule::Exact => Arc::new(Exact),
            SemanticRule::Wordnet if classifier.classes() == Wordnet::CLASSES => Arc::new(Wordnet),
            SemanticRule::Wordnet => bail!(
                "meaning by wordnet is known of ImageNet's {} classes; the model has {}, for which \
                 `semantic` is `exact` or `llm:MODEL`",
                Wordnet::CLASSES,
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

/// The names of a classifier's classes, where they are known by their number.
pub fn labels(classifier: &dyn Classifier) -> Option<Labels> {
    match classifier.classes() {
        Wordnet::CLASSES => Some(Labels::imagenet()),
        n if n == perturb_challenge::demo::CLASSES => Some(Labels::demo()),
        _ => None,
    }
}

fn key(path: &Path) -> Result<String> {
    let named = || format!("{}", path.display());
    let key = file::read_text(path, MAX_KEY).wrap_err_with(named)?.trim().to_owned();
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
        bail!("{}: no key of printable characters", path.display());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use perturb_challenge::classifier::ClassifierError;
    use perturb_challenge::pixels::Pixels;

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
    fn a_model_is_opened_once_by_its_full_name_and_agreed_digest() {
        let outside = Outside::new(&Config::default()).unwrap();
        let digest = Digest::of(include_bytes!("../../model/weights/demo.safetensors"));
        let (one, two) = (outside.classifier("demo", digest).unwrap(), outside.classifier("demo", digest).unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        drop((one, two));
        assert!(outside.classifier("demo", digest).is_ok(), "again after its last user");
        let error = |name| outside.classifier(name, Digest([7; 32])).err().unwrap().to_string();
        assert!(error("demo").contains(&Digest([7; 32]).to_string()), "{}", error("demo"));
        // Neither a file of this machine nor a short name, which another version may read otherwise.
        for name in ["demo.safetensors", "convnext_small", "convnext_small.fb_in1k=/x", "/x.pt"] {
            assert!(error(name).contains("does not know"), "{}", error(name));
        }
        assert!(Outside::new(&Config { device: "abacus".into(), ..Config::default() }).is_err());
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
