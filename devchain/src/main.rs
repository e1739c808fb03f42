//! `perturb-devchain`: run the development chain until it is told to stop.

use clap::Parser;
use color_eyre::eyre::{Result, WrapErr};
use perturb_devchain::{Config, Genesis, run};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A development chain with Bittensor's interface, on 127.0.0.1.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Port for JSON-RPC over WebSocket and HTTP; 0 takes any free one.
    #[arg(long, default_value_t = 9944)]
    rpc_port: u16,
    /// Milliseconds between two blocks.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    block_time_ms: u64,
    /// Genesis file (JSON); without it the chain has no subnets.
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Folder that keeps the chain; without it the chain is forgotten at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    color_eyre::install()?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let genesis = match &arguments.genesis {
        None => Genesis::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).wrap_err_with(|| format!("{}", path.display()))?;
            Genesis::from_json(&text).wrap_err_with(|| format!("{}", path.display()))?
        }
    };
    let handle = run(Config {
        rpc_port: arguments.rpc_port,
        block_time: Duration::from_millis(arguments.block_time_ms),
        genesis,
        data_dir: arguments.data_dir,
    })
    .await?;
    let mut out = std::io::stdout();
    writeln!(out, "listening {} genesis 0x{}", handle.ws_url(), hex::encode(handle.genesis_hash()))?;
    out.flush()?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupt = tokio::signal::ctrl_c() => interrupt?,
    }
    handle.stop().await;
    Ok(())
}
