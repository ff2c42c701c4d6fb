//! Times in few bytes, for `#[serde(with = "crate::packed")]` on what a ledger keeps: seconds and nanoseconds, exactly.
//! The time type's own form is text, for people and four times as long. Never rounds: a time that came back changed would look
//! like an edit upstream.

use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What has a short form.
pub(crate) trait Packed: Sized {
    /// The short form.
    type Short: Serialize + DeserializeOwned;
    fn pack(&self) -> Self::Short;
    /// Nothing, if it is the short form of nothing.
    fn unpack(short: Self::Short) -> Option<Self>;
}

impl Packed for Timestamp {
    type Short = (i64, i32);

    fn pack(&self) -> (i64, i32) {
        (self.as_second(), self.subsec_nanosecond())
    }

    fn unpack((seconds, nanoseconds): (i64, i32)) -> Option<Self> {
        Self::new(seconds, nanoseconds).ok()
    }
}

impl Packed for u64 {
    type Short = Self;

    fn pack(&self) -> Self {
        *self
    }

    fn unpack(short: Self) -> Option<Self> {
        Some(short)
    }
}

impl<T: Packed> Packed for Option<T> {
    type Short = Option<T::Short>;

    fn pack(&self) -> Self::Short {
        self.as_ref().map(T::pack)
    }

    fn unpack(short: Self::Short) -> Option<Self> {
        match short {
            Some(short) => T::unpack(short).map(Some),
            None => Some(None),
        }
    }
}

impl<A: Packed, B: Packed> Packed for (A, B) {
    type Short = (A::Short, B::Short);

    fn pack(&self) -> Self::Short {
        (self.0.pack(), self.1.pack())
    }

    fn unpack((a, b): Self::Short) -> Option<Self> {
        A::unpack(a).zip(B::unpack(b))
    }
}

pub(crate) fn serialize<T: Packed, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.pack().serialize(serializer)
}

pub(crate) fn deserialize<'de, T: Packed, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::unpack(T::Short::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("no time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct All(
        #[serde(with = "super")] Timestamp,
        #[serde(with = "super")] Option<Timestamp>,
        #[serde(with = "super")] Option<((Timestamp, u64), Option<Timestamp>)>,
    );

    #[test]
    fn every_time_comes_back_as_it_was_to_the_nanosecond() {
        let time: Timestamp = "2026-11-22T05:06:07.123456789Z".parse().unwrap();
        let before_the_epoch: Timestamp = "1969-01-02T03:04:05.6Z".parse().unwrap();
        for time in [time, before_the_epoch, Timestamp::MIN, Timestamp::MAX] {
            for all in [All(time, Some(time), Some(((time, 7), None))), All(time, None, None)] {
                let bytes = postcard::to_stdvec(&all).unwrap();
                assert_eq!(postcard::from_bytes::<All>(&bytes).unwrap(), all);
            }
        }
    }
}
