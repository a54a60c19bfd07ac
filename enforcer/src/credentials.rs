//! The folder that `agentca enforcer add` wrote: keys, their certificates and whom to follow.
//!
//! Everything is checked when it is loaded, at start and at every reload: a key that does not fit,
//! a certificate of another role, name or time refuses with a sentence that says what to run.

mod feed_file;

use std::path::{Path, PathBuf};

use agentca_auditlog::checkpoint::SignedCheckpoint;
use agentca_auditlog::note::VerifierKey;
use agentca_identity::certificate::{Certificate, EnforcerIdentity, Subject};
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::PrivateKey;
use agentca_identity::name::Environment;
use agentca_identity::pem::decode_certs;
use agentca_identity::spiffe::{LogOrigin, Role, SpiffeId};
use agentca_identity::time::Timestamp;

use self::feed_file::FeedFile;

/// What an enforcer is known by, checked.
#[derive(Debug)]
pub struct Credentials {
    /// The root everything hangs from.
    pub anchor: TrustAnchor,
    /// For TLS, both as server and towards the authority.
    pub tls: KeyPair,
    /// The TLS certificate, read.
    pub certificate: Certificate,
    /// Who this enforcer is, with the names it may be called by.
    pub identity: EnforcerIdentity,
    /// Signs the log.
    pub log: KeyPair,
    /// Signs answers.
    pub response: KeyPair,
    /// When the response signer's certificate ends.
    pub response_not_after: Timestamp,
    /// The log's name.
    pub log_origin: LogOrigin,
    /// The authority's log key.
    pub authority_key: VerifierKey,
    /// The key that co-signs this enforcer's log.
    pub witness_key: VerifierKey,
    /// The authority's log as `enforcer add` saw it.
    pub checkpoint: SignedCheckpoint,
    /// The chain of the authority's log signer: leaf, intermediate, DER.
    pub authority_log_chain: Chain,
    /// The chain of the witness: leaf, intermediate, DER.
    pub witness_chain: Chain,
    /// The issuing CAs below the root that are known here: whose CRLs count while they have not ended.
    pub issuers: Vec<Certificate>,
}

/// Certificates, leaf first, DER.
pub type Chain = Vec<Vec<u8>>;

/// A private key and the chain for its public key.
#[derive(Debug)]
pub struct KeyPair {
    /// The key.
    pub key: PrivateKey,
    /// Leaf, then intermediate, DER.
    pub chain: Chain,
}

impl Credentials {
    /// Loads and checks a folder.
    ///
    /// # Errors
    /// [`CredentialsError`]: which file, what is wrong with it and what to run.
    pub fn load(
        dir: &Path,
        environment: &Environment,
        now: Timestamp,
    ) -> Result<Self, CredentialsError> {
        let root = read(dir, "ca.crt")?;
        let anchor = TrustAnchor::from_pem(&root).map_err(|e| wrong(dir, "ca.crt", &e))?;
        let feed = FeedFile::load(dir)?;
        // Signers first: the anchor learns from them which PEN every other certificate must name.
        let (authority_log_chain, witness_chain) = signers(dir, &anchor, &feed)?;
        let tls = key_pair(dir, "tls")?;
        let (certificate, identity) = tls_identity(dir, &anchor, &tls, now)?;
        if identity.uri != feed.enforcer {
            let message = format!(
                "the certificate is of {}, not {}",
                identity.uri, feed.enforcer
            );
            return Err(wrong(dir, "tls.crt", &message));
        }
        let actual = identity.uri.environment();
        if actual != Some(environment) {
            let actual = actual.map(ToString::to_string).unwrap_or_default();
            return Err(CredentialsError::Environment {
                dir: dir.to_owned(),
                actual,
                uri: identity.uri,
                configured: environment.clone(),
            });
        }
        let log = key_pair(dir, "log")?;
        signer_window(dir, "log", &anchor, &log, &feed.log_origin, now)?;
        let response = key_pair(dir, "response")?;
        let response_origin = feed
            .log_origin
            .response()
            .map_err(|e| wrong(dir, "feed.toml", &e))?;
        let response_not_after =
            signer_window(dir, "response", &anchor, &response, &response_origin, now)?;
        let issuers = issuers(dir, &anchor, &tls)?;
        Ok(Self {
            anchor,
            tls,
            certificate,
            identity,
            log,
            response,
            response_not_after,
            log_origin: feed.log_origin,
            authority_key: feed.authority_key,
            witness_key: feed.witness_key,
            checkpoint: feed.checkpoint,
            authority_log_chain,
            witness_chain,
            issuers,
        })
    }

