#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::cli::{Cli, Command};
use clap::Parser;
use perturb_challenge::demo;
use perturb_challenge::semantics::Exact;
use perturb_model::TchClassifier;
use std::path::Path;
use tch::Device;

fn args(folder: &Path, images: &[PathBuf], more: &[&str]) -> AttackArgs {
    let out = folder.join("out").display().to_string();
    let page = folder.join("page.html").display().to_string();
    let line = ["perturb", "attack", "--out", &out, "--report", &page];
    let images = images.iter().map(|p| p.display().to_string());
    let line = line.iter().map(ToString::to_string).chain(more.iter().map(ToString::to_string)).chain(images);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Attack(args) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_attack_leaves_pictures_and_a_page_and_the_verifier_accepts_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let mut images = Vec::new();
    // The same name in two folders.
    for (sub, index) in [("a", 1), ("b", 2)] {
        let path = folder.path().join(sub).join("image.png");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, demo::draw(77, index).0.encode_png().unwrap()).unwrap();
        images.push(path);
    }
    let args = args(folder.path(), &images, &["--batch", "2", "--passes", "2000", "--budget-ms", "60000"]);
    run(&args).unwrap();
    let clean = read_clean(&images[1]).unwrap();
    let adversarial = read_clean(&folder.path().join("out/image-2.adversarial.png")).unwrap();
    assert!(clean.same_shape(&adversarial) && clean != adversarial);
    assert!(folder.path().join("out/image.difference.png").exists());
    let classifier = TchClassifier::embedded(Device::Cpu).unwrap();
    let model = Model { classifier: &classifier, semantics: &Exact };
    let png = adversarial.encode_png().unwrap();
    let verdict = report(&Rules::subnet(), &clean, &png, Some(&model), 10);
    assert_eq!(verdict.reason, perturb_types::Reason::Success);
    assert!(std::fs::read_to_string(folder.path().join("page.html")).unwrap().contains("2 of 2 flipped"));
}

#[test]
fn names_and_numbers_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("x.png");
    std::fs::write(&image, demo::draw(77, 0).0.encode_png().unwrap()).unwrap();
    let error =
        |image: &Path, more: &[&str]| format!("{:#}", run(&args(folder.path(), &[image.into()], more)).unwrap_err());
    for (more, word) in [
        (["--attack", "magic"], "unknown attack `magic`"),
        (["--rules", "none"], "unknown rules `none`"),
        (["--epsilon", "0"], "--epsilon"),
        (["--step-size", "0"], "--step-size"),
        (["--model", "/"], "model"),
    ] {
        let said = error(&image, &more);
        assert!(said.contains(word), "{more:?}: {said}");
    }
    let absent = folder.path().join("absent.png");
    assert!(error(&absent, &[]).contains("absent.png"));
}
