//! From template to certificate: build, judge, sign, compare.

use std::cell::RefCell;

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber, SignatureAlgorithm, SigningKey,
};
use thiserror::Error;
use time::OffsetDateTime;

use super::template::Template;
use super::{BACKDATE, Pen, Validity, lifetime, oid};
use crate::certificate::{
    CaKind, Certificate, Facts, ReadError, Subject, assemble, own_extensions,
};
use crate::crypto::{CryptoError, KeyKind, PrivateKey, PublicKey};
use crate::grant::{AgentRequest, GrantViolation};
use crate::name::TrustDomain;
use crate::time::Timestamp;

/// A CA that can sign: its certificate, its key, and the PEN of its PKI.
#[derive(Clone, Debug)]
pub struct Issuer {
    certificate: Certificate,
    key: PrivateKey,
    pen: Pen,
}

impl Issuer {
    /// From a CA's certificate and the key that it certifies.
    pub fn new(certificate: Certificate, key: PrivateKey, pen: Pen) -> Result<Self, ProfileError> {
        if certificate.subject().ca_kind().is_none() {
            return Err(ProfileError::NotACa);
        }
        if certificate.public_key() != key.public_key() {
            return Err(ProfileError::WrongKey);
        }
        if certificate.pen().is_some_and(|named| named != pen) {
            return Err(ProfileError::Differs("private enterprise number"));
        }
        Ok(Self {
            certificate,
            key,
            pen,
        })
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The CA's key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The PEN under which it certifies.
    pub fn pen(&self) -> Pen {
        self.pen
    }

    /// Builds the bytes to be signed and judges them.
    pub fn prepare(&self, template: Template) -> Result<Prepared, ProfileError> {
        let tbs = build(&template, self.key.public_key(), self.pen)?;
        judge(&tbs, &template, &self.certificate, self.pen)?;
        Ok(Prepared {
            tbs,
            template,
            key: self.key.clone(),
        })
    }
}

/// Bytes to be signed that were judged good. Signing consumes them, so nothing unjudged is signed
/// and nothing is signed twice.
#[derive(Debug)]
pub struct Prepared {
    tbs: Vec<u8>,
    template: Template,
    key: PrivateKey,
}

impl Prepared {
    /// What is to be certified.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Signs, assembles, reads the certificate back as any peer would, and compares.
    pub fn sign(self) -> Result<Certificate, ProfileError> {
        let signature = self.key.sign(&self.tbs)?;
        let der = assemble(&self.tbs, self.key.kind(), &signature);
        let certificate = Certificate::parse(&der)?;
        if certificate.tbs() != self.tbs {
            return Err(ProfileError::Differs("signed bytes"));
        }
        compare(certificate.facts(), &self.template)?;
        Ok(certificate)
    }
}

/// A new root with its own signature, valid from [`BACKDATE`] before `now` for
/// [`lifetime::ROOT`].
pub fn create_root(
    trust_domain: TrustDomain,
    pen: Pen,
    key: &PrivateKey,
    now: Timestamp,
) -> Result<Issuer, ProfileError> {
    let validity = Validity::starting(now, lifetime::ROOT);
    let template = Template::root(trust_domain, key.public_key(), validity);
    let tbs = build(&template, key.public_key(), pen)?;
    compare(&Facts::read(&tbs)?, &template)?;
    let certificate = Prepared {
        tbs,
        template,
        key: key.clone(),
    }
    .sign()?;
    certificate.verify_signature(key.public_key())?;
    Issuer::new(certificate, key.clone(), pen)
}

/// The one judgement over bytes to be signed, whatever road they came by: they keep the profile, say
/// exactly what `template` wants, stay within the grant of an agent, and fit below `issuer`.
pub fn judge(
    tbs: &[u8],
    template: &Template,
    issuer: &Certificate,
    pen: Pen,
) -> Result<(), ProfileError> {
    let facts = Facts::read(tbs)?;
    compare(&facts, template)?;
    if issuer.subject().ca_kind() != Some(facts.subject.issuer_kind()) {
        return Err(ProfileError::WrongIssuer);
    }
    if facts.subject.trust_domain() != issuer.subject().trust_domain() {
        return Err(ProfileError::TrustDomain);
    }
    if facts.authority_key_id != Some(issuer.public_key().short_id())
        || facts.signed_with != issuer.public_key().kind()
    {
        return Err(ProfileError::WrongIssuer);
    }
    if facts.subject.names_pen() && facts.pen != pen {
        return Err(ProfileError::Differs("private enterprise number"));
    }
    if facts.public_key == *issuer.public_key() {
        return Err(ProfileError::IssuersKey);
    }
    if facts.not_after > issuer.not_after() {
        return Err(ProfileError::OutlivesIssuer);
    }
    judge_grant(&facts, template)
}

fn judge_grant(facts: &Facts, template: &Template) -> Result<(), ProfileError> {
    match (&facts.subject, &template.grant) {
        (Subject::Agent(agent), Some(grant)) => {
            let request = AgentRequest {
                scopes: agent.scopes.clone(),
                trust: agent.trust,
                lifetime: facts
                    .not_after
                    .saturating_since(facts.not_before + BACKDATE),
            };
            Ok(grant.judge(&request)?)
        }
        (Subject::Agent(_), None) => Err(ProfileError::NoGrant),
        (_, Some(_)) => Err(ProfileError::Differs("subject")),
        (_, None) => Ok(()),
    }
}

/// Every field that a template fixes, by name.
fn compare(facts: &Facts, template: &Template) -> Result<(), ProfileError> {
    let Facts {
        serial,
        signed_with: _,
        subject,
        not_before,
        not_after,
        public_key,
        authority_key_id: _,
        crl_uri,
        pen: _,
    } = facts;
    let same = [
        (*serial == template.serial, "serial number"),
        (*subject == template.subject, "subject"),
        (*not_before == template.validity.not_before, "notBefore"),
        (*not_after == template.validity.not_after, "notAfter"),
        (*public_key == template.public_key, "public key"),
        (*crl_uri == template.crl_uri, "URI of the CRL"),
    ];
    match same.into_iter().find(|(same, _)| !same) {
        Some((_, what)) => Err(ProfileError::Differs(what)),
        None => Ok(()),
    }
}

/// Why nothing was certified.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProfileError {
    /// The issuer's certificate is not a CA's.
    #[error("the issuer's certificate is not that of a CA")]
    NotACa,
    /// The issuer's key is not the one that its certificate names.
    #[error("the issuer's key does not belong to its certificate")]
    WrongKey,
    /// This CA does not certify this kind of subject.
    #[error("this CA does not certify this kind of subject")]
    WrongIssuer,
    /// The subject belongs to another tenant.
    #[error("the subject is of another trust domain than the CA")]
    TrustDomain,
    /// The key to be certified is the CA's own.
    #[error("the key to be certified is the CA's own")]
    IssuersKey,
    /// The certificate would be valid for longer than its issuer.
    #[error("the certificate would outlive its CA, ask for a shorter lifetime or rotate the CA")]
    OutlivesIssuer,
    /// An agent without a grant.
    #[error("an agent needs a grant before a certificate")]
    NoGrant,
    /// The request is wider than the agent's grant.
    #[error(transparent)]
    Grant(#[from] GrantViolation),
    /// What was built is not what was wanted.
    #[error("the {0} of the certificate is not what was asked for")]
    Differs(&'static str),
    /// What was built breaks the profile.
    #[error("the certificate would break the profile: {0}")]
    Profile(#[from] ReadError),
    /// A value can't be written into a certificate.
    #[error("the certificate can't be encoded")]
    Encoding,
    /// Signing failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// Has rcgen build the TBSCertificate, and takes it before anything is signed.
fn build(template: &Template, issuer_key: &PublicKey, pen: Pen) -> Result<Vec<u8>, ProfileError> {
    let issuer = issuer_parameters(&template.subject, issuer_key);
    let params = parameters(template, pen)?;
    let capture = Capture {
        key: RcgenKey(issuer_key),
        tbs: RefCell::default(),
    };
    // The signature is a placeholder: only the captured bytes are used.
    params
        .signed_by(
            &RcgenKey(&template.public_key),
            &rcgen::Issuer::from_params(&issuer, &capture),
        )
        .map_err(|_| ProfileError::Encoding)?;
    Ok(capture.tbs.into_inner())
}

fn parameters(template: &Template, pen: Pen) -> Result<CertificateParams, ProfileError> {
    let subject = &template.subject;
    let mut params = CertificateParams::default();
    params.not_before = date(template.validity.not_before)?;
    params.not_after = date(template.validity.not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(template.serial.as_bytes()));
    params.subject_alt_names = alt_names(subject)?;
    params.distinguished_name = distinguished_name(subject);
    params.is_ca = match subject.ca_kind() {
        Some(CaKind::Root) => IsCa::Ca(BasicConstraints::Constrained(1)),
        Some(CaKind::Issuing | CaKind::Signer) => IsCa::Ca(BasicConstraints::Constrained(0)),
        None => IsCa::ExplicitNoCa,
    };
    params.key_usages = match subject.ca_kind() {
        Some(CaKind::Root | CaKind::Issuing) => {
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]
        }
        Some(CaKind::Signer) => vec![KeyUsagePurpose::KeyCertSign],
        None => vec![KeyUsagePurpose::DigitalSignature],
    };
    params.extended_key_usages = purposes(subject, pen);
    if let Some(uri) = &template.crl_uri {
        params.crl_distribution_points = vec![CrlDistributionPoint {
            uris: vec![uri.as_str().to_owned()],
        }];
    }
    params.custom_extensions = own_extensions(subject)
        .into_iter()
        .map(|(own, content)| CustomExtension::from_oid_content(&oid::own_arcs(pen, own), content))
        .collect();
    params.use_authority_key_identifier_extension = subject.ca_kind() != Some(CaKind::Root);
    params.key_identifier_method =
        KeyIdMethod::PreSpecified(template.public_key.short_id().to_vec());
    Ok(params)
}

/// What rcgen wants to know of an issuer.
fn issuer_parameters(subject: &Subject, key: &PublicKey) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = ca_name(subject.trust_domain(), subject.issuer_kind());
    params.key_identifier_method = KeyIdMethod::PreSpecified(key.short_id().to_vec());
    params
}

fn distinguished_name(subject: &Subject) -> DistinguishedName {
    match subject.ca_kind() {
        Some(kind) => ca_name(subject.trust_domain(), kind),
        None => {
            let mut name = DistinguishedName::new();
            name.push(DnType::CommonName, subject.common_name());
            name
        }
    }
}

fn ca_name(trust_domain: &TrustDomain, kind: CaKind) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, trust_domain.as_str());
    name.push(DnType::CommonName, kind.common_name());
    name
}

