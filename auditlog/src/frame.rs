//! Batch frames: what one write to a segment holds.
//!
//! A header of 96 bytes, then records as C2SP tlog-tiles writes entry bundles (big-endian u16
//! length, bytes). Integers are big-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `agcalog` and the version 1 |
//! | 8 | 8 | index of the first record |
//! | 16 | 4 | number of records, at least 1 |
//! | 20 | 4 | length of the payload |
//! | 24 | 32 | SHA-256 over the leaf hashes of the records, in order |
//! | 56 | 32 | HMAC-SHA256 of bytes 0 to 55 under a key that belongs to the log's |
//! | 88 | 8 | first 8 bytes of the SHA-256 of bytes 0 to 87 |
//!
//! Behind the last frame of the last segment there may be zeros, room that a running writer made.
//!
//! The digest over leaf hashes covers every record byte, and through them the lengths, while each
//! byte is hashed once for frame and tree together.

use agentca_identity::crypto::{MacKey, sha256};

use crate::merkle::{Hash, leaf_hash_behind};

/// Bytes of a header.
pub const HEADER_LEN: usize = 96;
/// The longest record, in bytes: what its length prefix can say.
pub const MAX_RECORD: usize = 65_535;
/// The longest payload a reader accepts, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 20;
/// The most that a crash can leave of one batch, with room to spare.
pub const MAX_TORN: usize = 2 * (MAX_PAYLOAD + HEADER_LEN);

/// A decoded header. Its payload is not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The index of the first record.
    pub first: u64,
    /// The number of records.
    pub count: u32,
    /// The length of the payload in bytes.
    pub length: u32,
    /// SHA-256 over the leaf hashes.
    pub digest: Hash,
    /// What only the log's own writer can make: see [`Header::is_by`].
    pub mac: [u8; 32],
}

impl Header {
    /// The header for `leaves` beginning at `first`, over a payload of `length` bytes.
    #[must_use]
    pub fn new(first: u64, leaves: &[Hash], length: u32, key: &MacKey) -> Self {
        let unauthenticated = Self {
            first,
            count: u32::try_from(leaves.len()).unwrap_or(u32::MAX),
            length,
            digest: sha256(leaves.as_flattened()),
            mac: [0; 32],
        };
        let mac = key.code(&unauthenticated.authenticated());
        Self {
            mac,
            ..unauthenticated
        }
    }

    /// Whether who has `key` wrote it. What a checkpoint covers is signed; of what comes behind it this
    /// alone says that the log's own writer wrote it.
    #[must_use]
    pub fn is_by(&self, key: &MacKey) -> bool {
        key.matches(&self.authenticated(), &self.mac)
    }

    /// Bytes 0 to 55.
    fn authenticated(&self) -> [u8; AUTHENTICATED] {
        let mut bytes = [0; AUTHENTICATED];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &self.first.to_be_bytes());
        put(&mut bytes, 16, &self.count.to_be_bytes());
        put(&mut bytes, 20, &self.length.to_be_bytes());
        put(&mut bytes, 24, &self.digest);
        bytes
    }

    /// The 96 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let (checked, check) = bytes.split_at_mut(CHECKED);
        put(checked, 0, &self.authenticated());
        put(checked, AUTHENTICATED, &self.mac);
        let sum = sha256(checked);
        put(check, 0, sum.first_chunk::<8>().unwrap_or(&[0; 8]));
        bytes
    }

    /// Reads a header back.
    ///
    /// # Errors
    /// [`FrameError::Header`] for anything that `encode` does not write.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let header = Self {
            first: u64::from_be_bytes(take(bytes, 8)),
            count: u32::from_be_bytes(take(bytes, 16)),
            length: u32::from_be_bytes(take(bytes, 20)),
            digest: take(bytes, 24),
            mac: take(bytes, AUTHENTICATED),
        };
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        // The cheap checks first, since a scan for frames tries every offset.
        if !bytes.starts_with(MAGIC)
            || header.count == 0
            || length > MAX_PAYLOAD
            || u64::from(header.length) < 2 * u64::from(header.count)
            || header.first.checked_add(u64::from(header.count)).is_none()
            || header.encode() != *bytes
        {
            return Err(FrameError::Header);
        }
        Ok(header)
    }

    /// The index after the last record.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// The payload's length.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }

    /// Checks a payload against this header and appends the records' leaf hashes to `leaves`.
    /// The payload is changed while hashing and is the same again afterwards.
    ///
    /// # Errors
    /// [`FrameError::Payload`] when count, lengths or digest differ; `leaves` is then as it was.
    pub fn check(&self, payload: &mut [u8], leaves: &mut Vec<Hash>) -> Result<(), FrameError> {
        let before = leaves.len();
        if payload.len() == self.payload_len()
            && hash_records(payload, leaves)
            && leaves.get(before..).is_some_and(|new| {
                u32::try_from(new.len()) == Ok(self.count)
                    && sha256(new.as_flattened()) == self.digest
            })
        {
            return Ok(());
        }
        leaves.truncate(before);
        Err(FrameError::Payload)
    }
}

/// The records of a payload, in order. Ends early where the payload is cut.
pub fn records(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (record, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        Some(record)
    })
}

/// Reads the frame at the start of `bytes`: its header, and where it ends.
///
/// # Errors
/// [`FrameError`]; [`FrameError::Short`] when the bytes end before the frame does.
pub fn read(bytes: &mut [u8]) -> Result<(Header, usize), FrameError> {
    let header = Header::decode(bytes.first_chunk().ok_or(FrameError::Short)?)?;
    let end = HEADER_LEN + header.payload_len();
    let payload = bytes.get_mut(HEADER_LEN..end).ok_or(FrameError::Short)?;
    header.check(payload, &mut Vec::new())?;
    Ok((header, end))
}

