//! The process's edge: arguments, environment, logging, exit codes. The only reader of the environment.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use jiff::Timestamp;
use testrun_exporter::app::{self, Origin};
use testrun_exporter::cli::{Cli, Command, Flags};
use testrun_exporter::config::{self, Config, ENVIRONMENT_PREFIX, Fingerprint, Problems};
use testrun_exporter::logging;

/// A bad command line or configuration.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.clone().unwrap_or(Command::Run);
    match act(&command, &cli.flags) {
        Ok(code) => code,
        Err(Failure::Misused(text)) => {
            complain(&text);
            ExitCode::from(MISUSED)
        }
        Err(Failure::Failed(error)) => {
            complain(&format!("testrun-exporter: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    Misused(String),
    Failed(anyhow::Error),
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Misused(problems.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

fn act(command: &Command, flags: &Flags) -> Result<ExitCode, Failure> {
    match *command {
        Command::CheckConfig => {
            let config = configured(flags)?;
            check_directory(flags, &config)?;
            Ok(check_config(&config))
        }
        Command::Run => {
            let file = flags.config_file.clone();
            let read_from = Fingerprint::of(file.as_deref());
            let config = configured(flags)?;
            let volume = logging::init(config.log, now);
            let flags = flags.clone();
            let load = move || config::load(flags.config_file.as_deref(), environment(), &flags.overrides());
            let origin = Origin {
                file,
                read_from,
                load: Box::new(load),
                volume,
            };
            Ok(block_on(app::run(config, origin))?)
        }
        Command::Once => {
            let config = configured(flags)?;
            logging::init(config.log, now);
            Ok(block_on(app::once(config))?)
        }
        Command::Demo => {
            no_file(flags, "demo")?;
            let (web, log) = config::load_process(environment(), &flags.overrides())?;
            logging::init(log, now);
            Ok(block_on(app::demo(web))?)
        }
        Command::Simulate { listen, seed, runs } => {
            no_file(flags, "simulate")?;
            let (_, log) = config::load_process(environment(), &flags.overrides())?;
            logging::init(log, now);
            Ok(block_on(app::simulate(listen, seed, runs))?)
        }
    }
}

fn configured(flags: &Flags) -> Result<Config, Failure> {
    let sources_prefix = format!("{ENVIRONMENT_PREFIX}SOURCES__");
    let file = flags.config_file.as_deref();
    if file.is_none() && !environment().any(|(name, _)| name.starts_with(&sources_prefix)) {
        let text = "testrun-exporter: there is no configuration; expected --config.file FILE \
                    (or try `testrun-exporter demo`, which needs none)";
        return Err(Failure::Misused(text.to_owned()));
    }
    Ok(config::load(file.map(Path::new), environment(), &flags.overrides())?)
}

/// Whoever names a file expects it to be read.
fn no_file(flags: &Flags, command: &str) -> Result<(), Failure> {
    if flags.config_file.is_some() {
        let text = format!("testrun-exporter: {command} reads no configuration; expected it without --config.file");
        return Err(Failure::Misused(text));
    }
    Ok(())
}

/// The daemon would find out when it starts.
fn check_directory(flags: &Flags, config: &Config) -> Result<(), Failure> {
    app::check_directory(config).map_err(|error| {
        let file = flags.config_file.as_ref();
        let place = file.map_or_else(|| "configuration".to_owned(), |file| file.display().to_string());
        Failure::Misused(format!("{place}: {error:#}"))
    })
}

fn check_config(config: &Config) -> ExitCode {
    let mut out = std::io::stdout().lock();
    for source in &config.sources {
        // Nobody who could be told is left when standard output is closed.
        let _ = writeln!(out, "{}", source.summary());
    }
    if let Some(file) = &config.web.config_file {
        for warning in config.web.warnings() {
            complain(&format!("{}: warning: {warning}", file.display()));
        }
    }
    ExitCode::SUCCESS
}

/// Variables that are not valid text cannot be ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time of a log line is for people; no decision depends on it"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Fewer workers than this, and one long render would keep every scrape waiting.
const WORKERS_MIN: usize = 2;

fn block_on(future: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let workers = std::thread::available_parallelism().map_or(WORKERS_MIN, |cores| cores.get().max(WORKERS_MIN));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    let result = runtime.block_on(future);
    // A name that is being resolved, or a disk that hangs, occupies a thread that nothing can interrupt. The exit does not
    // wait for it: whatever is being written, what was written before is whole.
    runtime.shutdown_background();
    result
}
