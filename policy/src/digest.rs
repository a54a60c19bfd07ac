//! Digests as people and files write them: `sha256:` and 64 lower-case hex digits.

use std::fmt::Write as _;

const PREFIX: &str = "sha256:";

/// `sha256:<hex>`.
#[must_use]
pub fn digest_text(digest: &[u8; 32]) -> String {
    let mut text = String::with_capacity(PREFIX.len() + 64);
    text.push_str(PREFIX);
    for byte in digest {
        // Writing to text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads exactly what [`digest_text`] writes.
#[must_use]
pub fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix(PREFIX)?.as_bytes();
    if hex.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(digest)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_written_form_is_read() {
        let digest: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7).unwrap());
        let text = digest_text(&digest);
        assert_eq!(parse_digest(&text), Some(digest));
        for wrong in [
            &text.to_uppercase(),
            &text.replace("sha256", "SHA256"),
            &text.replace("sha256:", "sha256:A"),
            &text.replace("sha256:", ""),
            &format!("{text}0"),
            &text[..70],
            &format!("{}é", &text[..69]),
        ] {
            assert_eq!(parse_digest(wrong), None, "{wrong}");
        }
    }
}