fn alt_names(subject: &Subject) -> Result<Vec<SanType>, ProfileError> {
    let ascii = |text: &str| text.try_into().map_err(|_| ProfileError::Encoding);
    let mut names = Vec::new();
    if let Some(id) = subject.id() {
        names.push(SanType::URI(ascii(&id.to_string())?));
    }
    let (dns, ip) = subject.hosts();
    for name in dns {
        names.push(SanType::DnsName(ascii(name.as_str())?));
    }
    names.extend(ip.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

fn purposes(subject: &Subject, pen: Pen) -> Vec<ExtendedKeyUsagePurpose> {
    match subject {
        Subject::Root { .. } | Subject::IssuingCa { .. } => Vec::new(),
        Subject::SignerCa { .. } | Subject::LogSigner { .. } => {
            vec![ExtendedKeyUsagePurpose::Other(
                oid::signer_arcs(pen).to_vec(),
            )]
        }
        Subject::Agent(_) | Subject::Enforcer(_) | Subject::Person(_) | Subject::Authority(_) => {
            vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ]
        }
    }
}

fn date(time: Timestamp) -> Result<OffsetDateTime, ProfileError> {
    OffsetDateTime::from_unix_timestamp(time.secs()).map_err(|_| ProfileError::Encoding)
}

/// A public key as rcgen takes it.
struct RcgenKey<'a>(&'a PublicKey);

impl PublicKeyData for RcgenKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.raw()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.0.kind() {
            KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
        }
    }
}

/// A signing key that keeps what it is asked to sign.
struct Capture<'a> {
    key: RcgenKey<'a>,
    tbs: RefCell<Vec<u8>>,
}

impl PublicKeyData for Capture<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for Capture<'_> {
    fn sign(&self, tbs: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.tbs.replace(tbs.to_vec());
        Ok(Vec::new())
    }
}
