//! Times as people and other programs write them: RFC 3339 in UTC, with or without milliseconds.

use agentca_identity::time::Timestamp;
use serde::{Deserialize, Deserializer, de};

/// Reads `2027-01-31T00:00:00Z` and `2027-01-31T00:00:00.000Z`.
#[must_use]
pub fn parse_moment(text: &str) -> Option<Timestamp> {
    if let Ok(time) = Timestamp::parse_rfc3339(text) {
        return Some(time);
    }
    let seconds = text.strip_suffix('Z').filter(|rest| rest.len() == 19)?;
    Timestamp::parse_rfc3339(&format!("{seconds}.000Z")).ok()
}

/// For serde's `deserialize_with`.
pub(crate) fn read<'de, D: Deserializer<'de>>(reader: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(reader)?;
    parse_moment(&text).ok_or_else(|| {
        de::Error::custom(format!(
            "`{text}` is not a time in UTC, like 2027-01-31T00:00:00Z"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_may_be_absent_and_nothing_else() {
        let time = parse_moment("2027-01-31T00:00:00Z").unwrap();
        assert_eq!(time.rfc3339(), "2027-01-31T00:00:00.000Z");
        assert_eq!(parse_moment(&time.rfc3339()), Some(time));
        for wrong in [
            "",
            "2027-01-31",
            "2027-01-31T00:00:00",
            "2027-01-31T00:00:00+01:00",
            "2027-01-31 00:00:00Z",
            "2027-02-31T00:00:00Z",
            "2027-01-31T00:00:00.0Z",
        ] {
            assert_eq!(parse_moment(wrong), None, "{wrong}");
        }
    }
}
