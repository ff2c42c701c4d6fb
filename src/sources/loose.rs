//! JSON as the platforms really send it: ids as number or text, counts as 12.0, nulls anywhere, rows of the wrong shape.
//! Strict about what a value means, tolerant about how it is written; an odd value becomes `None`, never an error.

use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Rejection;
use crate::model::Name;

/// No text from upstream is kept longer than this; names of tests are input that nobody checks.
const TEXT_CHARS_MAX: usize = 512;

/// No answer that means well has more rows: a run of 100,000 cases. A row costs far more in memory than on the wire.
const ROWS_MAX: usize = 100_000;

/// Milliseconds of 2000-01-01 and 2100-01-01: an epoch outside of these is not a time but a mistake.
const EPOCH_MS: std::ops::Range<i64> = 946_684_800_000..4_102_444_800_000;

/// A year. No test takes longer: it is a mistake, such as a time where a length is expected.
const LENGTH_SECONDS_MAX: f64 = 366.0 * 86_400.0;

/// A text, or a number written out. Everything else is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Text(pub(super) Option<String>);

/// A finite number, or a text that is one. Everything else is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Number(pub(super) Option<f64>);

/// An array whose rows are read one by one: a row that is no object is `None`. `Rows(None)`: there is no array.
#[derive(Debug)]
pub(super) struct Rows<T>(pub(super) Option<Vec<Option<T>>>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// An object, or `None` for anything else.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl Text {
    pub(super) fn as_deref(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// The text unless it is empty, clipped.
    pub(super) fn name(&self) -> Option<Name> {
        self.as_deref().filter(|text| !text.is_empty()).map(name)
    }

    /// A platform's own number, written as number or as digits.
    pub(super) fn id(&self) -> Option<u64> {
        self.as_deref().and_then(|text| text.parse().ok())
    }

    /// An ISO 8601 time. A text that is none is reported by `odd`.
    pub(super) fn time(&self, odd: impl FnOnce()) -> Option<Timestamp> {
        let text = self.as_deref()?;
        let parsed = text
            .parse::<Timestamp>()
            .ok()
            .filter(|time| EPOCH_MS.contains(&time.as_millisecond()));
        if parsed.is_none() {
            odd();
        }
        parsed
    }
}

impl Number {
    /// A count: whole and not negative.
    pub(super) fn count(self) -> Option<u64> {
        let value = self.0?;
        // Beyond 2^53 a float is no exact count any more.
        (value >= 0.0 && value.fract() == 0.0 && value <= 9_007_199_254_740_992.0).then_some(value as u64)
    }

    /// A time in epoch milliseconds.
    pub(super) fn epoch_ms(self) -> Option<Timestamp> {
        let value = self.0? as i64;
        EPOCH_MS
            .contains(&value)
            .then(|| Timestamp::from_millisecond(value).ok())
            .flatten()
    }

    /// A length of time in milliseconds, as seconds.
    pub(super) fn milliseconds(self) -> Option<f64> {
        self.0.and_then(|value| length(value / 1000.0))
    }
}

/// A length of time in seconds, unless it cannot be one.
pub(super) fn length(seconds: f64) -> Option<f64> {
    (0.0..=LENGTH_SECONDS_MAX).contains(&seconds).then_some(seconds)
}

/// A shared text of bounded length.
pub(super) fn name(text: &str) -> Name {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => Name::from(&text[..end]),
        None => Name::from(text),
    }
}

/// A list of tags as one text: each once, in their order, so that two lists of the same tags read alike.
pub(super) fn tags(tags: &Texts) -> Name {
    let tags: std::collections::BTreeSet<&str> = tags.0.iter().map(String::as_str).collect();
    let tags: Vec<&str> = tags.into_iter().filter(|tag| !tag.is_empty()).collect();
    name(&tags.join(","))
}

/// Reads a body. The error names the place, never upstream's text (serde's own messages quote it).
pub(super) fn read<'a, T: Deserialize<'a>>(what: &str, body: &'a [u8]) -> Result<T, Rejection> {
    serde_json::from_slice(body).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Data => "it has another shape than documented",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is not JSON",
        };
        Rejection::Unreadable(format!(
            "{what}: {kind} (line {}, column {})",
            error.line(),
            error.column()
        ))
    })
}

