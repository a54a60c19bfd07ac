//! `Content-Digest`, RFC 9530: a dictionary of digests of a message's content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::merkle::Hash;

/// The field's value for content whose SHA-256 is `digest`.
#[must_use]
pub fn format(digest: &Hash) -> String {
    let mut value = String::with_capacity(54);
    value.push_str("sha-256=:");
    STANDARD.encode_string(digest, &mut value);
    value.push(':');
    value
}

/// The SHA-256 that a field's value gives. Members of other algorithms are passed over; a value that
/// is not a dictionary of byte sequences, or names sha-256 twice, gives none.
#[must_use]
pub fn parse(value: &str) -> Option<Hash> {
    let mut found = None;
    for member in value.split(',') {
        let (name, encoded) = member.trim_matches([' ', '\t']).split_once('=')?;
        let encoded = encoded.strip_prefix(':')?.strip_suffix(':')?;
        let digest = STANDARD.decode(encoded).ok()?;
        let is_key =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*');
        if !name.starts_with(|first: char| first.is_ascii_lowercase() || first == '*')
            || !name.bytes().all(is_key)
        {
            return None;
        }
        if name == "sha-256" && found.replace(digest).is_some() {
            return None;
        }
    }
    found?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use agentca_identity::crypto::sha256;
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 9530 section 2.
    const EXAMPLE: &str = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";

    #[test]
    fn the_example_of_the_rfc_holds() {
        let digest = sha256(b"{\"hello\": \"world\"}\n");
        assert_eq!(format(&digest), EXAMPLE);
        assert_eq!(parse(EXAMPLE), Some(digest));
        assert_eq!(parse(&format!("sha-512=:AAAA:, {EXAMPLE}")), Some(digest));
    }

    #[test]
    fn what_cannot_be_compared_gives_nothing() {
        for value in [
            "",
            "sha-256",
            "sha-256=abc",
            "sha-256=:AAAA:",
            "sha-512=:AAAA:",
            "SHA-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
            &format!("{EXAMPLE}, {EXAMPLE}"),
            &format!("{EXAMPLE},"),
            &format!("{EXAMPLE};a=1"),
        ] {
            assert_eq!(parse(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn reads_back(digest in any::<Hash>()) {
            prop_assert_eq!(parse(&format(&digest)), Some(digest));
        }

        #[test]
        fn no_input_panics(value in ".{0,80}") {
            let _ = parse(&value);
        }
    }
}
