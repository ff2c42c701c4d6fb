//! The two text formats, 0.0.4 and OpenMetrics 1.0: one buffer, written front to back. Escaping and numbers live here and
//! nowhere else. Never knows what a family means; never sorts.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::metrics::catalog::{Family, Type};

/// Label values are cut here. Long enough for any title that a person would read in a table; without it, one hostile
/// title would be repeated in each of its case's series.
pub(crate) const LABEL_VALUE_CHARS_MAX: usize = 256;

/// `~` and 16 digits: what stands for the part of an identity that could not be kept.
const CHECKSUM_CHARS: usize = 17;

/// What OpenMetrics allows an exemplar's labels, names and values together; a server refuses the scrape beyond it.
const EXEMPLAR_CHARS_MAX: usize = 128;

/// How an exposition is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format 0.0.4, which every scraper reads.
    Text,
    /// OpenMetrics 1.0: units, info metrics, and exemplars.
    OpenMetrics,
}

impl Format {
    /// Every member.
    pub const ALL: [Self; 2] = [Self::Text, Self::OpenMetrics];

    /// What the last line of an exposition has to be.
    #[must_use]
    pub const fn end(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }
}

/// An exposition in the making.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    format: Format,
    series: Vec<(&'static str, u64)>,
}

impl Page {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            text: String::new(),
            format,
            series: Vec::new(),
        }
    }

    /// Writes one family. A family without a sample prints nothing, not even its head.
    pub(crate) fn family(&mut self, family: &'static Family, write: impl FnOnce(&mut Samples<'_>)) {
        let start = self.text.len();
        push_head(&mut self.text, family, self.format);
        let mut samples = Samples::new(&mut self.text, family, self.format);
        write(&mut samples);
        match samples.count() {
            0 => self.text.truncate(start),
            count => self.series.push((family.name, count)),
        }
    }

    /// The series written so far, by family.
    pub(crate) fn series(&self) -> &[(&'static str, u64)] {
        &self.series
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// A family's HELP, TYPE and, in OpenMetrics, UNIT. There a counter's and an info's family is named without the suffix that
/// its samples have, and a unit may be told only if the name ends with it.
///
/// A state set would have to call its label like itself (`testrun_last_run_outcome{testrun_last_run_outcome="passed"}`), so
/// ours are gauges in both formats: one name and one label for every query.
pub(crate) fn push_head(text: &mut String, family: &Family, format: Format) {
    let Family {
        name, kind, help, unit, ..
    } = *family;
    // Writing to a string cannot fail, here and below.
    if format == Format::Text {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.word());
        return;
    }
    let (suffix, word) = match kind {
        Type::Counter => ("_total", "counter"),
        Type::Info => ("_info", "info"),
        other => ("", other.word()),
    };
    let name = name.strip_suffix(suffix).unwrap_or(name);
    let _ = writeln!(text, "# TYPE {name} {word}");
    let unit = unit.split(' ').next().unwrap_or_default();
    if !unit.is_empty() && name.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_')) {
        let _ = writeln!(text, "# UNIT {name} {unit}");
    }
    let _ = writeln!(text, "# HELP {name} {}", help.replace('"', "\\\""));
}

/// A sample's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value {
    Int(u64),
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Self::Float(unix_seconds(value))
    }
}

/// Seconds since 1970, to the millisecond: the platforms tell no more, and more digits would be an f64's noise.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of any year that jiff knows fit into an f64"
)]
pub(crate) fn unix_seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

/// The run that a counter or a bucket was last moved by: what a person who sees it move wants to open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exemplar<'a> {
    pub(crate) run: u64,
    pub(crate) url: Option<&'a str>,
    pub(crate) at: Option<Timestamp>,
    pub(crate) value: f64,
}

/// One family's samples.
pub(crate) struct Samples<'page> {
    text: &'page mut String,
    family: &'static Family,
    format: Format,
    count: u64,
}

impl<'page> Samples<'page> {
    /// Without a head, for a part of a family.
    pub(crate) fn new(text: &'page mut String, family: &'static Family, format: Format) -> Self {
        Self {
            text,
            family,
            format,
            count: 0,
        }
    }

    /// How many samples were written.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// A sample whose labels are complete.
    pub(crate) fn put(&mut self, labels: &str, value: impl Into<Value>) {
        self.write("", labels, &[], value.into(), None);
    }

    /// A sample with one more label, from a closed set: its value needs no escaping.
    pub(crate) fn put_with(&mut self, labels: &str, name: &str, label: &str, value: impl Into<Value>) {
        self.write("", labels, &[(name, label)], value.into(), None);
    }

    /// A sample with several more labels that need no escaping.
    pub(crate) fn put_with_all(&mut self, labels: &str, extra: &[(&str, &str)], value: impl Into<Value>) {
        self.write("", labels, extra, value.into(), None);
    }

