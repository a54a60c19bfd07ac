//! Inclusion and consistency proofs: made after RFC 6962 sections 2.1.1 and 2.1.2, verified by the
//! algorithms of RFC 9162 sections 2.1.3.2 and 2.1.4.2.
//!
//! Makers read nodes through a closure (height, index); every node asked for is the root of a
//! perfect subtree inside the tree of the asked size.

use super::{Hash, empty_root, node_hash};

/// The root over the first `size` leaves.
///
/// # Errors
/// Whatever `node` fails with.
pub fn root<E>(size: u64, mut node: impl FnMut(u32, u64) -> Result<Hash, E>) -> Result<Hash, E> {
    range_root(0, size, &mut node)
}

/// The proof that leaf `index` is in the tree of `size` leaves: from the leaf's sibling upwards.
///
/// # Errors
/// [`MakeError::OutOfRange`] unless `index < size`; [`MakeError::Read`] when `node` fails.
pub fn inclusion<E>(
    index: u64,
    size: u64,
    mut node: impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, MakeError<E>> {
    if index >= size {
        return Err(MakeError::OutOfRange { asked: index, size });
    }
    let (mut begin, mut end) = (0, size);
    let mut proof = Vec::new();
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            proof.push(range_root(middle, end, &mut node)?);
            end = middle;
        } else {
            proof.push(range_root(begin, middle, &mut node)?);
            begin = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `old` leaves is a prefix of the tree of `new` leaves.
/// It is empty when `old` is 0 or equals `new`.
///
/// # Errors
/// [`MakeError::OutOfRange`] unless `old <= new`; [`MakeError::Read`] when `node` fails.
pub fn consistency<E>(
    old: u64,
    new: u64,
    mut node: impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, MakeError<E>> {
    if old > new {
        return Err(MakeError::OutOfRange {
            asked: old,
            size: new,
        });
    }
    if old == 0 {
        return Ok(Vec::new());
    }
    let (mut begin, mut end) = (0, new);
    let mut proof = Vec::new();
    while end != old {
        let middle = begin + split(end - begin);
        if old <= middle {
            proof.push(range_root(middle, end, &mut node)?);
            end = middle;
        } else {
            proof.push(range_root(begin, middle, &mut node)?);
            begin = middle;
        }
    }
    if begin != 0 {
        proof.push(range_root(begin, end, &mut node)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that `leaf` is leaf number `index` of the tree of `size` leaves under `root`.
///
/// # Errors
/// [`ProofError`], also for a proof of the wrong length.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange);
    }
    let (mut position, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if position & 1 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if hash == *root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// Checks that the tree `old_root` of `old` leaves is a prefix of the tree `new_root` of `new`.
///
/// # Errors
/// [`ProofError`]; also when `old` is 0 and `new` is not, since that proves nothing.
pub fn verify_consistency(
    old: u64,
    new: u64,
    proof: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::OutOfRange);
    }
    if old == new {
        return match (proof, old_root == new_root) {
            ([], true) if old > 0 || *old_root == empty_root() => Ok(()),
            ([], _) => Err(ProofError::Root),
            _ => Err(ProofError::Length),
        };
    }
    if old == 0 {
        return Err(ProofError::OutOfRange);
    }
    let (seed, rest) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(ProofError::Length)?
    };
    fold_consistency(old, new, seed, rest, old_root, new_root)
}

/// Steps 3 to 7 of RFC 9162 section 2.1.4.2.
fn fold_consistency(
    old: u64,
    new: u64,
    seed: &Hash,
    proof: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), ProofError> {
    let shift = (old - 1).trailing_ones();
    let (mut position, mut last) = ((old - 1) >> shift, (new - 1) >> shift);
    let (mut first, mut second) = (*seed, *seed);
    for node in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if position & 1 == 1 || position == last {
            first = node_hash(node, &first);
            second = node_hash(node, &second);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            second = node_hash(&second, node);
        }
        position >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if first == *old_root && second == *new_root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// The root over leaves `begin..end`; `begin` is a multiple of the power of two not below the width.
fn range_root<E>(
    begin: u64,
    end: u64,
    node: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Hash, E> {
    let mut subtrees = Vec::new();
    let mut at = begin;
    while at < end {
        let height = (end - at).ilog2();
        subtrees.push(node(height, at >> height)?);
        at += 1 << height;
    }
    let mut subtrees = subtrees.iter().rev();
    let Some(last) = subtrees.next() else {
        return Ok(empty_root());
    };
    Ok(subtrees.fold(*last, |right, left| node_hash(left, &right)))
}

/// The largest power of two below `width`, which is at least 2.
fn split(width: u64) -> u64 {
    1 << (width - 1).ilog2()
}

/// Why a proof could not be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MakeError<E> {
    /// The index or old size is not inside the tree.
    #[error("{asked} is not inside the tree of {size} leaves")]
    OutOfRange {
        /// The leaf index or the older size.
        asked: u64,
        /// The size of the tree.
        size: u64,
    },
    /// A node could not be read.
    #[error(transparent)]
    Read(#[from] E),
}

/// Why a proof is not accepted.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProofError {
    /// Index and size, or the two sizes, do not fit each other.
    #[error("the proof's index or sizes are out of range")]
    OutOfRange,
    /// Too many or too few hashes for these sizes.
    #[error("the proof has the wrong length")]
    Length,
    /// The proof leads to another root.
    #[error("the proof does not lead to the root")]
    Root,
}
