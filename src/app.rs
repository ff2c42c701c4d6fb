//! The composition root. This is a placeholder.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::config::Config;

/// The daemon.
///
/// # Errors
/// It cannot start, or it fails while running.
pub async fn run(_config: Config) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet built")
}

/// One round of each source.
///
/// # Errors
/// It cannot start.
pub async fn once(_config: Config) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet built")
}

/// Simulated platforms and the exporter on them.
///
/// # Errors
/// It cannot start, or it fails while running.
pub async fn demo(_listen: SocketAddr) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet built")
}

/// Simulated platforms.
///
/// # Errors
/// It cannot start, or it fails while running.
pub async fn simulate(_listen: SocketAddr, _seed: u64) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet built")
}
