//! The network's processes: started, watched, killed, and ended.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use color_eyre::eyre::{Context, Result, bail, eyre};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(8);

/// Lines of a dead process's log that are shown.
const LOG_TAIL: usize = 15;

/// How to start one process again, the same way.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name: folder and log carry it.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments: never a secret.
    pub args: Vec<String>,
    /// Folder for its log.
    pub dir: PathBuf,
}

/// A running process.
pub struct Process {
    spec: Spec,
    child: Option<Child>,
}

impl Spec {
    fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    fn open_log(&self) -> Result<File> {
        let log = self.log();
        OpenOptions::new().create(true).append(true).open(&log).wrap_err_with(|| format!("log {}", log.display()))
    }

    fn command(&self) -> Result<Command> {
        let mut c = Command::new(&self.program);
        c.args(&self.args)
            .stdin(Stdio::null())
            .stdout(self.open_log()?)
            .stderr(self.open_log()?)
            .env("OMP_NUM_THREADS", "1")
            .env("NO_COLOR", "1")
            // A secret of the caller's own has no business in a local network.
            .env_remove(crate::keys::SECRET_ENV)
            .env_remove("SUBTENSOR_ENDPOINT")
            .env_remove("NETUID")
            .kill_on_drop(true);
        if std::env::var_os("RUST_LOG").is_none() {
            c.env("RUST_LOG", "info");
        }
        Ok(c)
    }

    /// Starts it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(self) -> Result<Process> {
        let child = self.spawn(self.command()?)?;
        Ok(Process { spec: self, child: Some(child) })
    }

    fn spawn(&self, mut command: Command) -> Result<Child> {
        command.spawn().wrap_err_with(|| {
            format!("cannot start {} ({}); was everything built? (`make build`)", self.name, self.program.display())
        })
    }

    /// Starts it and waits for its first line on standard output, which says where it listens.
    ///
    /// # Errors
    /// It ends, or says nothing in time.
    pub async fn start_and_listen(self, patience: Duration) -> Result<(Process, String)> {
        let mut command = self.command()?;
        command.stdout(Stdio::piped());
        let mut child = self.spawn(command)?;
        let Some(out) = child.stdout.take() else { bail!("{} has no standard output", self.name) };
        let mut lines = BufReader::new(out).lines();
        let first = tokio::time::timeout(patience, lines.next_line()).await;
        let process = Process { spec: self, child: Some(child) };
        match first {
            Ok(Ok(Some(line))) => {
                // Drain the rest, so that the process never blocks on a full pipe.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                Ok((process, line))
            }
            _ => Err(eyre!("{} did not say that it listens\n{}", process.name(), process.log_tail())),
        }
    }
}

impl Process {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Whether it runs; an end that nobody asked for is an error with the end of its log.
    ///
    /// # Errors
    /// It ended by itself.
    pub fn check(&mut self) -> Result<()> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            self.child = None;
            bail!("{} ended by itself ({status})\n{}", self.spec.name, self.log_tail());
        }
        Ok(())
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.spec.log())
    }

    /// SIGKILL, now.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`].
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.child = Some(self.spec.spawn(self.spec.command()?)?);
        Ok(())
    }

    /// Starts it again and waits for its first line.
    ///
    /// # Errors
    /// It ends, or says nothing in time.
    pub async fn restart_and_listen(&mut self, patience: Duration) -> Result<String> {
        let (process, line) = self.spec.clone().start_and_listen(patience).await?;
        *self = process;
        Ok(line)
    }

    /// SIGTERM, then SIGKILL after the grace.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub async fn stop(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let Some(mut child) = self.child.take() else { return Ok(Duration::ZERO) };
        if let Some(id) = child.id() {
            // `kill` is on every machine; a signal crate for one call is not worth it.
            let _ = Command::new("kill").arg("-TERM").arg(id.to_string()).stderr(Stdio::null()).status().await;
        }
        if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(began.elapsed())
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(LOG_TAIL).collect();
    let lines: Vec<String> = lines.into_iter().rev().map(|l| format!("    {l}")).collect();
    format!("the end of {}:\n{}", path.display(), lines.join("\n"))
}
