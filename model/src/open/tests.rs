//! Tests of opening by name, with weights where they belong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::hub::{Pin, pulled};
use crate::zoo::fixtures::file;
use perturb_types::Digest;
use sha2::{Digest as _, Sha256};

/// The smallest model of the hub, without a pin.
const VIT: &str = "test_vit.r160_in1k";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

struct Folder {
    _folder: tempfile::TempDir,
    cache: Cache,
}

fn folder() -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().join("hub"), folder.path().join("weights"));
    Folder { _folder: folder, cache }
}

/// Puts weights of [`VIT`] into the cache; gives their path and digest.
fn put(cache: &Cache) -> (PathBuf, [u8; 32]) {
    let bytes = file(zoo::find(VIT).unwrap(), |_| {});
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    let blobs = cache.hub().join(format!("models--timm--{VIT}/blobs"));
    std::fs::create_dir_all(&blobs).unwrap();
    let blob = blobs.join(Digest(digest).to_string());
    std::fs::write(&blob, bytes).unwrap();
    (blob, digest)
}

fn opened(name: &str, digest: Option<[u8; 32]>, cache: &Cache) -> Result<Box<dyn Differentiable>, ModelError> {
    open_in(name, digest, Device::Cpu, || Ok(cache.clone()))
}

#[test]
fn the_demo_opens_by_name_and_only_with_its_own_digest() {
    let model = open("demo", None, Device::Cpu).unwrap();
    let digest = model.digest().0;
    assert!(open("demo", Some(digest), Device::Cpu).is_ok());
    let error = open("demo", Some([7; 32]), Device::Cpu).err().unwrap();
    assert!(matches!(error, ModelError::Digest { .. }), "{error}");
}

#[test]
fn unknown_names_and_absent_files_are_errors() {
    for name in ["", "resnet", "resnet=file", "x.pt@0", "x.pt@side", "x.pt@99999999"] {
        let error = open(name, None, Device::Cpu).err().unwrap();
        assert!(matches!(error, ModelError::UnknownModel { .. }), "{error}");
    }
    for name in ["/none/x.pt", "/none/x.safetensors", "vit_small_patch16_224=/none/x.safetensors"] {
        let error = open(name, None, Device::Cpu).err().unwrap();
        assert!(matches!(error, ModelError::Read { .. }), "{error}");
    }
}

#[test]
fn paths_that_are_no_files_are_errors_and_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = crate::testing::pipe(folder.path());
    for suffix in [".pt", ".safetensors"] {
        let path = pipe.with_extension(&suffix[1..]);
        std::os::unix::fs::symlink(&pipe, &path).unwrap();
        let error = open(path.to_str().unwrap(), None, Device::Cpu).err().unwrap();
        assert!(matches!(error, ModelError::Read { .. }), "{error}");
    }
    for path in [pipe.to_str().unwrap(), "/dev/zero"] {
        let error = open(&format!("{VIT}={path}"), None, Device::Cpu).err().unwrap();
        assert!(error.to_string().contains("no regular file"), "{error}");
    }
}

#[test]
fn an_agreed_model_opens_by_its_digest_alone() {
    let Folder { _folder, cache } = folder();
    let (_, digest) = put(&cache);
    let model = opened(VIT, Some(digest), &cache).unwrap();
    assert_eq!((model.name(), model.digest().0), (VIT, digest));
    assert_eq!(opened("test_vit", Some(digest), &cache).unwrap().digest().0, digest);
}

#[test]
fn another_digest_than_the_agreed_names_the_place_and_the_remedy() {
    let Folder { _folder, cache } = folder();
    let (blob, _) = put(&cache);
    let error = opened(VIT, Some([7; 32]), &cache).err().unwrap().to_string();
    let name = "07".repeat(32);
    let place = blob.with_file_name(&name).display().to_string();
    assert!(error.contains(&place), "{error}");
    let pull = format!("perturb model pull {VIT} --revision COMMIT --sha256 {name}");
    assert!(error.contains(&pull), "{error}");
}

