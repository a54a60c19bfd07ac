use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde::Deserialize;

use super::proof::{consistency, inclusion, root, verify_consistency, verify_inclusion};
use super::tile::{self, Tile};
use super::*;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InclusionVector {
    file: String,
    leaf_idx: u64,
    tree_size: u64,
    root: Option<String>,
    leaf_hash: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConsistencyVector {
    file: String,
    size1: u64,
    size2: u64,
    root1: Option<String>,
    root2: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

/// Consistency vectors use roots that are no hashes ("don't care"): those stand for some other hash each.
fn root_of(text: Option<&String>) -> Hash {
    let bytes = STANDARD.decode(text.map_or("", |text| text)).unwrap();
    bytes
        .as_slice()
        .try_into()
        .unwrap_or_else(|_| sha256(&bytes))
}

/// A hash that is not 32 bytes long cannot be written in our types: refused while reading.
fn proof_of(texts: Option<&Vec<String>>) -> Option<Vec<Hash>> {
    let texts = texts.map_or(&[][..], |texts| texts);
    texts
        .iter()
        .map(|text| STANDARD.decode(text).unwrap().try_into().ok())
        .collect()
}

#[test]
fn inclusion_vectors_of_transparency_dev_hold() {
    let vectors: Vec<InclusionVector> =
        serde_json::from_str(include_str!("../../testdata/merkle/inclusion.json")).unwrap();
    assert_eq!(vectors.len(), 98);
    for v in vectors {
        let hashes = proof_of(Some(&vec![
            v.leaf_hash.unwrap_or_default(),
            v.root.unwrap_or_default(),
        ]));
        let ours = hashes
            .zip(proof_of(v.proof.as_ref()))
            .is_some_and(|(hashes, proof)| {
                verify_inclusion(&hashes[0], v.leaf_idx, v.tree_size, &proof, &hashes[1]).is_ok()
            });
        assert_eq!(ours, !v.want_err, "{}", v.file);
    }
}

#[test]
fn consistency_vectors_of_transparency_dev_hold() {
    let vectors: Vec<ConsistencyVector> =
        serde_json::from_str(include_str!("../../testdata/merkle/consistency.json")).unwrap();
    assert_eq!(vectors.len(), 98);
    for v in vectors {
        let ours = proof_of(v.proof.as_ref()).is_some_and(|proof| {
            let (one, two) = (root_of(v.root1.as_ref()), root_of(v.root2.as_ref()));
            verify_consistency(v.size1, v.size2, &proof, &one, &two).is_ok()
        });
        assert_eq!(ours, !v.want_err, "{}", v.file);
    }
}

/// MTH as RFC 6962 section 2.1 writes it down.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

/// Level files in memory, filled the way the log fills them.
fn level_files(leaves: &[Hash]) -> (CompactRange, Vec<Vec<Hash>>) {
    let mut files = vec![Vec::new(); 4];
    let mut range = CompactRange::new();
    for leaf in leaves {
        range.append(*leaf, |height, hash| {
            if let Some(level) = tile::level_of(height) {
                files[usize::from(level)].push(*hash);
            }
        });
    }
    (range, files)
}

fn reader(files: &[Vec<Hash>]) -> impl FnMut(u32, u64) -> Result<Hash, Infallible> + '_ {
    |height, index| {
        tile::node(height, index, |level, first, count| {
            let first = usize::try_from(first).unwrap();
            Ok(files[usize::from(level)][first..first + usize::try_from(count).unwrap()].to_vec())
        })
    }
}

#[test]
fn hashing_behind_a_prefix_equals_hashing_a_copy() {
    let mut buffer = *b"\x02record";
    assert_eq!(leaf_hash_behind(&mut buffer), leaf_hash(b"record"));
    assert_eq!(&buffer, b"\x02record");
    assert_eq!(leaf_hash_behind(&mut []), leaf_hash(b""));
}

#[test]
fn tile_paths_are_those_of_the_specification() {
    for path in [
        "tile/0/x001/x234/067",
        "tile/0/000",
        "tile/1/001.p/17",
        "tile/entries/x001/000.p/255",
        "tile/63/999",
    ] {
        assert_eq!(path.parse::<Tile>().unwrap().to_string(), path);
    }
    assert_eq!(
        "tile/0/x001/x234/067".parse::<Tile>().unwrap().index,
        1_234_067
    );
    for path in [
        "tile/0/1",
        "tile/00/001",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/001.p/256",
        "tile/0/001.p/0",
        "tile/0/001.p/01",
        "tile/64/001",
        "tile/0/+01",
        "/tile/0/001",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/é01",
        "tile/0/",
    ] {
        assert!(path.parse::<Tile>().is_err(), "{path}");
    }
}

#[test]
fn the_example_tree_of_the_specification_has_its_tiles() {
    assert_eq!(tile::level_width(0, 70_000), 273 * 256 + 112);
    assert_eq!(tile::level_width(1, 70_000), 256 + 17);
    assert_eq!(tile::level_width(2, 70_000), 1);
    assert_eq!(tile::levels(70_000), 3);
    assert_eq!(tile::levels(0), 0);
    assert_eq!(tile::levels(u64::MAX), 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn roots_equal_the_naive_reference(count in 0u64..700) {
        let leaves = leaves(count);
        let (range, files) = level_files(&leaves);
        let expected = naive_root(&leaves);
        prop_assert_eq!(range.root(), expected);
        prop_assert_eq!(root(count, reader(&files)).unwrap(), expected);
        let loaded = CompactRange::load(count, reader(&files)).unwrap();
        prop_assert_eq!(loaded, range);
    }

    #[test]
    fn every_inclusion_proof_verifies_and_only_as_it_is(
        count in 1u64..700, index in 0u64..700, bit in 0usize..256, at in 0usize..12,
    ) {
        prop_assume!(index < count);
        let leaves = leaves(count);
        let (range, files) = level_files(&leaves);
        let leaf = leaves[usize::try_from(index).unwrap()];
        let mut proof = inclusion(index, count, reader(&files)).unwrap();
        prop_assert!(verify_inclusion(&leaf, index, count, &proof, &range.root()).is_ok());
        prop_assert!(verify_inclusion(&leaf, index + 1, count, &proof, &range.root()).is_err());
        let mut longer = proof.clone();
        longer.push(leaf);
        prop_assert!(verify_inclusion(&leaf, index, count, &longer, &range.root()).is_err());
        if let Some(hash) = proof.get_mut(at) {
            hash[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_inclusion(&leaf, index, count, &proof, &range.root()).is_err());
        }
    }

    #[test]
    fn every_consistency_proof_verifies_and_only_as_it_is(
        new in 1u64..700, old in 1u64..700, bit in 0usize..256, at in 0usize..12,
    ) {
        prop_assume!(old <= new);
        let leaves = leaves(new);
        let (range, files) = level_files(&leaves);
        let old_root = naive_root(&leaves[..usize::try_from(old).unwrap()]);
        let mut proof = consistency(old, new, reader(&files)).unwrap();
        prop_assert!(verify_consistency(old, new, &proof, &old_root, &range.root()).is_ok());
        if old < new {
            prop_assert!(verify_consistency(old, new, &proof, &range.root(), &range.root()).is_err());
        }
        if let Some(hash) = proof.get_mut(at) {
            hash[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_consistency(old, new, &proof, &old_root, &range.root()).is_err());
        }
    }

    #[test]
    fn verifiers_never_panic(
        old in any::<u64>(), new in any::<u64>(), proof in prop::collection::vec(any::<Hash>(), 0..70),
    ) {
        let zero = [0; 32];
        let _ = verify_inclusion(&zero, old, new, &proof, &zero);
        let _ = verify_consistency(old, new, &proof, &zero, &zero);
    }

    #[test]
    fn tile_paths_read_back(level in 0u8..64, index in any::<u64>(), width in 1u16..=256) {
        let tile = Tile { kind: tile::TileKind::Hashes(level), index, width };
        prop_assert_eq!(tile.to_string().parse::<Tile>().unwrap(), tile);
    }

    #[test]
    fn tile_path_reader_never_panics(path in ".{0,60}") {
        let _ = path.parse::<Tile>();
        let _ = format!("tile/{path}").parse::<Tile>();
    }
}
