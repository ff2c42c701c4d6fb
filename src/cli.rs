//! The command line: words in, a command out. Never acts on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{ArgAction, Parser, Subcommand};

use crate::config::Overrides;

/// Which commit this was built from, if the build was told.
pub const REVISION: &str = match option_env!("TESTRUN_EXPORTER_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Which compiler this was built with.
pub const RUSTC_VERSION: &str = match option_env!("TESTRUN_EXPORTER_RUSTC_VERSION") {
    Some(version) => version,
    None => "unknown",
};

/// The seed of the simulated platforms unless told otherwise. Any number does.
const SEED_DEFAULT: u64 = 1;

/// Serves the test runs of hosted platforms as Prometheus metrics.
#[derive(Debug, Parser)]
#[command(name = "testrun-exporter", version = version(), max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Everything that can be said before or after the command.
    #[command(flatten)]
    pub flags: Flags,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Polls the sources and serves the metrics (what happens without a command).
    Run,
    /// Checks the configuration and shows every problem in it.
    CheckConfig,
    /// Polls each source once and writes the metrics to standard output.
    Once,
    /// Serves the metrics of simulated platforms: needs no token and no configuration.
    Demo,
    /// Runs the simulated platforms only, to try a configuration on.
    Simulate {
        /// Where the simulated Empirical listens; the Sample Platform listens on the next port.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10956")]
        listen: SocketAddr,
        /// What the simulated history is made from; the same seed gives the same history.
        #[arg(long, value_name = "NUMBER", default_value_t = SEED_DEFAULT)]
        seed: u64,
        /// How many runs each platform starts before it comes to rest [default: without end]
        #[arg(long, value_name = "NUMBER")]
        runs: Option<usize>,
    },
}

/// The flags, in the spelling that Prometheus' own exporters use. Each beats its environment variable and its key in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Flags {
    /// The configuration file (YAML).
    #[arg(long = "config.file", value_name = "FILE", global = true)]
    pub config_file: Option<PathBuf>,
    /// Where to listen [default: 0.0.0.0:10955]
    #[arg(long = "web.listen-address", value_name = "ADDRESS", global = true)]
    pub listen_address: Option<String>,
    /// The path of the metrics [default: /metrics]
    #[arg(long = "web.telemetry-path", value_name = "PATH", global = true)]
    pub telemetry_path: Option<String>,
    /// TLS and passwords: a file in the exporter-toolkit's format
    #[arg(long = "web.config.file", value_name = "FILE", global = true)]
    pub web_config_file: Option<String>,
    /// Offer POST /-/reload, which reads the configuration anew as a SIGHUP does
    #[arg(long = "web.enable-lifecycle", action = ArgAction::SetTrue, global = true)]
    pub enable_lifecycle: bool,
    /// In OpenMetrics, tell when each counter began (_created): one more series for each counter, histogram and summary
    #[arg(long = "web.created-timestamps", action = ArgAction::SetTrue, global = true)]
    pub created_timestamps: bool,
    /// What is logged: error, warn, info, debug or trace [default: info]
    #[arg(long = "log.level", value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
    /// How it is logged: logfmt or json [default: logfmt]
    #[arg(long = "log.format", value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
}

impl Flags {
    /// The flags that stand above the environment and the file.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            listen_address: self.listen_address.clone(),
            telemetry_path: self.telemetry_path.clone(),
            web_config_file: self.web_config_file.clone(),
            enable_lifecycle: self.enable_lifecycle,
            created_timestamps: self.created_timestamps,
            log_level: self.log_level.clone(),
            log_format: self.log_format.clone(),
        }
    }
}

/// What `--version` shows.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{}\nrevision: {REVISION}\nrustc: {RUSTC_VERSION}",
            env!("CARGO_PKG_VERSION")
        )
    });
    &VERSION
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(words: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["testrun-exporter"].into_iter().chain(words.split_whitespace()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_are_accepted_before_and_after_the_command() {
        for words in [
            "--config.file a.yaml check-config",
            "check-config --config.file a.yaml",
            "check-config --config.file=a.yaml",
        ] {
            let cli = parse(words).unwrap();
            assert_eq!(cli.command, Some(Command::CheckConfig), "{words}");
            assert_eq!(cli.flags.config_file, Some(PathBuf::from("a.yaml")), "{words}");
        }
    }

    #[test]
    fn no_command_means_run() {
        let cli = parse("--config.file a.yaml --log.format=json --web.enable-lifecycle").unwrap();
        assert_eq!(cli.command, None);
        assert_eq!(cli.flags.overrides().log_format, Some("json".to_owned()));
        assert!(cli.flags.overrides().enable_lifecycle);
        assert_eq!(parse("run").unwrap().command, Some(Command::Run));
    }

    #[test]
    fn simulate_has_an_address_a_seed_and_perhaps_an_end() {
        let expected = Command::Simulate {
            listen: "127.0.0.1:10956".parse().unwrap(),
            seed: 1,
            runs: None,
        };
        assert_eq!(parse("simulate").unwrap().command, Some(expected));
        let expected = Command::Simulate {
            listen: "[::1]:80".parse().unwrap(),
            seed: 7,
            runs: Some(0),
        };
        assert_eq!(
            parse("simulate --listen [::1]:80 --seed 7 --runs 0").unwrap().command,
            Some(expected)
        );
    }

    #[test]
    fn mistakes_end_with_exit_code_2_and_questions_with_0() {
        for words in [
            "--config.fil a",
            "-config.file a",
            "poll",
            "simulate --seed x",
            "simulate --runs -1",
            "--log.level",
        ] {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words}");
        }
        assert_eq!(parse("--version").unwrap_err().kind(), ErrorKind::DisplayVersion);
        assert_eq!(parse("--version").unwrap_err().exit_code(), 0);
        assert_eq!(parse("--help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn the_version_names_the_revision_and_the_compiler() {
        let lines: Vec<String> = version().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], env!("CARGO_PKG_VERSION"));
        assert!(
            lines[1].starts_with("revision: ") && lines[2].starts_with("rustc: "),
            "{lines:?}"
        );
    }
}
