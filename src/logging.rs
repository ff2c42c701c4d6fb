//! Log lines on standard error, as logfmt or JSON. Text from outside cannot forge a line or a key: whatever is not plain is
//! quoted and escaped. Never decides what is worth a line; never shows what other crates say below a warning, because an
//! HTTP client's trace holds headers.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

/// The words for levels in the configuration.
pub const LEVELS: &[(&str, LevelFilter)] = &[
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// The words for formats in the configuration.
pub const FORMATS: &[(&str, Format)] = &[("logfmt", Format::Logfmt), ("json", Format::Json)];

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What is not worth a line.
    pub level: LevelFilter,
    /// A line's form.
    pub format: Format,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            level: LevelFilter::INFO,
            format: Format::Logfmt,
        }
    }
}

/// A line's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `key=value` pairs, as Prometheus' own programs write them.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// What is worth a line, while it is logged.
#[derive(Debug, Clone)]
pub struct Volume(reload::Handle<Targets, Registry>);

impl Volume {
    /// Another level from now on.
    pub fn set(&self, level: LevelFilter) {
        // The only error is that the log is gone.
        let _ = self.0.reload(targets(level));
    }
}

/// Logs to standard error from now on. A second call does nothing.
pub fn init(settings: Settings, now: fn() -> Timestamp) -> Volume {
    let (subscriber, volume) = subscriber(settings, now, std::io::stderr);
    // The only error is that somebody logs already, in which case there is a log.
    let _ = subscriber.try_init();
    volume
}

fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), level)
}

fn subscriber<W>(settings: Settings, now: fn() -> Timestamp, writer: W) -> (impl Subscriber + Send + Sync, Volume)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (ours, volume) = reload::Layer::new(targets(settings.level));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer = match settings.format {
        Format::Logfmt => layer.event_format(Logfmt { now }).fmt_fields(LogfmtFields).boxed(),
        Format::Json => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_timer(Clock { now })
            .boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(ours));
    (subscriber, Volume(volume))
}

struct Clock {
    now: fn() -> Timestamp,
}

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:.3}", (self.now)())
    }
}

struct Logfmt {
    now: fn() -> Timestamp,
}

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let level = metadata.level().as_str().to_ascii_lowercase();
        write!(
            writer,
            "ts={:.3} level={level} target={}",
            (self.now)(),
            metadata.target()
        )?;
        let mut pairs = Pairs::default();
        event.record(&mut pairs);
        writer.write_str(&pairs.message)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                writer.write_str(fields)?;
            }
        }
        writeln!(writer, "{}", pairs.others)
    }
}

struct LogfmtFields;

impl<'w> FormatFields<'w> for LogfmtFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut pairs = Pairs::default();
        fields.record(&mut pairs);
        writer.write_str(&pairs.message)?;
        writer.write_str(&pairs.others)
    }
}

/// ` key=value` for each field, the message apart because it goes first.
#[derive(Default)]
struct Pairs {
    message: String,
    others: String,
}

impl Pairs {
    fn push(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            push_pair(&mut self.message, "msg", value);
        } else {
            push_pair(&mut self.others, field.name(), value);
        }
    }
}

impl Visit for Pairs {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.push(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, &format!("{value:?}"));
    }
}

/// Field names are the code's own, and made safe all the same.
fn push_pair(line: &mut String, key: &str, value: &str) {
    line.push(' ');
    line.extend(key.chars().map(|char| {
        if char.is_ascii_alphanumeric() || "_.-".contains(char) {
            char
        } else {
            '_'
        }
    }));
    line.push('=');
    let plain = !value.is_empty()
        && value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"=\\".contains(&byte));
    if plain {
        line.push_str(value);
        return;
    }
    line.push('"');
    for char in value.chars() {
        match char {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            // Line separators and marks that change the direction of writing deceive readers as well as parsers.
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => push_escaped(line, char),
            char if char.is_control() => push_escaped(line, char),
            char => line.push(char),
        }
    }
    line.push('"');
}

