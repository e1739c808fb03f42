//! One target under libFuzzer: `FUZZ_TARGET` names it, `FUZZ_SEEDS` is the folder that its seeds are
//! written to before the corpus is read.
#![no_main]

use std::path::PathBuf;
use std::sync::{Once, OnceLock};

use perturb_fuzz::{TARGETS, Target, find, seeds};

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn choose() {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some(target) = find(&name) else {
        for target in TARGETS {
            println!("{}", target.name);
        }
        std::process::exit(2);
    };
    if let Some(folder) = std::env::var_os("FUZZ_SEEDS").map(PathBuf::from) {
        for (i, seed) in seeds::seeds(name.as_str()).iter().enumerate() {
            if let Err(e) = std::fs::write(folder.join(format!("seed-{i:03}")), seed) {
                eprintln!("{}: {e}", folder.display());
                std::process::exit(1);
            }
        }
    }
    let _ = CHOSEN.set(target);
}

/// libFuzzer's own hook ends the process at any panic. A target may catch one, of a library that is known to panic on
/// hostile bytes and is guarded; what it does not catch still ends the process, behind the target.
fn spare_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
}

libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| {
    spare_caught_panics();
    if let Some(target) = CHOSEN.get() {
        (target.run)(data);
    }
});
