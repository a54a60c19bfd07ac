//! Durations and sizes as people write them.

use std::time::Duration;

/// `250ms`, `30s`, `5m`, `1h`, `2d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (count, unit) = split(text).ok_or_else(|| duration_form(text))?;
    let per_unit = match unit {
        "ms" => return Ok(Duration::from_millis(count)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(duration_form(text)),
    };
    let seconds = count
        .checked_mul(per_unit)
        .ok_or_else(|| duration_form(text))?;
    Ok(Duration::from_secs(seconds))
}

/// `65536B`, `16KiB`, `1MiB`, `1GiB`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let (count, unit) = split(text).ok_or_else(|| size_form(text))?;
    let per_unit = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(size_form(text)),
    };
    count.checked_mul(per_unit).ok_or_else(|| size_form(text))
}

/// As [`parse_duration`] reads it, in the largest unit that fits.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    show(millis, &units, "ms")
}

/// As [`parse_size`] reads it, in the largest unit that fits.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    show(bytes.into(), &units, "B")
}

fn show(amount: u128, units: &[(u128, &str)], smallest: &str) -> String {
    let whole = units
        .iter()
        .find(|(unit, _)| amount > 0 && amount.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", amount / unit),
        None => format!("{amount}{smallest}"),
    }
}

fn duration_form(text: &str) -> String {
    format!("`{text}` is not a duration: write a whole number and ms, s, m, h or d")
}

fn size_form(text: &str) -> String {
    format!("`{text}` is not a size: write a whole number and B, KiB, MiB or GiB")
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at_checked(digits)?;
    Some((count.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "30 s",
            "1w",
            "99999999999999999999s",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse_duration("18446744073709551615d").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16KiB"), Ok(16_384));
        assert_eq!(parse_size("1MiB"), Ok(1_048_576));
        for wrong in ["", "1", "KiB", "1KB", "1kib", "18446744073709551615GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for text in ["1ms", "250ms", "90s", "1m", "30s", "1h", "2d"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["0B", "1B", "1023B", "16KiB", "1MiB", "1GiB"] {
            assert_eq!(show_size(parse_size(text).unwrap()), text);
        }
    }
}
