//! `feed.toml`: whom this enforcer follows and who co-signs its log.

use std::path::Path;

use agentca_auditlog::checkpoint::{Checkpoint, SignedCheckpoint};
use agentca_auditlog::note::{SignatureType, VerifierKey};
use agentca_identity::spiffe::{LogOrigin, SpiffeId};
use serde::Deserialize;

use super::{CredentialsError, read, wrong};

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFeedFile {
    authority_origin: String,
    authority_vkey: String,
    checkpoint: String,
    log_origin: String,
    witness_vkey: String,
    enforcer: String,
}

/// The file, checked.
#[derive(Debug)]
pub(super) struct FeedFile {
    pub(super) authority_key: VerifierKey,
    pub(super) checkpoint: SignedCheckpoint,
    pub(super) log_origin: LogOrigin,
    pub(super) witness_key: VerifierKey,
    pub(super) enforcer: SpiffeId,
}

impl FeedFile {
    pub(super) fn load(dir: &Path) -> Result<Self, CredentialsError> {
        Self::parse(&read(dir, FILE)?).map_err(|message| wrong(dir, FILE, &message))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let raw: RawFeedFile = toml::from_str(text).map_err(|e| e.to_string())?;
        let RawFeedFile {
            authority_origin,
            authority_vkey,
            checkpoint: note,
            log_origin,
            witness_vkey,
            enforcer,
        } = raw;
        let authority_key = vkey("authority_vkey", &authority_vkey, SignatureType::Ed25519)?;
        if authority_key.name() != authority_origin {
            return Err("`authority_vkey` is not of `authority_origin`".to_owned());
        }
        let checkpoint = Checkpoint::open(note.as_bytes(), &authority_key)
            .map_err(|e| format!("`checkpoint`: {e}"))?;
        let log_origin: LogOrigin = log_origin
            .parse()
            .map_err(|e| format!("`log_origin`: {e}"))?;
        let enforcer: SpiffeId = enforcer.parse().map_err(|e| format!("`enforcer`: {e}"))?;
        if log_origin.holder() != enforcer || log_origin.is_response() {
            return Err(format!("`log_origin` is not a log of {enforcer}"));
        }
        Ok(Self {
            authority_key,
            checkpoint: SignedCheckpoint { checkpoint, note },
            log_origin,
            witness_key: vkey("witness_vkey", &witness_vkey, SignatureType::Cosignature)?,
            enforcer,
        })
    }
}

fn vkey(key: &str, text: &str, kind: SignatureType) -> Result<VerifierKey, String> {
    let verifier: VerifierKey = text.parse().map_err(|e| format!("`{key}`: {e}"))?;
    if verifier.signature_type() == kind {
        Ok(verifier)
    } else {
        Err(format!(
            "`{key}`: it is a key for another kind of signature"
        ))
    }
}

const FILE: &str = "feed.toml";

#[cfg(test)]
mod tests {
    use agentca_auditlog::merkle::empty_root;
    use agentca_auditlog::note::NoteSigner;
    use agentca_identity::crypto::{KeyKind, PrivateKey};

    use super::*;

    fn signer(name: &str, kind: SignatureType) -> NoteSigner {
        NoteSigner::new(name, kind, PrivateKey::generate(KeyKind::Ed25519).unwrap()).unwrap()
    }

    fn file() -> String {
        let log = signer("example.org/ca", SignatureType::Ed25519);
        let witness = signer("example.org/ca/witness", SignatureType::Cosignature);
        let origin = "example.org/ca".to_owned();
        let note = Checkpoint {
            origin,
            size: 0,
            root: empty_root(),
        }
        .sign(&log)
        .unwrap();
        format!(
            "authority_origin = \"example.org/ca\"\nauthority_vkey = \"{}\"\n\
             checkpoint = \"\"\"\n{note}\"\"\"\nlog_origin = \"example.org/prod/enforcer/edge-1\"\n\
             witness_vkey = \"{}\"\nenforcer = \"spiffe://example.org/prod/enforcer/edge-1\"\n",
            log.verifier(),
            witness.verifier()
        )
    }

    #[test]
    fn a_written_file_is_read() {
        let feed = FeedFile::parse(&file()).unwrap();
        assert_eq!(feed.checkpoint.checkpoint.size, 0);
        assert_eq!(
            feed.log_origin.to_string(),
            "example.org/prod/enforcer/edge-1"
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let good = file();
        let other = file();
        let line = |text: &str, key: &str| {
            text.lines()
                .find(|line| line.starts_with(key))
                .unwrap()
                .to_owned()
        };
        let vkey = (
            line(&good, "authority_vkey"),
            line(&other, "authority_vkey"),
        );
        let witness = line(&good, "witness_vkey").replace("witness_vkey", "authority_vkey");
        for bad in [
            good.replace(&vkey.0, &vkey.1),
            good.replace(&vkey.0, &witness),
            good.replace("enforcer/edge-1\"\nw", "enforcer/edge-2\"\nw"),
            good.replace("\"example.org/ca\"", "\"example.com/ca\""),
            good.replace("\n0\n", "\n1\n"),
            format!("{good}extra = 1\n"),
        ] {
            assert!(FeedFile::parse(&bad).is_err(), "{bad}");
        }
    }
}