    /// The SPIFFE id.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.identity.uri
    }

    /// The file whose certificate ends first, of those with less than a quarter of their life left.
    #[must_use]
    pub fn ends_soon(&self, now: Timestamp) -> Option<(&'static str, Timestamp)> {
        let ending = self.leaves().filter_map(|(file, _, certificate)| {
            let (begins, ends) = (certificate.not_before(), certificate.not_after());
            let life = ends.saturating_since(begins);
            (ends.saturating_since(now) < life / 4).then_some((file, ends))
        });
        ending.min_by_key(|(_, ends)| *ends)
    }

    /// When each certificate ends, by what it is for.
    #[must_use]
    pub fn ends(&self) -> Vec<(&'static str, Timestamp)> {
        let leaves = self.leaves();
        leaves
            .map(|(_, usage, certificate)| (usage, certificate.not_after()))
            .collect()
    }

    fn leaves(&self) -> impl Iterator<Item = (&'static str, &'static str, Certificate)> {
        let pairs = [
            ("tls.crt", "tls", &self.tls),
            ("log.crt", "log", &self.log),
            ("response.crt", "response", &self.response),
        ];
        pairs.into_iter().filter_map(|(file, usage, pair)| {
            let certificate = Certificate::parse(pair.chain.first()?).ok()?;
            Some((file, usage, certificate))
        })
    }
}

/// What a reload watches besides [`FILES`]: a folder written before there was a second issuing CA has none.
pub(crate) const ISSUERS: &str = "issuers.pem";
/// Every file of the folder that a reload watches.
pub(crate) const FILES: [&str; 9] = [
    "ca.crt",
    "tls.crt",
    "tls.key",
    "log.crt",
    "log.key",
    "response.crt",
    "response.key",
    "feed.toml",
    "signers.pem",
];

/// Which file is wrong.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error(
        "{}: {source}; correct `identity_dir`, or write the folder with \
         `agentca enforcer add NAME --env ENV --dns HOST --out DIR`",
        .path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its time is over.
    #[error("{}: the certificate ended at {not_after}: {advice}", .path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it ended.
        not_after: Timestamp,
        /// What to run.
        advice: &'static str,
    },
    /// The folder is of an enforcer of another environment than the configuration says.
    #[error(
        "{} is the folder of {uri}, but the configuration says `environment = \"{configured}\"`: \
         write `environment = \"{actual}\"` there, or name in `identity_dir` the folder of an \
         enforcer of `{configured}`, written by \
         `agentca enforcer add NAME --env {configured} --dns HOST --out DIR`",
        .dir.display()
    )]
    Environment {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        uri: SpiffeId,
        /// The environment of that one.
        actual: String,
        /// What the configuration says.
        configured: Environment,
    },
    /// Its content.
    #[error("{}: {message}; write the folder again with `agentca enforcer add NAME --env ENV --dns HOST --out DIR --force`", .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

fn key_pair(dir: &Path, name: &str) -> Result<KeyPair, CredentialsError> {
    let (crt, key_file) = (format!("{name}.crt"), format!("{name}.key"));
    let chain = decode_certs(&read(dir, &crt)?).map_err(|e| wrong(dir, &crt, &e))?;
    if chain.len() != 2 {
        return Err(wrong(
            dir,
            &crt,
            &"it must hold the leaf and its intermediate",
        ));
    }
    let text = zeroize::Zeroizing::new(read(dir, &key_file)?);
    let key = PrivateKey::from_pem(&text).map_err(|e| wrong(dir, &key_file, &e))?;
    Ok(KeyPair { key, chain })
}

fn tls_identity(
    dir: &Path,
    anchor: &TrustAnchor,
    tls: &KeyPair,
    now: Timestamp,
) -> Result<(Certificate, EnforcerIdentity), CredentialsError> {
    let leaf = tls.chain.first().map_or(&[][..], Vec::as_slice);
    let certificate = Certificate::parse(leaf).map_err(|e| wrong(dir, "tls.crt", &e))?;
    if certificate.not_after() < now {
        return Err(expired(dir, "tls.crt", certificate.not_after()));
    }
    let chain: Vec<&[u8]> = tls.chain.iter().map(Vec::as_slice).collect();
    anchor
        .verify(&chain, now, Role::Enforcer)
        .map_err(|e| wrong(dir, "tls.crt", &e))?;
    if certificate.public_key() != tls.key.public_key() {
        return Err(wrong(dir, "tls.key", &"it is not the key of tls.crt"));
    }
    match certificate.subject().clone() {
        Subject::Enforcer(identity) => Ok((certificate, identity)),
        _ => Err(wrong(
            dir,
            "tls.crt",
            &"it is not an enforcer's certificate",
        )),
    }
}

