//! The few DER forms (X.690) that the profile uses: a writer that appends in place, and a reader
//! that takes only definite, minimal lengths and one-byte tags. Neither recurses.

/// Tags as they appear in the first byte.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const ENUMERATED: u8 = 0x0a;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    /// `[number]` around a primitive value, for numbers below 31.
    pub(crate) const fn context(number: u8) -> u8 {
        0x80 | number
    }

    /// `[number]` around a constructed value, for numbers below 31.
    pub(crate) const fn context_constructed(number: u8) -> u8 {
        0xa0 | number
    }
}

use crate::time::Timestamp;

/// Appends DER to a buffer.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// A value with its content at hand.
    pub(crate) fn tlv(&mut self, tag: u8, content: &[u8]) {
        self.0.push(tag);
        self.0.extend(length(content.len()));
        self.0.extend_from_slice(content);
    }

    /// A value whose content `fill` writes; its length is put in afterwards.
    pub(crate) fn nested(&mut self, tag: u8, fill: impl FnOnce(&mut Self)) {
        self.0.push(tag);
        let start = self.0.len();
        fill(self);
        let written = self.0.len() - start;
        self.0.splice(start..start, length(written));
    }

    pub(crate) fn sequence(&mut self, fill: impl FnOnce(&mut Self)) {
        self.nested(tag::SEQUENCE, fill);
    }

    /// Bytes that are DER already.
    pub(crate) fn raw(&mut self, der: &[u8]) {
        self.0.extend_from_slice(der);
    }

    pub(crate) fn oid(&mut self, content: &[u8]) {
        self.tlv(tag::OID, content);
    }

    /// A non-negative INTEGER.
    pub(crate) fn integer(&mut self, value: u64) {
        let bytes = value.to_be_bytes();
        let zeros = bytes.iter().take(7).take_while(|byte| **byte == 0).count();
        let mut content = Vec::with_capacity(9);
        if bytes.get(zeros).is_some_and(|byte| byte & 0x80 != 0) {
            content.push(0);
        }
        content.extend(bytes.iter().skip(zeros));
        self.tlv(tag::INTEGER, &content);
    }

    pub(crate) fn utf8(&mut self, text: &str) {
        self.tlv(tag::UTF8_STRING, text.as_bytes());
    }

    /// A BIT STRING of whole bytes.
    pub(crate) fn bits(&mut self, bytes: &[u8]) {
        self.nested(tag::BIT_STRING, |w| {
            w.0.push(0);
            w.raw(bytes);
        });
    }

    /// UTCTime until 2049, GeneralizedTime from 2050 (RFC 5280 section 4.1.2.5).
    pub(crate) fn time(&mut self, time: Timestamp) {
        match &time.to_asn1() {
            [b'1', b'9', short @ ..] | [b'2', b'0', short @ ..] if is_short(time) => {
                self.tlv(tag::UTC_TIME, short);
            }
            digits => self.tlv(tag::GENERALIZED_TIME, digits),
        }
    }
}

/// Bytes are not the DER that is expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotDer;

/// Walks over DER values one after another.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The content of one value that fills `bytes` and has this tag.
    pub(crate) fn only(tag: u8, bytes: &'a [u8]) -> Result<&'a [u8], NotDer> {
        let mut reader = Self(bytes);
        let content = reader.expect(tag)?;
        reader.finish()?;
        Ok(content)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn finish(self) -> Result<(), NotDer> {
        if self.is_empty() { Ok(()) } else { Err(NotDer) }
    }

    /// The content of the next value, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<&'a [u8], NotDer> {
        self.expect_whole(tag).map(|(_, content)| content)
    }

    /// The next value, header included, and its content.
    pub(crate) fn expect_whole(&mut self, tag: u8) -> Result<(&'a [u8], &'a [u8]), NotDer> {
        let (&found, rest) = self.0.split_first().ok_or(NotDer)?;
        if found != tag {
            return Err(NotDer);
        }
        let (length, rest) = read_length(rest)?;
        let content = rest.get(..length).ok_or(NotDer)?;
        let whole_length = self.0.len() - rest.len() + length;
        let (whole, after) = self.0.split_at_checked(whole_length).ok_or(NotDer)?;
        self.0 = after;
        Ok((whole, content))
    }

    /// The content of the next value if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, NotDer> {
        if self.0.first() == Some(&tag) {
            self.expect(tag).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn nested(&mut self, tag: u8) -> Result<Self, NotDer> {
        self.expect(tag).map(Self)
    }

    /// A non-negative INTEGER below 2^64.
    pub(crate) fn integer(&mut self) -> Result<u64, NotDer> {
        let content = self.expect(tag::INTEGER)?;
        match content {
            [] | [0x80..=0xff, ..] | [0, 0..=0x7f, ..] => Err(NotDer),
            [0, rest @ ..] | rest if rest.len() <= 8 => Ok(rest
                .iter()
                .fold(0, |value, byte| (value << 8) | u64::from(*byte))),
            _ => Err(NotDer),
        }
    }

    pub(crate) fn utf8(&mut self) -> Result<&'a str, NotDer> {
        std::str::from_utf8(self.expect(tag::UTF8_STRING)?).map_err(|_| NotDer)
    }

    /// A BIT STRING of whole bytes.
    pub(crate) fn bits(&mut self) -> Result<&'a [u8], NotDer> {
        match self.expect(tag::BIT_STRING)? {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(NotDer),
        }
    }

    /// A time in the form that [`Writer::time`] gives it.
    pub(crate) fn time(&mut self) -> Result<Timestamp, NotDer> {
        let mut digits = [0; 15];
        let (head, tail) = digits.split_at_mut(2);
        let short = self.optional(tag::UTC_TIME)?;
        match short {
            // RFC 5280 section 4.1.2.5.1: years from 50 on are of the last century.
            Some(content) => {
                head.copy_from_slice(if content >= b"5" { b"19" } else { b"20" });
                copy_exactly(tail, content)?;
            }
            None => copy_exactly(&mut digits, self.expect(tag::GENERALIZED_TIME)?)?,
        }
        let time = Timestamp::from_asn1(&digits).map_err(|_| NotDer)?;
        if short.is_some() == is_short(time) {
            Ok(time)
        } else {
            Err(NotDer)
        }
    }
}

