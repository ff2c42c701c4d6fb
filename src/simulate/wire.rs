//! How values are written into answers: times, numbers and ids, in whichever of their spellings a world prefers.
//! The structs of answers list their fields in alphabetical order, as the recorded answers do.

use jiff::Timestamp;
use jiff::tz::Offset;
use serde::{Serialize, Serializer};

use super::options::WorldOptions;
use super::run::Ms;

/// `2026-11-22T00:00:00.000Z`.
const ISO_BYTES: usize = 24;
/// The longest 64-bit number.
const DIGITS_MAX: usize = 20;

/// An ISO 8601 time in UTC. Written by hand: a history of a few thousand rows is mostly times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Iso {
    time: Ms,
    with_milliseconds: bool,
}

impl Iso {
    pub(super) const fn millis(time: Ms) -> Self {
        Self {
            time,
            with_milliseconds: true,
        }
    }

    pub(super) const fn seconds(time: Ms) -> Self {
        Self {
            time,
            with_milliseconds: false,
        }
    }

    fn write(self, text: &mut [u8; ISO_BYTES]) -> usize {
        let at = Offset::UTC.to_datetime(Timestamp::from_millisecond(self.time).unwrap_or_default());
        *text = *b"0000-00-00T00:00:00.000Z";
        put(&mut text[0..4], at.year());
        put(&mut text[5..7], at.month().into());
        put(&mut text[8..10], at.day().into());
        put(&mut text[11..13], at.hour().into());
        put(&mut text[14..16], at.minute().into());
        put(&mut text[17..19], at.second().into());
        if self.with_milliseconds {
            put(&mut text[20..23], at.millisecond());
            return ISO_BYTES;
        }
        text[19] = b'Z';
        20
    }
}

fn put(places: &mut [u8], mut number: i16) {
    for place in places.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

impl Serialize for Iso {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; ISO_BYTES];
        let size = self.write(&mut text);
        serializer.serialize_str(std::str::from_utf8(&text[..size]).unwrap_or_default())
    }
}

/// A count or a length of time: `12`, or `12.0`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    number: i64,
    as_float: bool,
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.as_float {
            #[expect(clippy::cast_precision_loss, reason = "counts and times of tests are far below 2^52")]
            return serializer.serialize_f64(self.number as f64);
        }
        serializer.serialize_i64(self.number)
    }
}

/// An id: `12`, or `"12"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id {
    number: u64,
    as_text: bool,
}

impl Id {
    /// An id that is always written as a text.
    pub(super) const fn text(number: u64) -> Self {
        Self { number, as_text: true }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.as_text {
            return serializer.serialize_u64(self.number);
        }
        let (mut digits, mut first, mut rest) = ([b'0'; DIGITS_MAX], DIGITS_MAX, self.number);
        while rest > 0 || first == DIGITS_MAX {
            first -= 1;
            digits[first] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        serializer.serialize_str(std::str::from_utf8(&digits[first..]).unwrap_or_default())
    }
}

/// How a world spells its values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    floats: bool,
    text_ids: bool,
}

impl Style {
    pub(super) const fn of(options: &WorldOptions) -> Self {
        Self {
            floats: options.counts_as_floats,
            text_ids: options.ids_as_text,
        }
    }

    pub(super) const fn count(self, number: i64) -> Count {
        Count {
            number,
            as_float: self.floats,
        }
    }

    /// How many of something there are.
    pub(super) fn size(self, number: usize) -> Count {
        self.count(i64::try_from(number).unwrap_or(i64::MAX))
    }

    pub(super) const fn id(self, number: u64) -> Id {
        Id {
            number,
            as_text: self.text_ids,
        }
    }

    pub(super) fn place(self, number: usize) -> Id {
        self.id(number as u64)
    }
}

/// The JSON text of an answer. Writing to memory does not fail; were it to, the reader would get an empty body.
pub(super) fn text(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_jiff_writes_them() {
        for time in [
            0,
            1_763_769_599_999,
            1_763_769_600_000,
            951_826_245_007,
            4_102_444_799_040,
        ] {
            let at = Timestamp::from_millisecond(time).unwrap();
            let check = |iso: Iso, expected: String| {
                assert_eq!(String::from_utf8(text(&iso)).unwrap(), format!("\"{expected}\""));
            };
            check(Iso::millis(time), format!("{at:.3}"));
            check(Iso::seconds(time), format!("{at:.0}"));
        }
    }

    #[test]
    fn numbers_and_ids_have_two_spellings() {
        let plain = Style {
            floats: false,
            text_ids: false,
        };
        let odd = Style {
            floats: true,
            text_ids: true,
        };
        let written = |style: Style| text(&(style.count(12), style.id(0), style.id(u64::MAX), Id::text(30)));
        assert_eq!(written(plain), br#"[12,0,18446744073709551615,"30"]"#);
        assert_eq!(written(odd), br#"[12.0,"0","18446744073709551615","30"]"#);
    }
}