fn push_escaped(line: &mut String, char: char) {
    let _ = write!(line, "\\u{:04x}", u32::from(char));
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(settings: Settings, act: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let sink = buffer.clone();
        let (subscriber, _) = subscriber(settings, || Timestamp::UNIX_EPOCH, move || sink.clone());
        tracing::subscriber::with_default(subscriber, act);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn check(act: impl FnOnce(), expected: &str) {
        let start = "ts=1970-01-01T00:00:00.000Z level=info target=testrun_exporter::logging::tests";
        assert_eq!(logged(Settings::default(), act), format!("{start} {expected}\n"));
    }

    #[test]
    fn plain_values_stand_as_they_are_and_others_in_quotes() {
        check(
            || tracing::info!(count = 3, slow = true, path = "/metrics", "round ended"),
            r#"msg="round ended" count=3 slow=true path=/metrics"#,
        );
        check(
            || tracing::info!(empty = "", pair = "a=b", "x"),
            r#"msg=x empty="" pair="a=b""#,
        );
        check(|| tracing::info!(name = "Grüße", "x"), r#"msg=x name="Grüße""#);
    }

    #[test]
    fn text_from_outside_cannot_forge_a_line_or_a_key() {
        let hostile = "a\nts=0 level=error \"quoted\" \\ \r\t\u{1b}[31m\u{0}\u{85}\u{2028}\u{202e}";
        let shown = r#""a\nts=0 level=error \"quoted\" \\ \r\t\u001b[31m\u0000\u0085\u2028\u202e""#;
        check(|| tracing::info!(title = hostile, "x"), &format!("msg=x title={shown}"));
        check(
            || tracing::info!(title = %hostile, "x"),
            &format!("msg=x title={shown}"),
        );
        check(|| tracing::info!("{hostile}"), &format!("msg={shown}"));
    }

    #[test]
    fn a_line_names_the_spans_that_it_belongs_to() {
        check(
            || {
                let outer = tracing::info_span!("poll", source = "shop one").entered();
                tracing::info!(page = 2, "asked");
                drop(outer);
            },
            r#"msg=asked source="shop one" page=2"#,
        );
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = anyhow::anyhow!("inner cause").context("outer");
        let error: Box<dyn std::error::Error> = error.into();
        check(
            || tracing::info!(error = &*error, "failed"),
            r#"msg=failed error="outer: inner cause""#,
        );
    }

    #[test]
    fn levels_apply_to_our_own_lines_and_others_are_heard_from_warnings_upwards() {
        let settings = Settings {
            level: LevelFilter::DEBUG,
            format: Format::Logfmt,
        };
        let lines = logged(settings, || {
            tracing::debug!("ours");
            tracing::trace!("too detailed");
            tracing::info!(target: "hyper", "theirs");
            tracing::warn!(target: "hyper", "their warning");
        });
        let messages: Vec<&str> = lines.lines().filter_map(|line| line.split("msg=").nth(1)).collect();
        assert_eq!(messages, ["ours", "\"their warning\""]);
        let settings = Settings {
            level: LevelFilter::ERROR,
            format: Format::Logfmt,
        };
        assert_eq!(
            logged(settings, || tracing::warn!(target: "hyper", "their warning")),
            ""
        );
    }

    #[test]
    fn the_level_changes_while_it_is_logged() {
        let buffer = Buffer::default();
        let sink = buffer.clone();
        let (subscriber, volume) = subscriber(Settings::default(), || Timestamp::UNIX_EPOCH, move || sink.clone());
        tracing::subscriber::with_default(subscriber, || {
            for (level, text) in [(LevelFilter::DEBUG, "heard"), (LevelFilter::WARN, "not heard")] {
                volume.set(level);
                tracing::debug!("{text}");
                tracing::debug!(target: "hyper", "theirs");
            }
        });
        let lines = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert!(lines.ends_with("msg=heard\n") && lines.lines().count() == 1, "{lines}");
    }

    #[test]
    fn json_lines_hold_the_same_in_one_object() {
        let settings = Settings {
            level: LevelFilter::INFO,
            format: Format::Json,
        };
        let line = logged(settings, || {
            let _span = tracing::info_span!("poll", source = "shop").entered();
            tracing::info!(title = "a\n\"b\"", count = 3, "round ended");
        });
        assert_eq!(line.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["level"], "INFO");
        assert_eq!(value["message"], "round ended");
        assert_eq!(value["title"], "a\n\"b\"");
        assert_eq!(value["count"], 3);
        assert_eq!(value["span"]["source"], "shop");
    }
}