/// What is missing where.
pub(super) fn missing(what: &str, path: &str) -> Rejection {
    Rejection::Unreadable(format!("{what}: `{path}` is missing or not an array"))
}

macro_rules! scalar_visitor {
    ($visitor:ident, $out:ty, text: $text:expr, number: $number:expr, none: $none:expr) => {
        struct $visitor;
        impl<'de> Visitor<'de> for $visitor {
            type Value = $out;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, v: &str) -> Result<$out, E> {
                Ok($text(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<$out, E> {
                Ok($number(v as f64, v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<$out, E> {
                Ok($number(v as f64, v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<$out, E> {
                Ok($number(
                    v,
                    if v.fract() == 0.0 {
                        format!("{v:.0}")
                    } else {
                        v.to_string()
                    },
                ))
            }
            fn visit_bool<E>(self, _: bool) -> Result<$out, E> {
                Ok($none)
            }
            fn visit_unit<E>(self) -> Result<$out, E> {
                Ok($none)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<$out, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok($none)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$out, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok($none)
            }
        }
        impl<'de> Deserialize<'de> for $out {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($visitor)
            }
        }
    };
}

scalar_visitor!(TextVisitor, Text,
    text: |v: &str| Text(Some(v.to_owned())),
    number: |_, written: String| Text(Some(written)),
    none: Text(None));

scalar_visitor!(NumberVisitor, Number,
    text: |v: &str| Number(v.parse().ok().filter(|n: &f64| n.is_finite())),
    number: |v: f64, _| Number(v.is_finite().then_some(v)),
    none: Number(None));

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|value| Object(Some(value)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Object(None))
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Object(None))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Object(None))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Object(None))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct RowsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for RowsVisitor<T> {
    type Value = Rows<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while let Some(Object(row)) = seq.next_element::<Object<T>>()? {
            if rows.len() == ROWS_MAX {
                return Err(serde::de::Error::custom("too many rows"));
            }
            rows.push(row);
        }
        Ok(Rows(Some(rows)))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Rows(None))
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Rows(None))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Rows(None))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Rows(None))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Rows(None))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Rows(None))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Rows(None))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Rows<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RowsVisitor(PhantomData))
    }
}