/// What `rest` may be, the end of the last segment where record `next` should begin but no sound frame
/// does: so many bytes of a batch that a crash tore, then zeros that a writer left for batches to come.
/// None when it is too long for that, or has a whole frame in it.
///
/// Records are JSON, which has no control characters, so that no record can hold a header.
#[must_use]
pub fn torn(rest: &[u8], next: u64) -> Option<usize> {
    if rest.len() > MAX_TORN || has_later_frame(rest, next) {
        return None;
    }
    let last = rest.iter().rposition(|byte| *byte != 0);
    Some(last.map_or(0, |last| last + 1))
}

/// Whether any offset of `bytes` begins a well-formed header of a frame after index `after`.
/// What follows a torn frame is never one; what follows a damaged frame is.
fn has_later_frame(bytes: &[u8], after: u64) -> bool {
    bytes.windows(HEADER_LEN).any(|window| {
        window.starts_with(MAGIC)
            && window
                .first_chunk()
                .and_then(|bytes| Header::decode(bytes).ok())
                .is_some_and(|header| header.first > after)
    })
}

fn hash_records(payload: &mut [u8], leaves: &mut Vec<Hash>) -> bool {
    let mut at = 0;
    while at < payload.len() {
        let length = payload.get(at..).and_then(|rest| rest.first_chunk::<2>());
        let Some(length) = length.map(|bytes| usize::from(u16::from_be_bytes(*bytes))) else {
            return false;
        };
        let end = at + 2 + length;
        // From the second byte of the length on, which holds the leaf prefix for a moment.
        let Some(record) = payload.get_mut(at + 1..end) else {
            return false;
        };
        leaves.push(leaf_hash_behind(record));
        at = end;
    }
    true
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn take<const N: usize>(from: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    from.get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

/// Why bytes are not a whole, undamaged frame.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The bytes end before the frame does.
    #[error("the frame is cut off")]
    Short,
    /// Not a frame header, or a damaged one.
    #[error("not a frame header")]
    Header,
    /// Count, lengths or digest do not fit the header.
    #[error("the frame's records do not match its header")]
    Payload,
}

const MAGIC: &[u8; 8] = b"agcalog\x01";
const AUTHENTICATED: usize = 56;
const CHECKED: usize = 88;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use agentca_identity::crypto::{KeyKind, PrivateKey};

    use super::*;
    use crate::merkle::leaf_hash;

    fn key() -> MacKey {
        MacKey::derive(&PrivateKey::generate(KeyKind::Ed25519).unwrap(), "test").unwrap()
    }

    fn frame(first: u64, records: &[Vec<u8>]) -> Vec<u8> {
        let leaves: Vec<Hash> = records.iter().map(|record| leaf_hash(record)).collect();
        let mut payload = Vec::new();
        for record in records {
            payload.extend_from_slice(&u16::try_from(record.len()).unwrap().to_be_bytes());
            payload.extend_from_slice(record);
        }
        let length = u32::try_from(payload.len()).unwrap();
        let mut bytes = Header::new(first, &leaves, length, &key())
            .encode()
            .to_vec();
        bytes.extend_from_slice(&payload);
        bytes
    }

    fn some_records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..6)
    }

    proptest! {
        #[test]
        fn a_frame_reads_back(first in 0u64..u64::MAX / 2, stored in some_records(), tail in 0usize..9) {
            let mut bytes = frame(first, &stored);
            let length = bytes.len();
            bytes.extend(std::iter::repeat_n(7, tail));
            let before = bytes.clone();
            let (header, end) = read(&mut bytes).unwrap();
            prop_assert_eq!(end, length);
            prop_assert_eq!(header.first, first);
            prop_assert_eq!(usize::try_from(header.count).unwrap(), stored.len());
            prop_assert_eq!(&bytes, &before, "hashing in place puts every byte back");
            let read: Vec<_> = records(&bytes[HEADER_LEN..end]).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(read, stored);
        }

        #[test]
        fn any_flipped_bit_is_refused(stored in some_records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = frame(9, &stored);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(read(&mut bytes).is_err());
        }

        #[test]
        fn any_cut_is_short(stored in some_records(), at in any::<prop::sample::Index>()) {
            let mut bytes = frame(9, &stored);
            let at = at.index(bytes.len());
            prop_assert_eq!(read(&mut bytes[..at]), Err(FrameError::Short));
        }

        #[test]
        fn no_input_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..300), keep in any::<bool>()) {
            if keep && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(MAGIC);
            }
            let _ = read(&mut bytes);
            let _ = has_later_frame(&bytes, 0);
            let _ = records(&bytes).count();
        }
    }

    #[test]
    fn a_later_frame_is_found_behind_garbage() {
        let mut bytes = b"garbage agcalo".to_vec();
        bytes.extend_from_slice(&frame(12, &[b"x".to_vec()]));
        assert!(has_later_frame(&bytes, 11));
        assert!(
            !has_later_frame(&bytes, 12),
            "the frame itself is not a later one"
        );
        assert!(!has_later_frame(&bytes[..40], 0));
    }

    #[test]
    fn a_payload_over_the_limit_is_refused() {
        let header = Header {
            first: 0,
            count: 1,
            length: u32::MAX,
            digest: [0; 32],
            mac: [0; 32],
        };
        assert_eq!(Header::decode(&header.encode()), Err(FrameError::Header));
    }
}