/// Checks a signer's chain against its origin and key; gives its notAfter.
fn signer_window(
    dir: &Path,
    name: &str,
    anchor: &TrustAnchor,
    pair: &KeyPair,
    origin: &LogOrigin,
    now: Timestamp,
) -> Result<Timestamp, CredentialsError> {
    let crt = format!("{name}.crt");
    let chain: Vec<&[u8]> = pair.chain.iter().map(Vec::as_slice).collect();
    let signer = anchor
        .verify_signer(&chain, origin)
        .map_err(|e| wrong(dir, &crt, &e))?;
    if signer.public_key() != pair.key.public_key() {
        return Err(wrong(
            dir,
            &format!("{name}.key"),
            &format!("it is not the key of {crt}"),
        ));
    }
    if signer.not_after() < now {
        return Err(expired(dir, &crt, signer.not_after()));
    }
    if now < signer.not_before() {
        let message = format!(
            "the certificate begins at {}: check the clock",
            signer.not_before()
        );
        return Err(wrong(dir, &crt, &message));
    }
    Ok(signer.not_after())
}

/// `signers.pem`: the authority's log signer and its witness, each leaf and intermediate.
fn signers(
    dir: &Path,
    anchor: &TrustAnchor,
    feed: &FeedFile,
) -> Result<(Chain, Chain), CredentialsError> {
    const FILE: &str = "signers.pem";
    let mut chains = decode_certs(&read(dir, FILE)?).map_err(|e| wrong(dir, FILE, &e))?;
    if chains.len() != 4 {
        let message = "it must hold the chains of the authority's log and of its witness";
        return Err(wrong(dir, FILE, &message));
    }
    let witness = chains.split_off(2);
    for (chain, key) in [
        (&chains, &feed.authority_key),
        (&witness, &feed.witness_key),
    ] {
        let origin: LogOrigin = key
            .name()
            .parse()
            .map_err(|e| wrong(dir, "feed.toml", &e))?;
        let refs: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let signer = anchor
            .verify_signer(&refs, &origin)
            .map_err(|e| wrong(dir, FILE, &e))?;
        if signer.public_key() != key.public_key() {
            let message = format!("the chain of `{origin}` is not of the key in feed.toml");
            return Err(wrong(dir, FILE, &message));
        }
    }
    Ok((chains, witness))
}

/// The CA of our own certificate, and those of `issuers.pem`.
fn issuers(
    dir: &Path,
    anchor: &TrustAnchor,
    tls: &KeyPair,
) -> Result<Vec<Certificate>, CredentialsError> {
    let mut ders: Chain = tls.chain.get(1).cloned().into_iter().collect();
    if dir.join(ISSUERS).exists() {
        let listed = decode_certs(&read(dir, ISSUERS)?).map_err(|e| wrong(dir, ISSUERS, &e))?;
        ders.extend(listed);
    }
    ders.sort_unstable();
    ders.dedup();
    let judge = |der: &Vec<u8>| anchor.issuing_ca(der);
    let judged: Result<Vec<Certificate>, _> = ders.iter().map(judge).collect();
    judged.map_err(|e| wrong(dir, ISSUERS, &e))
}

fn read(dir: &Path, name: &str) -> Result<String, CredentialsError> {
    let path = dir.join(name);
    std::fs::read_to_string(&path).map_err(|source| CredentialsError::Read { path, source })
}

fn wrong(dir: &Path, name: &str, message: &impl ToString) -> CredentialsError {
    CredentialsError::Wrong {
        path: dir.join(name),
        message: message.to_string(),
    }
}

/// With the TLS certificate a renewal proves who asks.
const ADD_AGAIN: &str = "what has ended cannot be renewed, so write the folder again with \
                         `agentca enforcer add NAME --env ENV --dns HOST --force --out DIR`";
const RENEW: &str = "renew it with `agentca renew DIR`";

fn expired(dir: &Path, name: &str, not_after: Timestamp) -> CredentialsError {
    CredentialsError::Expired {
        path: dir.join(name),
        not_after,
        advice: if name == "tls.crt" { ADD_AGAIN } else { RENEW },
    }
}

#[cfg(test)]
mod tests;