/// The texts of an array; anything in it that is no text is passed over.
#[derive(Debug, Default)]
pub(super) struct Texts(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextsVisitor;
        impl<'de> Visitor<'de> for TextsVisitor {
            type Value = Texts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of texts")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(Text(text)) = seq.next_element()? {
                    texts.extend(text);
                }
                Ok(Texts(texts))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Texts::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Texts, E> {
                Ok(Texts::default())
            }
            fn visit_u64<E>(self, _: u64) -> Result<Texts, E> {
                Ok(Texts::default())
            }
            fn visit_i64<E>(self, _: i64) -> Result<Texts, E> {
                Ok(Texts::default())
            }
            fn visit_f64<E>(self, _: f64) -> Result<Texts, E> {
                Ok(Texts::default())
            }
            fn visit_unit<E>(self) -> Result<Texts, E> {
                Ok(Texts::default())
            }
            fn visit_str<E>(self, v: &str) -> Result<Texts, E> {
                Ok(Texts(vec![v.to_owned()]))
            }
        }
        deserializer.deserialize_any(TextsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Sample {
        id: Text,
        count: Number,
        rows: Rows<Inner>,
        inner: Object<Inner>,
        tags: Texts,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Inner {
        a: Number,
    }

    fn sample(json: &str) -> Sample {
        read("test", json.as_bytes()).unwrap()
    }

    #[test]
    fn ids_are_read_from_numbers_and_texts_alike() {
        for json in [r#"{"id":12}"#, r#"{"id":"12"}"#, r#"{"id":12.0}"#] {
            assert_eq!(sample(json).id.id(), Some(12), "{json}");
        }
        for json in [
            r#"{"id":null}"#,
            r#"{"id":-1}"#,
            r#"{"id":"1x"}"#,
            r#"{"id":{}}"#,
            r#"{"id":[1]}"#,
            "{}",
        ] {
            assert_eq!(sample(json).id.id(), None, "{json}");
        }
        assert_eq!(sample(r#"{"id":18446744073709551615}"#).id.id(), Some(u64::MAX));
    }

    #[test]
    fn counts_are_whole_and_not_negative() {
        for (json, expected) in [
            (r#"{"count":3}"#, Some(3)),
            (r#"{"count":3.0}"#, Some(3)),
            (r#"{"count":"3"}"#, Some(3)),
            (r#"{"count":3.5}"#, None),
            (r#"{"count":-1}"#, None),
            (r#"{"count":null}"#, None),
            (r#"{"count":true}"#, None),
            (r#"{"count":1e300}"#, None),
        ] {
            assert_eq!(sample(json).count.count(), expected, "{json}");
        }
    }

    #[test]
    fn a_row_of_the_wrong_shape_does_not_spoil_the_others() {
        let Rows(rows) = sample(r#"{"rows":[{"a":1},null,"x",[],{"a":2,"b":{}}]}"#).rows;
        let values: Vec<_> = rows.unwrap().into_iter().map(|row| row.map(|r| r.a.count())).collect();
        assert_eq!(values, [Some(Some(1)), None, None, None, Some(Some(2))]);
        assert!(sample(r#"{"rows":{"a":1}}"#).rows.0.is_none());
        assert!(sample(r#"{"inner":[1,2]}"#).inner.0.is_none());
        assert_eq!(sample(r#"{"tags":["a",null,3,{"x":1}]}"#).tags.0, ["a", "3"]);
        for odd in ["5", "-5", "0.5", "true", "{\"a\":[1]}", "null"] {
            assert!(sample(&format!(r#"{{"tags":{odd}}}"#)).tags.0.is_empty(), "{odd}");
        }
    }

    #[test]
    fn more_rows_than_any_answer_has_are_refused_before_they_fill_the_memory() {
        let rows = |count: usize| format!(r#"{{"rows":[{}]}}"#, vec!["{}"; count].join(","));
        assert!(read::<Sample>("test", rows(ROWS_MAX).as_bytes()).is_ok());
        assert!(read::<Sample>("test", rows(ROWS_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn times_are_read_in_both_precisions_and_nonsense_is_told() {
        let time = |json: &str| {
            let mut odd = false;
            let time = sample(json).id.time(|| odd = true);
            (time.map(|t| t.as_millisecond()), odd)
        };
        assert_eq!(
            time(r#"{"id":"2025-02-01T10:30:00Z"}"#),
            (Some(1_738_405_800_000), false)
        );
        assert_eq!(
            time(r#"{"id":"2025-02-01T10:30:00.250Z"}"#),
            (Some(1_738_405_800_250), false)
        );
        assert_eq!(
            time(r#"{"id":"2025-02-01T10:30:00+00:00"}"#),
            (Some(1_738_405_800_000), false)
        );
        assert_eq!(time(r#"{"id":null}"#), (None, false));
        assert_eq!(time(r#"{"id":"yesterday"}"#), (None, true));
        assert_eq!(time(r#"{"id":"0001-01-01T00:00:00Z"}"#), (None, true));
        assert_eq!(
            Number(Some(1_738_405_800_000.0)).epoch_ms().map(|t| t.as_second()),
            Some(1_738_405_800)
        );
        assert_eq!(
            Number(Some(1_738_405_800.0)).epoch_ms(),
            None,
            "seconds where milliseconds are documented"
        );
    }

    #[test]
    fn a_length_of_time_is_neither_negative_nor_longer_than_a_year() {
        let seconds = |value: f64| Number(Some(value)).milliseconds();
        assert_eq!(seconds(1500.0), Some(1.5));
        assert_eq!(seconds(1_760_000_000_000.0), None, "that is a time");
        assert_eq!((seconds(-1.0), seconds(f64::NAN)), (None, None));
    }

    #[test]
    fn an_unreadable_body_is_described_without_its_text() {
        let error = read::<Sample>("the list of runs", br#"{"id": "top secret" oops"#).unwrap_err();
        let Rejection::Unreadable(text) = error else {
            panic!("{error:?}")
        };
        assert_eq!(text, "the list of runs: it is not JSON (line 1, column 21)");
    }
}