/// Whether a time belongs into a UTCTime.
fn is_short(time: Timestamp) -> bool {
    time < YEAR_2050
}

/// 2050-01-01T00:00:00Z.
const YEAR_2050: Timestamp = Timestamp::from_secs(2_524_608_000);

fn copy_exactly(to: &mut [u8], from: &[u8]) -> Result<(), NotDer> {
    if to.len() != from.len() {
        return Err(NotDer);
    }
    to.copy_from_slice(from);
    Ok(())
}

/// The length octets, in the shortest form.
fn length(value: usize) -> impl Iterator<Item = u8> {
    let bytes = value.to_be_bytes();
    let zeros = bytes
        .iter()
        .take(bytes.len() - 1)
        .take_while(|byte| **byte == 0)
        .count();
    let significant = bytes.len() - zeros;
    let count = u8::try_from(significant).unwrap_or(u8::MAX);
    let first = if value < 0x80 {
        None
    } else {
        Some(0x80 | count)
    };
    first.into_iter().chain(bytes.into_iter().skip(zeros))
}

fn read_length(bytes: &[u8]) -> Result<(usize, &[u8]), NotDer> {
    let (&first, rest) = bytes.split_first().ok_or(NotDer)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    // Four octets reach 4 GiB; 0x80 would be the indefinite form.
    if !(1..=4).contains(&count) {
        return Err(NotDer);
    }
    let (octets, rest) = rest.split_at_checked(count).ok_or(NotDer)?;
    let value = octets
        .iter()
        .fold(0_u64, |value, octet| (value << 8) | u64::from(*octet));
    let value = usize::try_from(value).map_err(|_| NotDer)?;
    if value < 0x80 || octets.first() == Some(&0) {
        return Err(NotDer);
    }
    Ok((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_minimal() {
        for (count, header) in [
            (0, vec![0x04, 0x00]),
            (0x7f, vec![0x04, 0x7f]),
            (0x80, vec![0x04, 0x81, 0x80]),
            (0x100, vec![0x04, 0x82, 0x01, 0x00]),
            (0x1_0000, vec![0x04, 0x83, 0x01, 0x00, 0x00]),
        ] {
            let content = vec![7; count];
            let mut one = Writer::new();
            one.tlv(tag::OCTET_STRING, &content);
            let mut other = Writer::new();
            other.nested(tag::OCTET_STRING, |w| w.raw(&content));
            let bytes = one.finish();
            assert!(bytes.starts_with(&header));
            assert_eq!(bytes, other.finish());
            assert_eq!(Reader::only(tag::OCTET_STRING, &bytes), Ok(&content[..]));
        }
        for bad in [
            &[0x04, 0x80, 0x00, 0x00][..],
            &[0x04, 0x81, 0x01, 0x07],
            &[0x04, 0x82, 0x00, 0x80],
            &[0x04, 0x02, 0x07],
            &[0x04, 0x01, 0x07, 0x07],
            &[0x04, 0xff],
            &[0x04],
            &[],
        ] {
            assert_eq!(Reader::only(tag::OCTET_STRING, bad), Err(NotDer), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn integers_round_trip(value in any::<u64>(), shift in 0..64) {
            let value = value >> shift;
            let mut writer = Writer::new();
            writer.integer(value);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.integer(), Ok(value));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn times_round_trip(secs in 0..=Timestamp::MAX.secs()) {
            let time = Timestamp::from_secs(secs);
            let mut writer = Writer::new();
            writer.time(time);
            let bytes = writer.finish();
            prop_assert_eq!(Reader::new(&bytes).time(), Ok(time));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            for tag in [tag::INTEGER, tag::UTC_TIME, tag::GENERALIZED_TIME, tag::BIT_STRING] {
                let tagged = [&[tag][..], &bytes].concat();
                let _ = Reader::new(&tagged).integer();
                let _ = Reader::new(&tagged).time();
                let _ = Reader::new(&tagged).bits();
            }
        }
    }

    #[test]
    fn non_minimal_integers_and_odd_times_are_refused() {
        for bad in [
            &[0x02, 0x00][..],
            &[0x02, 0x02, 0x00, 0x7f],
            &[0x02, 0x01, 0x80],
            &[0x02, 0x09, 0x01, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Reader::new(bad).integer(), Err(NotDer), "{bad:?}");
        }
        for (tag, bad) in [
            (tag::UTC_TIME, "2611210649Z"),
            (tag::UTC_TIME, "261121064920+0000"),
            (tag::UTC_TIME, "261321064920Z"),
            (tag::GENERALIZED_TIME, "20261121064920Z"),
            (tag::GENERALIZED_TIME, "20500101000000.5Z"),
        ] {
            let mut writer = Writer::new();
            writer.tlv(tag, bad.as_bytes());
            assert_eq!(Reader::new(&writer.finish()).time(), Err(NotDer), "{bad}");
        }
    }
}
