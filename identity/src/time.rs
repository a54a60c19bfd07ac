//! Points in time: milliseconds since the Unix epoch, written as RFC 3339 in UTC.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;

use crate::text::serde_as_text;

/// A point in time with millisecond resolution, from 1970 to the end of 9999.
///
/// Arithmetic and constructors saturate at both ends, so that no value lacks an RFC 3339 form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00.000Z.
    pub const MIN: Self = Self(0);

    /// 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// What the local clock says. A clock before 1970 reads as 1970.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self::MIN + since
    }

    /// From seconds since the Unix epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self::from_millis(secs.saturating_mul(1000))
    }

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        if millis < Self::MIN.0 {
            Self::MIN
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The same second with no milliseconds: what a certificate can say.
    pub const fn truncate_to_secs(self) -> Self {
        Self::from_secs(self.secs())
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0))
            .map_or(Duration::ZERO, Duration::from_millis)
    }

    /// `2026-11-21T06:49:20.123Z`: always UTC, always milliseconds.
    pub fn rfc3339(self) -> String {
        std::str::from_utf8(&self.letters())
            .unwrap_or_default()
            .to_owned()
    }

    /// Reads exactly what [`Timestamp::rfc3339`] writes.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimestampError> {
        let bytes: &[u8; 24] = text.as_bytes().try_into().map_err(|_| TimestampError)?;
        let punctuation = [
            (4, b'-'),
            (7, b'-'),
            (10, b'T'),
            (13, b':'),
            (16, b':'),
            (19, b'.'),
            (23, b'Z'),
        ];
        if punctuation
            .iter()
            .any(|&(at, mark)| bytes.get(at) != Some(&mark))
        {
            return Err(TimestampError);
        }
        let field = |from, to| number(bytes.get(from..to));
        Self::from_civil(Civil {
            year: field(0, 4)?,
            month: field(5, 7)?,
            day: field(8, 10)?,
            hour: field(11, 13)?,
            minute: field(14, 16)?,
            second: field(17, 19)?,
            milli: field(20, 23)?,
        })
    }

    /// `YYYYMMDDHHMMSSZ`, as an ASN.1 GeneralizedTime has it.
    pub(crate) fn to_asn1(self) -> [u8; 15] {
        let Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
            milli: _,
        } = self.civil();
        let pairs = [year / 100, year % 100, month, day, hour, minute, second];
        let digit = |value: i64| u8::try_from(value % 10).map_or(b'0', |value| b'0' + value);
        let mut text = [b'Z'; 15];
        for (slot, value) in text.chunks_exact_mut(2).zip(pairs) {
            if let [tens, ones] = slot {
                *tens = digit(value / 10);
                *ones = digit(value);
            }
        }
        text
    }

    /// Reads exactly what [`Timestamp::to_asn1`] writes.
    pub(crate) fn from_asn1(text: &[u8; 15]) -> Result<Self, TimestampError> {
        let [digits @ .., b'Z'] = text else {
            return Err(TimestampError);
        };
        let field = |from, to| number(digits.get(from..to));
        Self::from_civil(Civil {
            year: field(0, 4)?,
            month: field(4, 6)?,
            day: field(6, 8)?,
            hour: field(8, 10)?,
            minute: field(10, 12)?,
            second: field(12, 14)?,
            milli: 0,
        })
    }

    fn from_civil(civil: Civil) -> Result<Self, TimestampError> {
        let value = Self(civil.to_millis());
        // Dates that do not exist (30 February, 24:00) come back as another date.
        if value < Self::MIN || value.civil() != civil {
            Err(TimestampError)
        } else {
            Ok(value)
        }
    }

    /// `YYYY-MM-DDThh:mm:ss.mmmZ`. Every record has one, so it is not left to formatting.
    fn letters(self) -> [u8; 24] {
        let civil = self.civil();
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (at, width, number) in [
            (0, 4, civil.year),
            (5, 2, civil.month),
            (8, 2, civil.day),
            (11, 2, civil.hour),
            (14, 2, civil.minute),
            (17, 2, civil.second),
            (20, 3, civil.milli),
        ] {
            let mut rest = number;
            for digit in text.iter_mut().skip(at).take(width).rev() {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
                rest /= 10;
            }
        }
        text
    }

    fn civil(self) -> Civil {
        let days = self.0.div_euclid(DAY);
        let rest = self.0.rem_euclid(DAY);
        // Days to date in the proleptic Gregorian calendar, counting years from 1 March.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: rest / 3_600_000,
            minute: rest / 60_000 % 60,
            second: rest / 1000 % 60,
            milli: rest % 1000,
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.letters()).unwrap_or_default())
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_rfc3339(text)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_sub(millis))
    }
}

