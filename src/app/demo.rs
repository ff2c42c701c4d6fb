//! The simulated platforms inside of the process: `demo` puts the exporter on them, `simulate` leaves them to whoever asks.
//! Never touches a real platform.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{reachable, run_on, signals, wall};
use crate::config::{self, Overrides, WebSettings};
use crate::simulate::{self, Platform, WorldOptions};
use crate::sources::Kind;

/// Tokens of platforms that hold nothing but made-up data.
const EMPIRICAL_TOKEN: &str = "simulated-empirical-token";
const SAMPLE_PLATFORM_TOKEN: &str = "spci_simulated-sample-platform-token";

/// A simulated platform and where it listens.
struct Simulated {
    kind: Kind,
    token: &'static str,
    base_url: String,
}

/// What is left to the user of a world.
#[derive(Clone, Copy)]
struct Fate {
    seed: u64,
    /// How many runs are started before the world comes to rest, if it ever does.
    runs: Option<usize>,
}

/// Starts both platforms. They live in real time, with runs of seconds.
async fn start(addresses: [SocketAddr; 2], fate: Fate, shutdown: &CancellationToken) -> anyhow::Result<[Simulated; 2]> {
    let [empirical, sample] = addresses;
    Ok([
        start_one(Kind::Empirical, EMPIRICAL_TOKEN, empirical, fate, shutdown).await?,
        start_one(Kind::SamplePlatform, SAMPLE_PLATFORM_TOKEN, sample, fate, shutdown).await?,
    ])
}

async fn start_one(
    kind: Kind,
    token: &'static str,
    address: SocketAddr,
    fate: Fate,
    shutdown: &CancellationToken,
) -> anyhow::Result<Simulated> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    let options = WorldOptions {
        seed: fate.seed,
        runs_after: fate.runs,
        ..WorldOptions::demo(kind, wall())
    };
    let platform = Platform::new(kind, options, token);
    let base_url = format!("http://{}{}", reachable(listener.local_addr()?), platform.base_path());
    tokio::spawn(simulate::serve(
        listener,
        Arc::new(Mutex::new(platform)),
        Arc::new(wall),
        shutdown.clone(),
    ));
    Ok(Simulated { kind, token, base_url })
}

/// The simulated platforms, and the exporter on them.
///
/// # Errors
/// It cannot start, or it fails while running.
pub async fn demo(web: WebSettings) -> anyhow::Result<ExitCode> {
    let shutdown = CancellationToken::new();
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let platforms = start([loopback; 2], Fate { seed: 42, runs: None }, &shutdown).await?;
    let listener = TcpListener::bind(web.listen_address)
        .await
        .with_context(|| format!("listening on {}", web.listen_address))?;
    let address = reachable(listener.local_addr()?);
    let path = web.telemetry_path.clone();
    let variables = platforms.iter().flat_map(variables);
    let overrides = Overrides {
        telemetry_path: Some(web.telemetry_path),
        web_config_file: web.config_file.map(|file| file.display().to_string()),
        created_timestamps: web.created_timestamps,
        ..Overrides::default()
    };
    let config = config::load(None, variables, &overrides).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(
        out,
        "Two simulated platforms, polled every 5 s. Nothing leaves this machine.\n  metrics  http://{address}{path}\n  status   http://{address}/\nTry: curl -s http://{address}{path} | grep testrun_runs_total     (Ctrl-C stops)"
    );
    drop(out);
    run_on(listener, config, None, shutdown).await
}

/// A source on a simulated platform, in the words of the environment.
fn variables(platform: &Simulated) -> Vec<(String, String)> {
    let source = platform.kind.label().to_uppercase();
    let pair = |key: &str, value: &str| {
        (
            format!("{}SOURCES__{source}__{key}", config::ENVIRONMENT_PREFIX),
            value.to_owned(),
        )
    };
    let mut pairs = vec![
        pair("KIND", platform.kind.label()),
        pair("BASE_URL", &platform.base_url),
        pair("TOKEN", platform.token),
        pair("POLL_INTERVAL", "5s"),
        pair("STALE_AFTER", "1m"),
        pair("RATE_LIMIT__REQUESTS_PER_MINUTE", "100"),
        pair("RATE_LIMIT__BURST", "20"),
        pair("GATE__ENABLED", "true"),
    ];
    if platform.kind == Kind::Empirical {
        // Tags stand in the list of cases only. Snoozes cost a request a minute. Something fails in each run, but not what has to
        // pass here: so this gate opens and shuts, where the other platform's stays shut.
        pairs.extend([
            pair("GATE__REQUIRED", r#"["^cart opens"]"#),
            pair("CASES__ANALYTICS_LAG", "10s"),
            pair("CASES__DISCOVERY", "registry"),
            pair("SNOOZES__ENABLED", "true"),
            pair("SNOOZES__INTERVAL", "1m"),
        ]);
    }
    pairs
}

/// The simulated platforms alone: Empirical on `listen`, the Sample Platform on the next port. With `runs` they come to rest,
/// so that whoever reads them can be compared with what they know of themselves.
///
/// # Errors
/// It cannot start.
pub async fn simulate(listen: SocketAddr, seed: u64, runs: Option<usize>) -> anyhow::Result<ExitCode> {
    let shutdown = CancellationToken::new();
    let next_port = if listen.port() == 0 {
        0
    } else {
        listen.port().checked_add(1).context("there is no port above")?
    };
    let platforms = start(
        [listen, SocketAddr::new(listen.ip(), next_port)],
        Fate { seed, runs },
        &shutdown,
    )
    .await?;
    let mut out = std::io::stdout().lock();
    for Simulated { kind, token, base_url } in &platforms {
        let _ = writeln!(
            out,
            "{}\n  base_url: {base_url}\n  token:    {token}\n  truth:    {}",
            kind.label(),
            truth_url(base_url)
        );
    }
    let _ = writeln!(out, "Ctrl-C stops.");
    out.flush()?;
    drop(out);
    signals().await?;
    shutdown.cancel();
    Ok(ExitCode::SUCCESS)
}

/// What the platform knows about itself; not a part of the platform's API.
fn truth_url(base_url: &str) -> String {
    format!("{}/-/truth", base_url.trim_end_matches("/api/v1"))
}
