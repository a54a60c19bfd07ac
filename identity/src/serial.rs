//! Certificate serial numbers: 16 random bytes, positive (RFC 5280 section 4.1.2.2).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::crypto;
use crate::text::serde_as_text;

/// A certificate's serial number: 16 bytes whose first is 0x01 to 0x7f, so that the DER INTEGER is
/// always positive and exactly 16 bytes long. Written as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// A fresh random serial number.
    pub fn generate() -> Self {
        loop {
            let mut bytes = crypto::random::<16>();
            if let Some(first) = bytes.first_mut() {
                *first &= 0x7f;
            }
            if let Ok(serial) = Self::from_bytes(bytes) {
                return serial;
            }
        }
    }

    /// From 16 big-endian bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Result<Self, SerialError> {
        match bytes {
            [0x01..=0x7f, ..] => Ok(Self(bytes)),
            _ => Err(SerialError),
        }
    }

    /// The 16 big-endian bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Serial {
    type Error = SerialError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        Self::from_bytes(bytes.try_into().map_err(|_| SerialError)?)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(SerialError);
        }
        let mut bytes = [0_u8; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(SerialError),
                };
                *byte = (*byte << 4) | value;
            }
        }
        Self::from_bytes(bytes)
    }
}

serde_as_text!(Serial);

/// A value is not a serial number of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a serial number, give 32 lower-case hex digits, the first two from 01 to 7f")]
pub struct SerialError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ones_are_positive_distinct_and_round_trip() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let serial = Serial::generate();
            assert!((0x01..=0x7f).contains(&serial.as_bytes()[0]));
            assert_eq!(serial.to_string().parse(), Ok(serial));
            assert!(seen.insert(serial));
        }
    }

    #[test]
    fn wrong_texts_are_refused() {
        for text in [
            "",
            "00112233445566778899aabbccddeeff",
            "80112233445566778899aabbccddeeff",
            "01112233445566778899AABBCCDDEEFF",
            "01112233445566778899aabbccddeef",
            "01112233445566778899aabbccddeeff0",
            "0x112233445566778899aabbccddeeff",
        ] {
            assert_eq!(text.parse::<Serial>(), Err(SerialError), "{text}");
        }
    }
}
