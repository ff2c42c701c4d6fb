//! Taking typed values out of merged sections. Each failure is noted with its place and reading goes on, so that one look
//! shows everything that is wrong. What nobody has taken in the end is an unknown key: the list of keys is the code.
//!
//! Typed structs with derived `Deserialize` would stop at the first error of a section and would quote secrets in it.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::{Dict, Num, Tag, Value};
use regex::Regex;

use super::layers::Layers;
use super::problems::{Problem, Problems};

/// Values longer than this are cut in messages.
const SHOWN_CHARS_MAX: usize = 60;

/// The form of a duration, for messages.
const DURATION_FORM: &str = "a duration such as 60s, 15m, 1h30m or 30d";

/// The values, and what is wrong with them.
pub(super) struct Reader {
    pub(super) layers: Layers,
    problems: RefCell<Vec<Problem>>,
    /// Variables that `token_env` names. Whatever their names look like, they are no configuration keys.
    token_variables: RefCell<Vec<String>>,
    /// What was read beside the configuration file, well or badly.
    files: RefCell<Vec<PathBuf>>,
}

impl Reader {
    pub(super) fn new(layers: Layers) -> Self {
        Self {
            layers,
            problems: RefCell::default(),
            token_variables: RefCell::default(),
            files: RefCell::default(),
        }
    }

    pub(super) fn root(&self) -> Section<'_> {
        Section {
            reader: self,
            path: Vec::new(),
            values: self.layers.root(),
            known: Vec::new(),
            is_broken: false,
        }
    }

    pub(super) fn note(&self, place: String, path: &[String], message: impl Into<String>) {
        self.problems
            .borrow_mut()
            .push(Problem::new(place, shown_path(path), message));
    }

    pub(super) fn token_variable(&self, name: &str) {
        self.token_variables.borrow_mut().push(name.to_owned());
    }

    pub(super) fn file_read(&self, path: PathBuf) {
        self.files.borrow_mut().push(path);
    }

    pub(super) fn into_problems(self) -> Option<Problems> {
        let problems = self.problems.into_inner();
        (!problems.is_empty()).then(|| Problems::new(problems, self.files.into_inner()))
    }
}

/// A mapping that is being read.
pub(super) struct Section<'a> {
    pub(super) reader: &'a Reader,
    pub(super) path: Vec<String>,
    values: Dict,
    known: Vec<&'static str>,
    /// Something else stands where it should be, and that has been said.
    is_broken: bool,
}

impl<'a> Section<'a> {
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The value of a key. `null` is the same as no such key: the default.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let value = self
            .values
            .remove(key)
            .filter(|value| !matches!(value, Value::Empty(..)))?;
        Some(Item {
            reader: self.reader,
            path: child(&self.path, key),
            value,
        })
    }

    /// The section below a key; empty if there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let item = self.take(key);
        self.below(key, item.map(Item::mapping))
    }

    /// The section below a key that is turned on and off by `enabled`: people like to write the truth value in its place.
    pub(super) fn switched_section(&mut self, key: &'static str) -> Section<'a> {
        let values = self.take(key).map(|item| match item.value {
            Value::Bool(_, truth) => {
                item.problem(format!(
                    "{truth} is not a mapping; expected keys and values such as {key}: {{ enabled: {truth} }}"
                ));
                None
            }
            _ => item.mapping(),
        });
        self.below(key, values)
    }

    /// `values`: what was found there, `Some(None)` if it was no mapping.
    fn below(&self, key: &'static str, values: Option<Option<Dict>>) -> Section<'a> {
        let path = child(&self.path, key);
        Section {
            reader: self.reader,
            path,
            is_broken: matches!(values, Some(None)),
            values: values.flatten().unwrap_or_default(),
            known: Vec::new(),
        }
    }

    /// Every member of a mapping whose keys are the user's own.
    pub(super) fn members(self) -> Vec<(String, Item<'a>)> {
        let (reader, path) = (self.reader, self.path);
        let item = |(key, value): (String, Value)| {
            let item = Item {
                reader,
                path: child(&path, &key),
                value,
            };
            (key, item)
        };
        self.values.into_iter().map(item).collect()
    }

    /// A key that exists, but not here.
    pub(super) fn refuse(&mut self, key: &'static str, message: &str) {
        if let Some(item) = self.take(key) {
            item.problem(message);
        }
    }

    /// Something is wrong with the section, or with a key that is not there.
    pub(super) fn missing(&self, key: &str, message: impl Into<String>) {
        let path = if key.is_empty() {
            self.path.clone()
        } else {
            child(&self.path, key)
        };
        self.reader.note(self.reader.layers.default_place(), &path, message);
    }

    /// Ends the reading: whatever is left is unknown.
    pub(super) fn finish(self) {
        for (key, value) in &self.values {
            let path = child(&self.path, key);
            let layers = &self.reader.layers;
            let is_token = layers
                .variable_name(&path, value.tag())
                .is_some_and(|name| self.reader.token_variables.borrow().contains(&name));
            if !is_token {
                self.reader
                    .note(layers.place(&path, value.tag()), &path, unknown_key(key, &self.known));
            }
        }
    }
}

/// One value that is being read.
pub(super) struct Item<'a> {
    pub(super) reader: &'a Reader,
    pub(super) path: Vec<String>,
    value: Value,
}

