//! The right edge of a growing tree: one hash for each perfect subtree that covers it.

use super::{Hash, empty_root, node_hash};

/// What is needed of a tree to append to it and to know its root: at most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactRange {
    size: u64,
    /// Roots of the perfect subtrees, the largest (leftmost) first: one per set bit of `size`.
    nodes: Vec<Hash>,
}

impl CompactRange {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree of `size` leaves whose perfect subtrees `node` reads as (height, index).
    ///
    /// # Errors
    /// Whatever `node` fails with.
    pub fn load<E>(
        size: u64,
        mut node: impl FnMut(u32, u64) -> Result<Hash, E>,
    ) -> Result<Self, E> {
        let mut nodes = Vec::new();
        let mut begin = 0;
        for height in (0..u64::BITS)
            .rev()
            .filter(|height| (size >> height) & 1 == 1)
        {
            nodes.push(node(height, begin >> height)?);
            begin += 1 << height;
        }
        Ok(Self { size, nodes })
    }

    /// Adds a leaf hash and names every node this completes, as (height, hash), the leaf first.
    pub fn append(&mut self, leaf: Hash, mut complete: impl FnMut(u32, &Hash)) {
        let mut hash = leaf;
        complete(0, &hash);
        for height in 1..=self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                hash = node_hash(&left, &hash);
                complete(height, &hash);
            }
        }
        self.nodes.push(hash);
        self.size += 1;
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else {
            return empty_root();
        };
        nodes.fold(*last, |right, left| node_hash(left, &right))
    }
}
