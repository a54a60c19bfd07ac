//! What a certificate says, as far as later decisions need it.

use std::time::Duration;

use agentca_identity::certificate::Certificate;
use agentca_identity::profile::BACKDATE;
use agentca_identity::scope::ScopeSet;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::state::KeyId;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its first moment.
    pub not_before: Timestamp,
    /// Its last moment.
    pub not_after: Timestamp,
    /// Its key.
    pub key: KeyId,
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
    /// The CRL shard it names; none for signers.
    pub shard: Option<u16>,
    /// An agent's rights; none for others.
    pub rights: Option<Rights>,
    /// The raw public key when it is Ed25519.
    pub ed25519: Option<[u8; 32]>,
}

/// What an agent's certificate allows, and by which grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Its scopes.
    pub scopes: ScopeSet,
    /// Its trust level.
    pub trust: TrustLevel,
    /// The index of the grant's record.
    pub grant: u64,
}

impl Facts {
    /// What `certificate` says.
    pub fn of(certificate: &Certificate) -> Self {
        Self {
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            key: certificate.public_key().key_id(),
            fingerprint: certificate.fingerprint(),
            shard: certificate.crl_uri().and_then(|uri| shard_of(uri.as_str())),
            rights: certificate.agent().map(|agent| Rights {
                scopes: agent.scopes.clone(),
                trust: agent.trust,
                grant: agent.grant,
            }),
            ed25519: certificate.public_key().ed25519_raw(),
        }
    }

    /// Reads them, and whom it names, from a record's base64.
    pub fn read(base64: &str) -> Result<(SpiffeId, Self), String> {
        let der = BASE64_STANDARD.decode(base64).map_err(|e| e.to_string())?;
        Self::read_der(&der)
    }

    /// Reads them, and whom it names.
    pub fn read_der(der: &[u8]) -> Result<(SpiffeId, Self), String> {
        let certificate = Certificate::parse(der).map_err(|e| e.to_string())?;
        let subject = certificate.id().ok_or("the certificate names nobody")?;
        Ok((subject, Self::of(&certificate)))
    }

    /// How long it lasts from its issue on.
    pub fn lifetime(&self) -> Duration {
        self.not_after
            .saturating_since(self.not_before)
            .saturating_sub(BACKDATE)
    }
}

/// The path of a CRL shard below the public URL.
pub fn shard_path(shard: u16) -> String {
    format!("/crl/{shard}.crl")
}

fn shard_of(uri: &str) -> Option<u16> {
    let (_, file) = uri.rsplit_once("/crl/")?;
    file.strip_suffix(".crl")?.parse().ok()
}