    /// The same for a counter that remembers what moved it.
    pub(crate) fn put_counted(&mut self, labels: &str, extra: (&str, &str), value: u64, by: Option<Exemplar<'_>>) {
        self.write("", labels, &[extra], Value::Int(value), by);
    }

    /// The sum and the count of a summary or a histogram.
    pub(crate) fn put_sum_and_count(&mut self, labels: &str, sum: f64, count: u64) {
        self.write("_sum", labels, &[], Value::Float(sum), None);
        self.write("_count", labels, &[], Value::Int(count), None);
    }

    /// One bucket of a histogram, with all that lies below its bound.
    pub(crate) fn put_bucket(&mut self, labels: &str, bound: f64, below: u64, by: Option<Exemplar<'_>>) {
        let mut text = String::new();
        push_float(&mut text, bound);
        // OpenMetrics wants one spelling of a bound, that of a float.
        if self.format == Format::OpenMetrics && bound.is_finite() && !text.contains(['.', 'e']) {
            text.push_str(".0");
        }
        self.write("_bucket", labels, &[("le", &text)], Value::Int(below), by);
    }

    /// When a counter, a histogram or a summary began at 0, if that is to be told: behind its other samples, and in OpenMetrics
    /// alone, because 0.0.4 would have it a family of its own.
    pub(crate) fn put_created(&mut self, labels: &str, extra: &[(&str, &str)], created: Option<Timestamp>) {
        if let Some(created) = created.filter(|_| self.format == Format::OpenMetrics) {
            self.write("_created", labels, extra, created.into(), None);
        }
    }

    fn write(
        &mut self,
        suffix: &str,
        labels: &str,
        extra: &[(&str, &str)],
        value: Value,
        exemplar: Option<Exemplar<'_>>,
    ) {
        self.count += 1;
        let text = &mut *self.text;
        let name = match suffix {
            "_created" => self.family.name.strip_suffix("_total").unwrap_or(self.family.name),
            _ => self.family.name,
        };
        text.push_str(name);
        text.push_str(suffix);
        if !labels.is_empty() || !extra.is_empty() {
            text.push('{');
            text.push_str(labels);
            for (place, (name, label)) in extra.iter().enumerate() {
                if place > 0 || !labels.is_empty() {
                    text.push(',');
                }
                text.push_str(name);
                text.push_str("=\"");
                text.push_str(label);
                text.push('"');
            }
            text.push('}');
        }
        text.push(' ');
        match value {
            Value::Int(value) => push_integer(text, value),
            Value::Float(value) => push_float(text, value),
        }
        if let Some(exemplar) = exemplar.filter(|_| self.format == Format::OpenMetrics) {
            push_exemplar(text, &exemplar);
        }
        text.push('\n');
    }
}

/// The URL is left out if it does not fit, or holds what a label may not: the run's id is enough to find it.
fn push_exemplar(text: &mut String, exemplar: &Exemplar<'_>) {
    let Exemplar { run, url, at, value } = *exemplar;
    text.push_str(" # {run_id=\"");
    let start = text.len();
    push_integer(text, run);
    let used = "run_id".len() + (text.len() - start) + "build_url".len();
    text.push('"');
    let fits = |url: &&str| {
        let plain = !url.is_empty() && !url.chars().any(char::is_control);
        plain && used + url.chars().count() <= EXEMPLAR_CHARS_MAX
    };
    if let Some(url) = url.filter(fits) {
        text.push_str(",build_url=\"");
        push_value(text, url, false);
        text.push('"');
    }
    text.push_str("} ");
    push_float(text, value);
    if let Some(at) = at {
        text.push(' ');
        push_float(text, unix_seconds(at));
    }
}

/// A text without control characters and cut to what a label holds, for a writer that does its own escaping.
pub(crate) fn safe_text(value: &str) -> String {
    value
        .chars()
        .filter(|character| !character.is_control())
        .take(LABEL_VALUE_CHARS_MAX)
        .collect()
}

/// Appends `name="value"` for a text that people read. An empty value is an absent label.
pub(crate) fn push_text_label(labels: &mut String, name: &str, value: &str) {
    push_label(labels, name, value, false);
}

/// Appends `name="value"` for a value that tells series apart: if it has to be changed, it gets a checksum, so that two
/// values that differ only in what is taken away stay two.
pub(crate) fn push_identity_label(labels: &mut String, name: &str, value: &str) {
    push_label(labels, name, value, true);
}

fn push_label(labels: &mut String, name: &str, value: &str, identity: bool) {
    let start = labels.len();
    if !labels.is_empty() {
        labels.push(',');
    }
    labels.push_str(name);
    labels.push_str("=\"");
    let empty = labels.len();
    push_value(labels, value, identity);
    if labels.len() == empty {
        labels.truncate(start);
    } else {
        labels.push('"');
    }
}