impl<'a> Item<'a> {
    pub(super) fn problem(&self, message: impl Into<String>) {
        let place = self.reader.layers.place(&self.path, self.value.tag());
        self.reader.note(place, &self.path, message);
    }

    pub(super) fn tag(&self) -> Tag {
        self.value.tag()
    }

    /// Text. Numbers and truth values are text only where they come from a variable, which cannot say which it means.
    pub(super) fn text(&self, expected: &str) -> Option<String> {
        let text = self.text_quietly();
        if text.is_none() {
            self.problem(format!("{} is not text; expected {expected}", shown(&self.value)));
        }
        text
    }

    /// Text that must not be shown, whatever is wrong with it.
    pub(super) fn secret(&self, expected: &str) -> Option<String> {
        let text = self.text_quietly();
        if text.is_none() {
            self.problem(format!("this is not text; expected {expected}"));
        }
        text
    }

    fn text_quietly(&self) -> Option<String> {
        match &self.value {
            Value::String(_, text) => Some(text.clone()),
            other => self.reader.layers.text(&self.path, other.tag()).map(str::to_owned),
        }
    }

    /// An id: text, or a number as people like to write ids.
    pub(super) fn id(&self, expected: &str) -> Option<String> {
        let id = match &self.value {
            Value::Num(_, number) => whole(*number).map(|number| number.to_string()),
            _ => self.text_quietly(),
        };
        let id = id.filter(|id| !id.is_empty() && !id.chars().any(char::is_control));
        if id.is_none() {
            self.problem(format!("{} is not an id; expected {expected}", shown(&self.value)));
        }
        id
    }

    /// A path, without looking at what is there.
    pub(super) fn file(&self) -> Option<PathBuf> {
        let text = self.text("the path of a file")?;
        if text.is_empty() {
            self.problem("the path is empty; expected the path of a file");
            return None;
        }
        Some(self.reader.layers.resolve(&text, self.tag()))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let mut shown: Vec<&str> = Vec::new();
        for (word, _) in words {
            if !shown.contains(word) {
                shown.push(word);
            }
        }
        let expected = either(shown);
        let text = self.text(&expected)?;
        let chosen = words.iter().find(|(word, _)| *word == text);
        if chosen.is_none() {
            self.problem(format!("{} is not known; expected {expected}", quoted(&text)));
        }
        chosen.map(|(_, value)| *value)
    }

    pub(super) fn truth(&self) -> Option<bool> {
        match self.value {
            Value::Bool(_, truth) => Some(truth),
            ref other => {
                self.problem(format!("{} is not a truth value; expected true or false", shown(other)));
                None
            }
        }
    }

    /// A whole number within a range.
    pub(super) fn whole(&self, range: &RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let number = match self.value {
            Value::Num(_, number) => whole(number),
            _ => None,
        };
        let Some(number) = number else {
            self.problem(format!(
                "{} is not a whole number; expected {expected}",
                shown(&self.value)
            ));
            return None;
        };
        let fitting = u64::try_from(number).ok().filter(|number| range.contains(number));
        if fitting.is_none() {
            self.problem(format!("{number} is out of range; expected {expected}"));
        }
        fitting
    }

