//! Converts values as written to values as used. If the target type is optional, zero and the empty string mean "none".

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::value::{Period, Seconds, Size};
use crate::packet::QoS;

/// Converts a value of the file to the type of the limit. A value that does not fit becomes the largest one: the bounds in
/// the table were checked before, and no computer has more.
pub(crate) trait IntoLimit<T> {
    /// The value for the core.
    fn into_limit(self) -> T;
}

impl<T> IntoLimit<T> for T {
    fn into_limit(self) -> T {
        self
    }
}

macro_rules! numbers {
    ($($from:ty, $pattern:pat, $value:ident => $($to:ty),*;)*) => {
        $($(impl IntoLimit<$to> for $from {
            fn into_limit(self) -> $to {
                let $pattern = self;
                <$to>::try_from($value).unwrap_or(<$to>::MAX)
            }
        })*)*
    };
}

numbers! {
    u64, count, count => usize, u32, u16;
    Size, Size(bytes), bytes => u64, usize, u32;
    Seconds, Seconds(seconds), seconds => u32, u16;
}

impl IntoLimit<Option<usize>> for u64 {
    fn into_limit(self) -> Option<usize> {
        NonZero::new(self).map(|count| count.get().into_limit())
    }
}

impl IntoLimit<Option<u32>> for Size {
    fn into_limit(self) -> Option<u32> {
        NonZero::new(self.0).map(|_| self.into_limit())
    }
}

impl IntoLimit<Option<u16>> for Seconds {
    fn into_limit(self) -> Option<u16> {
        NonZero::new(self.0).map(|_| self.into_limit())
    }
}

impl IntoLimit<Option<u32>> for Seconds {
    fn into_limit(self) -> Option<u32> {
        NonZero::new(self.0).map(|_| self.into_limit())
    }
}

impl IntoLimit<Duration> for Period {
    fn into_limit(self) -> Duration {
        self.0
    }
}

impl IntoLimit<Option<Duration>> for Period {
    fn into_limit(self) -> Option<Duration> {
        Some(self.0).filter(|duration| !duration.is_zero())
    }
}

impl IntoLimit<QoS> for u64 {
    fn into_limit(self) -> QoS {
        match self {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }
}

impl IntoLimit<Option<Self>> for String {
    fn into_limit(self) -> Option<Self> {
        Some(self).filter(|text| !text.is_empty())
    }
}

impl IntoLimit<PathBuf> for String {
    fn into_limit(self) -> PathBuf {
        PathBuf::from(self)
    }
}

impl IntoLimit<Option<PathBuf>> for String {
    fn into_limit(self) -> Option<PathBuf> {
        Some(self).filter(|text| !text.is_empty()).map(PathBuf::from)
    }
}