fn push_value(labels: &mut String, value: &str, identity: bool) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if value.len() <= LABEL_VALUE_CHARS_MAX && value.bytes().all(plain) {
        labels.push_str(value);
        return;
    }
    let kept = |character: &char| *character == '\n' || !character.is_control();
    let chars = value.chars().filter(kept).count();
    let changed = chars > LABEL_VALUE_CHARS_MAX || chars != value.chars().count();
    let checksum = changed && identity;
    let room = if checksum {
        LABEL_VALUE_CHARS_MAX - CHECKSUM_CHARS
    } else {
        LABEL_VALUE_CHARS_MAX
    };
    for character in value.chars().filter(kept).take(room) {
        match character {
            '\\' => labels.push_str("\\\\"),
            '"' => labels.push_str("\\\""),
            '\n' => labels.push_str("\\n"),
            other => labels.push(other),
        }
    }
    if checksum {
        let _ = write!(labels, "~{:016x}", fnv1a(value.as_bytes()));
    }
}

/// FNV-1a: the same in every version and on every machine, which a series' identity has to be.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn push_integer(text: &mut String, mut value: u64) {
    // 20 digits are u64::MAX. By hand, because the formatting machinery is most of a plain sample's cost.
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
        if value == 0 {
            break;
        }
    }
    text.push_str(std::str::from_utf8(&digits[first..]).unwrap_or_default());
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a small whole number"
)]
fn push_float(text: &mut String, value: f64) {
    // Up to here every whole number is an f64; beyond 1e21 and below 1e-6, an exponent is shorter than zeros.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && (0.0..=WHOLE_MAX).contains(&value) {
        push_integer(text, value as u64);
    } else if value.is_nan() {
        text.push_str("NaN");
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if (1e-6..1e21).contains(&value.abs()) {
        let _ = write!(text, "{value}");
    } else {
        let _ = write!(text, "{value:e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_label(value: &str, expected: &str) {
        let mut labels = String::new();
        push_text_label(&mut labels, "name", value);
        assert_eq!(labels, expected, "for {value:?}");
    }

    #[test]
    fn a_label_value_is_escaped_and_stripped() {
        check_label("checkout > pays", r#"name="checkout > pays""#);
        check_label("", "");
        check_label("\u{0}\u{7f}\u{85}", "");
        check_label("a\\b \"c\"\nd\r\te", r#"name="a\\b \"c\"\nde""#);
        check_label("größe 🎉", r#"name="größe 🎉""#);
    }

    #[test]
    fn a_label_value_is_cut_between_characters() {
        check_label(&"ß".repeat(300), &format!("name=\"{}\"", "ß".repeat(256)));
        check_label(&"ß".repeat(256), &format!("name=\"{}\"", "ß".repeat(256)));
        check_label(&"\"".repeat(257), &format!("name=\"{}\"", "\\\"".repeat(256)));
    }

    #[test]
    fn an_identity_that_had_to_be_changed_stays_apart_from_its_like() {
        let label = |value: &str| {
            let mut labels = String::new();
            push_identity_label(&mut labels, "case", value);
            labels
        };
        assert_eq!(label("a\nb"), r#"case="a\nb""#, "an escape is not a change");
        assert_ne!(label("a\u{1}b"), label("a\u{2}b"));
        assert_ne!(label("a\u{1}b"), label("ab"));
        let (one, other) = (
            label(&format!("{}1", "x".repeat(300))),
            label(&format!("{}2", "x".repeat(300))),
        );
        assert_ne!(one, other);
        assert_eq!(one.chars().count(), "case=\"\"".len() + LABEL_VALUE_CHARS_MAX);
    }

    fn check_number(value: f64, expected: &str) {
        let mut text = String::new();
        push_float(&mut text, value);
        assert_eq!(text, expected);
        if value.is_finite() {
            assert_eq!(
                text.parse::<f64>().unwrap().to_bits(),
                (value + 0.0).to_bits(),
                "{text} reads back as another number"
            );
        }
    }

    #[test]
    fn numbers_are_as_short_as_they_can_be_and_read_back_the_same() {
        check_number(0.0, "0");
        check_number(5.0, "5");
        check_number(-3.0, "-3");
        check_number(0.1, "0.1");
        check_number(1_795_309_804.123, "1795309804.123");
        check_number(9_007_199_254_740_992.0, "9007199254740992");
        check_number(1e300, "1e300");
        check_number(2.5e-9, "2.5e-9");
        check_number(f64::NAN, "NaN");
        check_number(f64::INFINITY, "+Inf");
        check_number(f64::NEG_INFINITY, "-Inf");
        let mut text = String::new();
        push_integer(&mut text, u64::MAX);
        assert_eq!(text, u64::MAX.to_string());
    }
}
