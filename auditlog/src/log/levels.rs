//! The hash files of a log: flat, one per tile level.

use crate::merkle::{Hash, tile};
use crate::store::{FileId, Store, StoreError};

/// Reads `count` hashes of `level` from number `first` on.
pub(crate) fn read(
    store: &dyn Store,
    level: u8,
    first: u64,
    count: u64,
) -> Result<Vec<Hash>, StoreError> {
    let mut hashes = vec![[0; 32]; usize::try_from(count).unwrap_or(0)];
    let bytes = hashes.as_flattened_mut();
    let expected = bytes.len();
    let file = FileId::Hashes(level);
    if store.read_at(file, first * HASH_BYTES, bytes)? < expected {
        let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        return Err(StoreError::new("read", file, short));
    }
    Ok(hashes)
}

/// The node at (height, index) of a tree whose hash files lie in `store`.
pub(crate) fn node(store: &dyn Store, height: u32, index: u64) -> Result<Hash, StoreError> {
    tile::node(height, index, |level, first, count| {
        read(store, level, first, count)
    })
}

/// Bytes of a hash in its file.
pub(crate) const HASH_BYTES: u64 = 32;
