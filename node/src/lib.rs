//! Perturb's node: the wiring of the rooms into one binary, and its command line.

pub mod attack;
pub mod bootnode;
pub mod cli;
pub mod commands;
pub mod config;
pub mod db;
pub mod http;
pub mod keys;
pub mod localnet;
pub mod metagraph;
pub mod metrics;
pub mod miner;
pub mod outside;
pub mod owner;
pub mod report;
pub mod role;
pub mod score;
pub mod snapshot;
pub mod status;
pub mod validator;
pub mod zoo;

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use color_eyre::eyre::Result;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};
use config::Config;

/// Parses the command line and runs.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // What a person runs at a terminal speaks for itself; a service logs what it does.
    let quiet = !matches!(cli.command, Command::Validator(_) | Command::Miner(_) | Command::Bootnode(_));
    let default = if quiet { "warn" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => {
            // A miner's attack or a silent drill may still sit on a blocking thread.
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            ExitCode::SUCCESS
        }
        // Whoever reads the output has seen enough (`| head`): no failure of ours.
        Err(error) if error.downcast_ref().is_some_and(|e: &std::io::Error| e.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // One line: what, where, what to do. The chain of causes reads outside in.
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            eprintln!("error: {}", causes.join(": "));
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Validator(args) => validator::run(Config::load(&args, args.common.config.as_deref())?).await,
        Command::Miner(args) => miner::run(Config::load(&args, args.common.config.as_deref())?).await,
        Command::Bootnode(args) => bootnode::run(Config::load(&args, args.common.config.as_deref())?).await,
        Command::Localnet(args) => localnet::run(args).await,
        Command::Keys(command) => keys::run(command),
        Command::Model(command) => commands::model(command),
        Command::Images(args) => outside::images(&args),
        Command::Status(args) => status::run(args).await,
        Command::Score(args) => score::run(&args),
        Command::Attack(args) => attack::run(&args),
        Command::Db(command) => db::run(command),
        Command::Snapshot(command) => snapshot::run(command),
        Command::Owner(args) => owner::run(args).await,
    }
}