#[test]
fn an_agreed_model_from_elsewhere_lies_outside_the_hub_s_cache() {
    let Folder { _folder, cache } = folder();
    let name = "efficientnet_v2_l.imagenet1k_v1";
    let error = opened(name, Some([7; 32]), &cache).err().unwrap().to_string();
    let place = cache.elsewhere(name);
    assert!(!place.starts_with(cache.hub()));
    assert!(error.contains(&format!("torchvision_weights.py {name} {}", place.display())), "{error}");
    assert!(!error.contains("perturb model pull"), "{error}");
    // Once something is there it is opened, and held against the digest.
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, b"no weights").unwrap();
    let error = opened(name, Some([7; 32]), &cache).err().unwrap();
    assert!(matches!(error, ModelError::ZooWeights { .. }), "{error}");
}

#[test]
fn weights_that_change_between_finding_and_loading_are_refused() {
    let Folder { _folder, cache } = folder();
    let (blob, digest) = put(&cache);
    let spec = zoo::find(VIT).unwrap();
    let pin = Pin::single(COMMIT, &Digest(digest).to_string()).unwrap();
    let weights = pulled(spec, Some(&pin), &cache).unwrap();
    let others = file(spec, |tensors| tensors[0].1.2.fill(0));
    std::fs::write(&blob, others).unwrap();
    let error = ZooClassifier::load(spec, &weights.files, Some(weights.digest), Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::Digest { .. }), "{error}");
    for found in
        [hub::load(spec, Some(&pin), &cache, Device::Cpu).map(drop), opened(VIT, Some(digest), &cache).map(drop)]
    {
        assert!(matches!(found, Err(ModelError::Digest { .. })), "{found:?}");
    }
}

#[test]
fn a_file_by_its_path_must_have_the_agreed_digest_too() {
    let Folder { _folder, cache } = folder();
    let (blob, digest) = put(&cache);
    let name = format!("{VIT}={}", blob.display());
    assert!(opened(&name, Some(digest), &cache).is_ok());
    assert!(matches!(opened(&name, Some([7; 32]), &cache), Err(ModelError::Digest { .. })));
}

#[test]
fn models_without_a_pin_or_of_another_library_say_what_to_do() {
    let Folder { _folder, cache } = folder();
    let told = |name: &str| opened(name, None, &cache).err().unwrap().to_string();
    assert!(told(VIT).contains("perturb model pull test_vit.r160_in1k --revision"));
    assert!(told("efficientnet_v2_l.imagenet1k_v1").contains("torchvision_weights.py"));
    assert!(told("swin_tiny_patch4_window7_224.ms_in1k").contains("perturb model pull"));
}

#[test]
fn a_blob_that_is_there_is_not_fetched_again_but_gets_its_snapshot() {
    let Folder { _folder, cache } = folder();
    let (blob, digest) = put(&cache);
    let spec = zoo::find(VIT).unwrap();
    let pin = Pin::single(COMMIT, &Digest(digest).to_string()).unwrap();
    // Nobody listens there.
    for _ in 0..2 {
        let weights = hub::pull(spec, Some(&pin), &cache, "http://127.0.0.1:1", |_, _| {}).unwrap();
        assert_eq!((weights.files, weights.digest), (vec![blob.clone()], digest));
    }
    let link = cache.hub().join(format!("models--timm--{VIT}/snapshots/{COMMIT}/model.safetensors"));
    assert_eq!(link.canonicalize().unwrap(), blob.canonicalize().unwrap());
    // A damaged one is, which nobody can serve here.
    std::fs::write(&blob, b"damaged").unwrap();
    let error = hub::pull(spec, Some(&pin), &cache, "http://127.0.0.1:1", |_, _| {}).unwrap_err();
    assert!(matches!(error, hub::HubError::Unavailable { .. }), "{error}");
}
