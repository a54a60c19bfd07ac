//! Whose signatures count: chains in records, under the root.

use agentca_identity::certificate::{Certificate, Subject};
use agentca_identity::chain::{SignerKey, TrustAnchor};
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;

use super::violation::{Place, Reason, Violation};
use crate::checkpoint::Checkpoint;
use crate::note::{SignatureType, VerifierKey};
use crate::record::{self, Chain, SIGNER_ANNOUNCED, read_announced, scan};

/// Who signed a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The record that announced the key: 0, or a later one.
    pub announced: u64,
    /// The first second of its certificate.
    pub not_before: Timestamp,
    /// The last second of its certificate.
    pub not_after: Timestamp,
}

/// The keys that records announced so far.
#[derive(Debug)]
pub(super) struct KeyRing<'a> {
    anchor: &'a TrustAnchor,
    /// Of the log's own signer, in the order of their records.
    own: Vec<(u64, VerifierKey, SignerKey)>,
    /// The witness, whose newest certificate counts; the key stays.
    witness: Option<(VerifierKey, SignerKey)>,
}

impl<'a> KeyRing<'a> {
    pub(super) fn new(anchor: &'a TrustAnchor) -> Self {
        Self {
            anchor,
            own: Vec::new(),
            witness: None,
        }
    }

    /// Takes whatever keys record `index` announces; says whether it does that.
    pub(super) fn hear(
        &mut self,
        index: u64,
        bytes: &[u8],
        origin: &LogOrigin,
    ) -> Result<bool, Violation> {
        let wrong = |e| Violation::record(index, Reason::Record(e));
        let kind = scan(bytes).map_err(wrong)?.kind;
        if index == 0 {
            self.open(bytes, origin)?;
        } else if kind == SIGNER_ANNOUNCED {
            let chain = read_announced(bytes).map_err(wrong)?;
            self.announce(index, &chain, origin)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes the keys of record 0.
    pub(super) fn open(&mut self, bytes: &[u8], origin: &LogOrigin) -> Result<(), Violation> {
        let wrong = |reason| Violation::record(0, reason);
        let opening = record::read_opened(bytes).map_err(|e| wrong(Reason::Record(e)))?;
        for chain in &opening.signers {
            self.announce(0, chain, origin)?;
        }
        if self.own.len() != 1 {
            return Err(wrong(Reason::Announcement("one signer of the log")));
        }
        if let Some(chain) = &opening.witness {
            let (witness, signer) = self.verify(chain).map_err(wrong)?;
            if !is_witness(&witness, origin) {
                return Err(wrong(Reason::Announcement("the authority as the witness")));
            }
            let key = verifier_key(&witness, SignatureType::Cosignature, &signer).map_err(wrong)?;
            self.witness = Some((key, signer));
        }
        Ok(())
    }

    /// Takes the chain of one signer, announced by record `index`.
    pub(super) fn announce(
        &mut self,
        index: u64,
        chain: &Chain,
        origin: &LogOrigin,
    ) -> Result<(), Violation> {
        let wrong = |reason| Violation::record(index, reason);
        let (announced, signer) = self.verify(chain).map_err(wrong)?;
        if announced == *origin {
            let key = verifier_key(origin, SignatureType::Ed25519, &signer).map_err(wrong)?;
            self.own.push((index, key, signer));
        } else if is_witness(&announced, origin) && index > 0 {
            let key =
                verifier_key(&announced, SignatureType::Cosignature, &signer).map_err(wrong)?;
            self.witness = Some((key, signer));
        } else if origin
            .response()
            .is_ok_and(|response| response == announced)
        {
            // Signs responses, which are verified elsewhere.
        } else {
            return Err(wrong(Reason::Announcement("a signer of this log")));
        }
        Ok(())
    }

    fn verify(&self, chain: &Chain) -> Result<(LogOrigin, SignerKey), Reason> {
        let parts: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let leaf = parts.first().copied().unwrap_or_default();
        let leaf = Certificate::parse(leaf).map_err(|e| Reason::Chain(e.into()))?;
        let Subject::LogSigner { origin } = leaf.subject() else {
            return Err(Reason::Announcement("a log signer"));
        };
        let signer = self
            .anchor
            .verify_signer(&parts, origin)
            .map_err(Reason::Chain)?;
        Ok((origin.clone(), signer))
    }

    /// Who signed the log's checkpoint over `size` records: the newest key they announce, or the one
    /// before while it hands over.
    pub(super) fn signer_of(
        &self,
        note: &[u8],
        size: u64,
    ) -> Result<(Signer, &VerifierKey), Violation> {
        let announced = self.own.iter().rev().filter(|(index, ..)| *index < size);
        let mut candidates: Vec<&(u64, VerifierKey, SignerKey)> = Vec::new();
        for entry in announced {
            // A certificate renewed for the same key is no other key.
            let others = candidates.iter().filter(|other| other.1 != entry.1).count();
            if others > 1 {
                break;
            }
            candidates.push(entry);
        }
        let found = candidates
            .into_iter()
            .find(|(_, key, _)| Checkpoint::open(note, key).is_ok());
        let (index, key, signer) =
            found.ok_or_else(|| Violation::of(Place::Checkpoint, Reason::AnotherKey))?;
        let signer = Signer {
            announced: *index,
            not_before: signer.not_before(),
            not_after: signer.not_after(),
        };
        Ok((signer, key))
    }

    /// The key that signed an older checkpoint, if it is one of the log's.
    pub(super) fn signed(&self, note: &[u8]) -> Option<&VerifierKey> {
        let keys = self.own.iter().map(|(_, key, _)| key);
        keys.into_iter()
            .find(|key| Checkpoint::open(note, key).is_ok())
    }

    /// The witness's key, with the time in which its signatures count.
    pub(super) fn witness(&self) -> Option<&(VerifierKey, SignerKey)> {
        self.witness.as_ref()
    }

    pub(super) fn witness_name(&self) -> Option<String> {
        self.witness.as_ref().map(|(key, _)| key.name().to_owned())
    }
}

fn is_witness(announced: &LogOrigin, origin: &LogOrigin) -> bool {
    LogOrigin::witness(origin.trust_domain().clone()).is_ok_and(|witness| witness == *announced)
}

fn verifier_key(
    origin: &LogOrigin,
    signature_type: SignatureType,
    signer: &SignerKey,
) -> Result<VerifierKey, Reason> {
    VerifierKey::new(
        &origin.to_string(),
        signature_type,
        signer.public_key().clone(),
    )
    .map_err(|e| Reason::Checkpoint(e.into()))
}