    /// A number, whole or not, within a range.
    pub(super) fn number(&self, range: &RangeInclusive<f64>) -> Option<f64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let number = match self.value {
            Value::Num(_, number) => match whole(number) {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "whatever is not exact is far outside of every range"
                )]
                Some(whole) => Some(whole as f64),
                None => number.to_f64(),
            },
            _ => None,
        };
        let Some(number) = number.filter(|number| !number.is_nan()) else {
            self.problem(format!("{} is not a number; expected {expected}", shown(&self.value)));
            return None;
        };
        if !range.contains(&number) {
            self.problem(format!("{number} is out of range; expected {expected}"));
            return None;
        }
        Some(number)
    }

    /// A duration within a range.
    pub(super) fn duration(&self, range: &RangeInclusive<Duration>) -> Option<Duration> {
        if let Value::Num(_, number) = self.value {
            self.problem(format!(
                "{} has no unit; expected {DURATION_FORM}",
                shown_number(number)
            ));
            return None;
        }
        let text = self.text(DURATION_FORM)?;
        let Some(duration) = parse_duration(&text) else {
            self.problem(format!("{} is not a duration; expected {DURATION_FORM}", quoted(&text)));
            return None;
        };
        if !range.contains(&duration) {
            let (least, most) = (shown_duration(*range.start()), shown_duration(*range.end()));
            self.problem(format!(
                "{text} is out of range; expected a duration from {least} to {most}"
            ));
            return None;
        }
        Some(duration)
    }

    /// A regular expression.
    pub(super) fn regex(&self) -> Option<Regex> {
        self.compile(&self.text("a regular expression")?)
    }

    /// A regular expression that this value holds in some form.
    pub(super) fn compile(&self, expression: &str) -> Option<Regex> {
        match Regex::new(expression) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let why = regex_reason(&error);
                self.problem(format!(
                    "{} is no regular expression: {why}; expected a regular expression",
                    quoted(expression)
                ));
                None
            }
        }
    }

    pub(super) fn list(self, expected: &str) -> Vec<Item<'a>> {
        match self.value {
            Value::Array(_, values) => {
                let (reader, path) = (self.reader, self.path);
                let item = |(index, value)| Item {
                    reader,
                    path: child(&path, &format!("[{index}]")),
                    value,
                };
                values.into_iter().enumerate().map(item).collect()
            }
            ref other => {
                self.problem(format!("{} is not a list; expected {expected}", shown(other)));
                Vec::new()
            }
        }
    }

    pub(super) fn mapping(self) -> Option<Dict> {
        match self.value {
            Value::Dict(_, values) => Some(values),
            ref other => {
                self.problem(format!("{} is not a mapping; expected keys and values", shown(other)));
                None
            }
        }
    }

    /// The value as a section of its own.
    pub(super) fn into_section(self) -> Section<'a> {
        let (reader, path) = (self.reader, self.path.clone());
        let values = match self.value {
            Value::Empty(..) => Some(Dict::new()),
            _ => self.mapping(),
        };
        Section {
            reader,
            path,
            is_broken: values.is_none(),
            values: values.unwrap_or_default(),
            known: Vec::new(),
        }
    }
}

/// `a, b or c`
pub(super) fn either<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// A text in quotes, on one line, not too long.
pub(super) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let rest = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{rest}")
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, char) => quoted(&char.to_string()),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Num(_, number) => shown_number(*number),
        Value::Empty(..) => "null".to_owned(),
        Value::Dict(..) => "a mapping".to_owned(),
        Value::Array(..) => "a list".to_owned(),
    }
}

fn shown_number(number: Num) -> String {
    match (whole(number), number.to_f64()) {
        (Some(whole), _) => whole.to_string(),
        (None, Some(float)) => float.to_string(),
        (None, None) => "a number".to_owned(),
    }
}

fn whole(number: Num) -> Option<i128> {
    number
        .to_i128()
        .or_else(|| number.to_u128_lossy().and_then(|number| i128::try_from(number).ok()))
}

fn child(path: &[String], key: &str) -> Vec<String> {
    path.iter().cloned().chain([key.to_owned()]).collect()
}

fn shown_path(path: &[String]) -> String {
    let mut shown = String::new();
    for part in path {
        if !shown.is_empty() && !part.starts_with('[') {
            shown.push('.');
        }
        shown.extend(part.escape_debug());
    }
    shown
}

/// Durations: whole numbers with units, the largest first. A day is 24 hours.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut milliseconds, mut units) = (text, 0_u64, UNITS.as_slice());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|char: char| !char.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|char: char| char.is_ascii_digit()).unwrap_or(after.len()));
        let place = units.iter().position(|(name, _)| *name == unit)?;
        milliseconds = milliseconds.checked_add(number.parse::<u64>().ok()?.checked_mul(units[place].1)?)?;
        (rest, units) = (after, &units[place + 1..]);
    }
    Some(Duration::from_millis(milliseconds))
}

/// A duration in the form in which it is written.
pub(super) fn shown_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let exact = UNITS
        .iter()
        .find(|(_, size)| milliseconds >= u128::from(*size) && milliseconds.is_multiple_of(u128::from(*size)));
    exact.map_or_else(
        || "0s".to_owned(),
        |(unit, size)| format!("{}{unit}", milliseconds / u128::from(*size)),
    )
}

fn regex_reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "too large when compiled".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim().trim_start_matches("error: ").to_owned()
        }
    }
}

fn unknown_key(key: &str, known: &[&'static str]) -> String {
    let nearest = known.iter().map(|known| (distance(key, known), *known)).min();
    match nearest {
        // One slip in three letters: further away the guess would only mislead.
        Some((distance, nearest)) if distance * 3 <= nearest.len().max(key.len()) => {
            format!("unknown key; did you mean {nearest}?")
        }
        _ => format!("unknown key; expected {}", either(known.iter().copied())),
    }
}

/// Letters to insert, remove or replace.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
