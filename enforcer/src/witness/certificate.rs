//! The certificate of the witness's key, as this enforcer's log names it.
//!
//! The authority renews it for the same key long before it ends. The next one is announced here before
//! anything that it vouches for, so that who verifies the log goes on counting cosignatures.

use std::sync::{Mutex, PoisonError};

use agentca_auditlog::note::VerifierKey;
use agentca_identity::certificate::Certificate;
use agentca_identity::chain::{PeerError, SignerKey, TrustAnchor};
use agentca_identity::spiffe::{LogOrigin, OriginError};
use agentca_identity::time::Timestamp;

/// Until when the newest certificate counts that the log names; none when it names no witness.
#[derive(Debug)]
pub(crate) struct NamedWitness(Mutex<Option<Timestamp>>);

impl NamedWitness {
    /// As the log names it: by leaf certificates of record 0 and of later announcements, whoever's.
    pub(crate) fn of<'a>(
        witness: &VerifierKey,
        leaves: impl IntoIterator<Item = &'a [u8]>,
    ) -> Self {
        let ends = leaves.into_iter().filter_map(|leaf| {
            let leaf = Certificate::parse(leaf).ok()?;
            (leaf.public_key() == witness.public_key()).then(|| leaf.not_after())
        });
        Self(Mutex::new(ends.max()))
    }

    /// Whether `chain` has to be announced: it is of the witness's own key, and ends later than what
    /// the log names. An older authority shows none.
    ///
    /// # Errors
    /// [`ChainError`]: it is not the witness's.
    pub(crate) fn judge(
        &self,
        chain: &[Vec<u8>],
        anchor: &TrustAnchor,
        witness: &VerifierKey,
    ) -> Result<Option<Timestamp>, ChainError> {
        if chain.is_empty() {
            return Ok(None);
        }
        let origin: LogOrigin = witness.name().parse()?;
        let refs: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let signer: SignerKey = anchor.verify_signer(&refs, &origin)?;
        if signer.public_key() != witness.public_key() {
            return Err(ChainError::Key);
        }
        let until = signer.not_after();
        Ok(self
            .until()
            .is_none_or(|named| named < until)
            .then_some(until))
    }

    /// The log names one that counts until then.
    pub(crate) fn announced(&self, until: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn until(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a certificate is not the witness's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    #[error("it is of another key than the one in feed.toml")]
    Key,
    #[error(transparent)]
    Chain(#[from] PeerError),
    #[error(transparent)]
    Origin(#[from] OriginError),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use agentca_auditlog::note::SignatureType;
    use agentca_identity::crypto::{KeyKind, PrivateKey};

    use super::*;
    use crate::testing::Pki;

    const WITNESS: &str = "example.org/ca/witness";
    const DAY: Duration = Duration::from_secs(86_400);

    fn key() -> PrivateKey {
        PrivateKey::generate(KeyKind::Ed25519).unwrap()
    }

    fn chain(pki: &Pki, origin: &str, key: &PrivateKey, life: Duration) -> Vec<Vec<u8>> {
        let leaf = pki.log_signer(&origin.parse().unwrap(), key, life);
        let above = pki.signer.certificate();
        vec![leaf.der().to_vec(), above.der().to_vec()]
    }

    #[test]
    fn only_a_later_certificate_of_the_same_key_is_announced() {
        let (pki, key) = (Pki::new(), key());
        let anchor = TrustAnchor::from_root_der(pki.root.certificate().der()).unwrap();
        let public = key.public_key().clone();
        let witness = VerifierKey::new(WITNESS, SignatureType::Cosignature, public).unwrap();
        let of = |days: u32| chain(&pki, WITNESS, &key, DAY * days);
        let (first, second) = (of(90), of(150));
        let strange = chain(&pki, WITNESS, &self::key(), DAY * 300);
        let leaves = [&first, &strange].map(|chain| chain[0].as_slice());
        let named = NamedWitness::of(&witness, leaves);
        let judge = |chain: &[Vec<u8>]| named.judge(chain, &anchor, &witness);
        assert!(judge(&[]).unwrap().is_none());
        assert!(judge(&first).unwrap().is_none());
        let until = judge(&second).unwrap().unwrap();
        assert_eq!(until, Certificate::parse(&second[0]).unwrap().not_after());
        named.announced(until);
        for known in [&first, &second] {
            assert!(judge(known).unwrap().is_none());
        }
        assert!(matches!(judge(&strange), Err(ChainError::Key)));
        let log = chain(&pki, "example.org/ca", &key, DAY * 300);
        assert!(matches!(judge(&log), Err(ChainError::Chain(_))));
        let foreign = chain(&Pki::new(), WITNESS, &key, DAY * 300);
        assert!(matches!(judge(&foreign), Err(ChainError::Chain(_))));
        // A log that names no witness yet is told the first that comes.
        let unnamed = NamedWitness::of(&witness, []);
        assert!(unnamed.judge(&first, &anchor, &witness).unwrap().is_some());
    }
}
