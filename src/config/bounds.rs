//! The smallest and largest value of a setting.

use std::fmt;
use std::ops::RangeInclusive;

use crate::config::value::{Period, Seconds, Size};

/// A range that includes both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounds<T> {
    least: T,
    most: T,
    /// Whether zero is allowed, too, with a meaning of its own.
    zero: Zero,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zero {
    LikeAnyOther,
    Special,
}

/// A type that can have bounds.
pub(crate) trait Bounded: Copy + PartialOrd + Default {
    /// The largest value of the type: as an upper bound it is not shown.
    const MOST: Self;

    /// The value as written in the file.
    fn shown(self) -> String;
}

impl Bounded for u64 {
    const MOST: Self = Self::MAX;

    fn shown(self) -> String {
        self.to_string()
    }
}

impl Bounded for Size {
    const MOST: Self = Self(u64::MAX);

    fn shown(self) -> String {
        format!("\"{self}\"")
    }
}

impl Bounded for Period {
    const MOST: Self = Self(std::time::Duration::MAX);

    fn shown(self) -> String {
        format!("\"{self}\"")
    }
}

impl Bounded for Seconds {
    const MOST: Self = Self(u64::MAX);

    fn shown(self) -> String {
        format!("\"{self}\"")
    }
}

impl<T> From<RangeInclusive<T>> for Bounds<T> {
    fn from(range: RangeInclusive<T>) -> Self {
        let (least, most) = range.into_inner();
        Self { least, most, zero: Zero::LikeAnyOther }
    }
}

/// Zero, or within the range.
#[must_use]
pub(crate) fn zero_or<T>(range: RangeInclusive<T>) -> Bounds<T> {
    Bounds { zero: Zero::Special, ..Bounds::from(range) }
}

impl<T: Bounded> Bounds<T> {
    /// Whether `value` lies within them.
    #[must_use]
    pub(crate) fn allow(&self, value: T) -> bool {
        let is_special = self.zero == Zero::Special && value == T::default();
        is_special || (self.least <= value && value <= self.most)
    }
}

impl<T: Bounded> fmt::Display for Bounds<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.zero == Zero::Special {
            out.write_str("0, or ")?;
        }
        match (self.least == T::default(), self.most == T::MOST) {
            (_, true) => write!(out, "at least {}", self.least.shown()),
            (true, false) => write!(out, "at most {}", self.most.shown()),
            (false, false) => write!(out, "{} to {}", self.least.shown(), self.most.shown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_allowed_and_zero_where_it_is_special() {
        let bounds = Bounds::from(2..=4_u64);
        assert!(bounds.allow(2) && bounds.allow(4));
        assert!(!bounds.allow(1) && !bounds.allow(5) && !bounds.allow(0));
        assert!(zero_or(2..=4_u64).allow(0));
        assert!(!zero_or(2..=4_u64).allow(1));
    }

    #[test]
    fn they_read_like_words() {
        assert_eq!(Bounds::from(1..=9_u64).to_string(), "1 to 9");
        assert_eq!(Bounds::from(1..=u64::MAX).to_string(), "at least 1");
        assert_eq!(Bounds::from(0..=9_u64).to_string(), "at most 9");
        let sizes = zero_or(Size(1 << 10)..=Size(1 << 20));
        assert_eq!(sizes.to_string(), "0, or \"1KiB\" to \"1MiB\"");
    }
}
