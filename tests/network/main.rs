//! Whole-system tests: the built programs as separate processes over real sockets.
//!
//! They need everything built (`make test` does it) and run one at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audited;
mod command_line;
mod localnet;
mod lonely;
mod scenarios;
mod trouble;

use std::path::PathBuf;
use std::process::{Command, Output};

/// The built program of this name, beside the test's own binary.
fn program(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("the test's own path");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built: run `make build`", path.display());
    path
}

/// `perturb` with these arguments, without the caller's own configuration.
fn perturb(args: &[&str]) -> Command {
    let mut c = Command::new(program("perturb"));
    c.args(args)
        .env("NO_COLOR", "1")
        .env_remove("VALIDATOR_SECRET_KEY")
        .env_remove("SUBTENSOR_ENDPOINT")
        .env_remove("NETUID");
    c
}

/// Both streams as text.
fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
