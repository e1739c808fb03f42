//! `perturb-audit`: checks what a Perturb network says of itself. See the library.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

mod cli;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let json = cli.json;
    let report = cli::run(cli);
    let text = if json { serde_json::to_string_pretty(&report).unwrap_or_default() + "\n" } else { report.to_string() };
    // A reader that closed the pipe has seen enough; the verdict stands.
    let _closed = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(report.verdict as u8)
}
