//! Tiles of C2SP tlog-tiles: their paths, and nodes read from flat level files.
//!
//! A level file holds every complete hash of height 8·level in order, 32 bytes each: the
//! concatenation of that level's tiles.

use std::fmt::{self, Display, Write as _};
use std::str::FromStr;

use super::{Hash, node_hash};

/// Leaves (or subtrees) a full tile spans.
pub const TILE_WIDTH: u16 = 256;

/// One tile, full or partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// What it holds.
    pub kind: TileKind,
    /// Its number in its level.
    pub index: u64,
    /// Hashes or entries in it, 1 to 256.
    pub width: u16,
}

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TileKind {
    /// Hashes of one level, 0 to 63.
    Hashes(u8),
    /// An entry bundle.
    Entries,
}

impl Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        f.write_str(&index_path(self.index))?;
        if self.width < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for Tile {
    type Err = TilePathError;

    /// Reads exactly the paths that `Display` writes.
    fn from_str(path: &str) -> Result<Self, TilePathError> {
        let rest = path.strip_prefix("tile/").ok_or(TilePathError)?;
        let (level, rest) = rest.split_once('/').ok_or(TilePathError)?;
        let kind = match level {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(level.parse().map_err(|_| TilePathError)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().map_err(|_| TilePathError)?),
            None => (rest, TILE_WIDTH),
        };
        let mut number = 0u64;
        for group in index.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            let value: u64 = digits.parse().map_err(|_| TilePathError)?;
            number = number
                .checked_mul(1000)
                .and_then(|n| n.checked_add(value))
                .ok_or(TilePathError)?;
        }
        let tile = Self {
            kind,
            index: number,
            width,
        };
        let level_fits = !matches!(kind, TileKind::Hashes(64..));
        // Whatever else was written differently does not come back the same.
        if level_fits && (1..=TILE_WIDTH).contains(&width) && tile.to_string() == path {
            Ok(tile)
        } else {
            Err(TilePathError)
        }
    }
}

/// Not the path of a tile.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a tile path: write tile/<level>/<index>[.p/<width>]")]
pub struct TilePathError;

/// The number of complete hashes that level `level` has in a tree of `size` leaves.
#[must_use]
pub fn level_width(level: u8, size: u64) -> u64 {
    size.checked_shr(8 * u32::from(level)).unwrap_or(0)
}

/// The number of levels that have at least one hash in a tree of `size` leaves.
#[must_use]
pub fn levels(size: u64) -> u8 {
    (0..8)
        .find(|&level| level_width(level, size) == 0)
        .unwrap_or(8)
}

/// The level that holds nodes of `height`, when its hashes are kept in a file.
#[must_use]
pub fn level_of(height: u32) -> Option<u8> {
    if height.is_multiple_of(8) {
        u8::try_from(height / 8).ok()
    } else {
        None
    }
}

/// The node at (height, index), from level files that `read(level, first, count)` reads.
///
/// # Errors
/// Whatever `read` fails with.
pub fn node<E>(
    height: u32,
    index: u64,
    read: impl FnOnce(u8, u64, u64) -> Result<Vec<Hash>, E>,
) -> Result<Hash, E> {
    let level = u8::try_from(height / 8).unwrap_or(u8::MAX);
    let above = height % 8;
    let mut hashes = read(level, index << above, 1 << above)?;
    while hashes.len() > 1 {
        hashes = hashes
            .chunks(2)
            .filter_map(|pair| match pair {
                [left, right] => Some(node_hash(left, right)),
                _ => None,
            })
            .collect();
    }
    Ok(hashes.first().copied().unwrap_or_default())
}

fn index_path(mut index: u64) -> String {
    let mut groups = vec![index % 1000];
    while index >= 1000 {
        index /= 1000;
        groups.push(index % 1000);
    }
    let mut path = String::new();
    for (left, group) in groups.iter().enumerate().rev() {
        let written = match left {
            0 => write!(path, "{group:03}"),
            _ => write!(path, "x{group:03}/"),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
    path
}
