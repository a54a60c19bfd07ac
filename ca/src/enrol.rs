//! Enrols an enforcer: makes its keys here, and writes what its `identity_dir` holds.
//!
//! Besides its three certificates that is where the authority's log stands, so that the enforcer
//! trusts nothing on first use: everything is verified here, under the root of the credential.

use std::net::IpAddr;
use std::path::Path;

use agentca_auditlog::checkpoint::Checkpoint;
use agentca_auditlog::note::VerifierKey;
use agentca_identity::certificate::Certificate;
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::name::{DnsName, Environment, Name};
use agentca_identity::pem;
use agentca_identity::spiffe::{LogOrigin, Role, SpiffeId};
use serde::Serialize;

use crate::client::{Client, ClientError, EnforcerAdded, EnforcerOrder};
use crate::credentials::{self, Credential, CredentialError, ISSUERS, ROOT};
use crate::staging::{Existing, Readers, Staging, StagingError};

/// Everything that is written.
const FILES: [&str; 10] = [
    "tls.key",
    "tls.crt",
    "log.key",
    "log.crt",
    "response.key",
    "response.crt",
    "feed.toml",
    "signers.pem",
    ISSUERS,
    ROOT,
];

/// Why no enforcer was added, or what was added can't be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Staging(#[from] StagingError),
    #[error("the authority answered with a log head that does not verify: {0}")]
    Head(String),
}

/// Who is to be enrolled.
#[derive(Debug)]
pub(crate) struct NewEnforcer<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) name: &'a Name,
    pub(crate) dns: &'a [DnsName],
    pub(crate) ip: &'a [IpAddr],
    pub(crate) new_log: bool,
}

/// An enrolment that may be asked for: keys made, files known to be writable.
pub(crate) struct Enrolment {
    staging: Staging,
    tls: PrivateKey,
    log: PrivateKey,
    response: PrivateKey,
}

/// What was enrolled.
#[derive(Debug, Serialize)]
pub(crate) struct Enrolled {
    pub(crate) uri: String,
    pub(crate) not_after: String,
    pub(crate) log_origin: String,
    pub(crate) record: u64,
}

/// `feed.toml`, as the enforcer reads it.
#[derive(Serialize)]
struct FeedFile<'a> {
    /// The SPIFFE id of the enforcer.
    enforcer: &'a str,
    authority_origin: &'a str,
    authority_vkey: &'a str,
    log_origin: &'a str,
    witness_vkey: &'a str,
    checkpoint: &'a str,
}

impl Enrolment {
    pub(crate) fn prepare(out: &Path, existing: Existing) -> Result<Self, EnrolError> {
        let key =
            |kind| PrivateKey::generate(kind).map_err(|e| CredentialError::Key(e.to_string()));
        Ok(Self {
            staging: Staging::prepare(out, &FILES, existing)?,
            tls: key(KeyKind::P256)?,
            log: key(KeyKind::Ed25519)?,
            response: key(KeyKind::Ed25519)?,
        })
    }

    /// Asks, verifies, writes.
    pub(crate) async fn enrol(
        self,
        client: &mut Client,
        credential: &Credential,
        new: &NewEnforcer<'_>,
    ) -> Result<Enrolled, EnrolError> {
        let added = client
            .add_enforcer(EnforcerOrder {
                environment: new.environment,
                name: new.name,
                dns: new.dns,
                ip: new.ip.iter().map(ToString::to_string).collect(),
                tls_csr: credentials::request(&self.tls)?,
                log_csr: credentials::request(&self.log)?,
                response_csr: credentials::request(&self.response)?,
                new_log: new.new_log,
            })
            .await?;
        let id = SpiffeId::Enforcer {
            trust_domain: credential.anchor.trust_domain().clone(),
            environment: new.environment.clone(),
            name: new.name.clone(),
        };
        let certificate = self.verify(&credential.anchor, &id, &added)?;
        let uri = id.to_string();
        self.write(credential, &uri, &added)?;
        Ok(Enrolled {
            uri,
            not_after: certificate.not_after().rfc3339(),
            log_origin: added.log_origin,
            record: added.tls.record,
        })
    }

