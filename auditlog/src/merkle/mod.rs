//! The Merkle tree of RFC 6962 section 2.1 over SHA-256: hashing, the compact range that grows a
//! tree, proofs, and the tiles of C2SP tlog-tiles in which its hashes are kept.

pub mod compact;
pub mod proof;
pub mod tile;

use agentca_identity::crypto::sha256;

pub use compact::CompactRange;

/// A SHA-256 value: the hash of a leaf, of an inner node, or of a whole tree.
pub type Hash = [u8; 32];

/// The leaf hash of `record`: SHA-256(0x00 ‖ record).
#[must_use]
pub fn leaf_hash(record: &[u8]) -> Hash {
    let mut prefixed = Vec::with_capacity(record.len() + 1);
    prefixed.push(LEAF_PREFIX);
    prefixed.extend_from_slice(record);
    sha256(&prefixed)
}

/// The leaf hash of everything after the first byte, which is overwritten and put back.
///
/// Records lie behind a length prefix, so its last byte can hold the leaf prefix for a moment:
/// one pass over memory and no copy. An empty slice is hashed as an empty record.
#[must_use]
pub fn leaf_hash_behind(prefixed: &mut [u8]) -> Hash {
    let Some(first) = prefixed.first_mut() else {
        return sha256(&[LEAF_PREFIX]);
    };
    let kept = std::mem::replace(first, LEAF_PREFIX);
    let hash = sha256(prefixed);
    if let Some(first) = prefixed.first_mut() {
        *first = kept;
    }
    hash
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut input = [NODE_PREFIX; 65];
    let (_, children) = input.split_at_mut(1);
    let (first, second) = children.split_at_mut(32);
    first.copy_from_slice(left);
    second.copy_from_slice(right);
    sha256(&input)
}

/// The root of the tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    sha256(&[])
}

const LEAF_PREFIX: u8 = 0;
const NODE_PREFIX: u8 = 1;

#[cfg(test)]
mod tests;