serde_as_text!(Timestamp);

/// A text is not a point in time as this system writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a time, write it as 2026-11-21T06:49:20.123Z")]
pub struct TimestampError;

const DAY: i64 = 86_400_000;

fn number(digits: Option<&[u8]>) -> Result<i64, TimestampError> {
    digits
        .ok_or(TimestampError)?
        .iter()
        .try_fold(0_i64, |sum, digit| match digit {
            b'0'..=b'9' => Ok(sum * 10 + i64::from(digit - b'0')),
            _ => Err(TimestampError),
        })
}

/// A date and time of day, in UTC.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    milli: i64,
}

impl Civil {
    fn to_millis(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted_month = if self.month > 2 {
            self.month - 3
        } else {
            self.month + 9
        };
        let day_of_year = (153 * shifted_month + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        let seconds = (self.hour * 60 + self.minute) * 60 + self.second;
        days * DAY + seconds * 1000 + self.milli
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_answers() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_007, "2000-02-29T12:34:56.007Z"),
            (1_795_243_760_123, "2026-11-21T06:49:20.123Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).rfc3339(), text);
            assert_eq!(
                Timestamp::parse_rfc3339(text),
                Ok(Timestamp::from_millis(millis))
            );
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "2026-11-21T06:49:20Z",
            "2026-11-21 06:49:20.123Z",
            "2026-11-21T06:49:20.123+00:00",
            "2026-02-30T06:49:20.123Z",
            "2026-13-01T06:49:20.123Z",
            "2026-00-01T06:49:20.123Z",
            "2026-01-00T06:49:20.123Z",
            "2026-11-21T24:00:00.000Z",
            "2026-11-21T06:60:20.123Z",
            "2026-11-21T06:49:60.123Z",
            "1969-12-31T23:59:59.999Z",
            "+026-11-21T06:49:20.123Z",
            "2026-11-21T06:49:20.12éZ",
        ] {
            assert_eq!(
                Timestamp::parse_rfc3339(text),
                Err(TimestampError),
                "{text}"
            );
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MIN - Duration::from_secs(1), Timestamp::MIN);
        assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(-5), Timestamp::MIN);
        let later = Timestamp::from_secs(10);
        assert_eq!(
            later.saturating_since(Timestamp::from_secs(4)),
            Duration::from_secs(6)
        );
        assert_eq!(
            Timestamp::from_secs(4).saturating_since(later),
            Duration::ZERO
        );
    }

    proptest! {
        #[test]
        fn round_trip(millis in 0..=Timestamp::MAX.0) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(Timestamp::parse_rfc3339(&time.rfc3339()), Ok(time));
            let reference = ::time::OffsetDateTime::from_unix_timestamp(time.secs()).unwrap();
            let text = time.rfc3339();
            prop_assert_eq!(&text[..4], format!("{:04}", reference.year()));
            prop_assert_eq!(&text[5..7], format!("{:02}", u8::from(reference.month())));
            prop_assert_eq!(&text[8..10], format!("{:02}", reference.day()));
        }
    }
}