    fn verify(
        &self,
        anchor: &TrustAnchor,
        id: &SpiffeId,
        added: &EnforcerAdded,
    ) -> Result<Certificate, EnrolError> {
        // First the signers: from theirs the anchor learns the PEN that all others must agree with.
        verify_authority(anchor, added)?;
        let origin: LogOrigin = added.log_origin.parse().map_err(head)?;
        if origin.holder() != *id {
            return Err(head(format!("{origin} is not a log of {id}")));
        }
        let response = origin.response().map_err(head)?;
        credentials::accept_signer(anchor, &added.log.chain, &origin, self.log.public_key())?;
        let key = self.response.public_key();
        credentials::accept_signer(anchor, &added.response.chain, &response, key)?;
        let key = self.tls.public_key();
        Ok(credentials::accept(
            anchor,
            &added.tls,
            Role::Enforcer,
            id,
            key,
        )?)
    }

    fn write(
        mut self,
        credential: &Credential,
        uri: &str,
        added: &EnforcerAdded,
    ) -> Result<(), EnrolError> {
        let staging = &mut self.staging;
        let pairs = [
            ("tls.key", &self.tls, "tls.crt", &added.tls),
            ("log.key", &self.log, "log.crt", &added.log),
            (
                "response.key",
                &self.response,
                "response.crt",
                &added.response,
            ),
        ];
        for (key_name, key, certificate_name, issued) in pairs {
            staging.write(key_name, key.to_pem().as_bytes(), Readers::Owner)?;
            let chain = pem::encode_certs(&issued.chain);
            staging.write(certificate_name, chain.as_bytes(), Readers::Everybody)?;
        }
        let feed = toml::to_string_pretty(&FeedFile {
            enforcer: uri,
            authority_origin: &added.authority_origin,
            authority_vkey: &added.authority_vkey,
            log_origin: &added.log_origin,
            witness_vkey: &added.witness_vkey,
            checkpoint: &added.authority_checkpoint,
        })
        .map_err(head)?;
        staging.write("feed.toml", feed.as_bytes(), Readers::Everybody)?;
        let signers = added.authority_log_chain.iter().chain(&added.witness_chain);
        let signers = pem::encode_certs(signers);
        staging.write("signers.pem", signers.as_bytes(), Readers::Everybody)?;
        let issuers = credentials::issuers_text(&credential.anchor, &added.tls)?;
        staging.write(ISSUERS, issuers.as_bytes(), Readers::Everybody)?;
        staging.write(ROOT, credential.root_pem.as_bytes(), Readers::Everybody)?;
        Ok(self.staging.commit()?)
    }
}

/// The authority's log and witness keys hang from the root, and its log key signed the head.
fn verify_authority(anchor: &TrustAnchor, added: &EnforcerAdded) -> Result<(), EnrolError> {
    let origin = LogOrigin::authority(anchor.trust_domain().clone());
    let witness = LogOrigin::witness(anchor.trust_domain().clone()).map_err(head)?;
    if added.authority_origin != origin.to_string() {
        return Err(head(format!("{} is not {origin}", added.authority_origin)));
    }
    let log_vkey: VerifierKey = added.authority_vkey.parse().map_err(head)?;
    let witness_vkey: VerifierKey = added.witness_vkey.parse().map_err(head)?;
    if witness_vkey.name() != witness.to_string() {
        return Err(head(format!("{} is not {witness}", witness_vkey.name())));
    }
    credentials::accept_signer(
        anchor,
        &added.authority_log_chain,
        &origin,
        log_vkey.public_key(),
    )?;
    credentials::accept_signer(
        anchor,
        &added.witness_chain,
        &witness,
        witness_vkey.public_key(),
    )?;
    Checkpoint::open(added.authority_checkpoint.as_bytes(), &log_vkey).map_err(head)?;
    Ok(())
}

fn head(detail: impl ToString) -> EnrolError {
    EnrolError::Head(detail.to_string())
}
