//! The extensions of a certificate, each read for the subject that it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use x509_parser::certificate::TbsCertificate;

use super::encode;
use super::read::{ReadError, read_crl_point};
use super::subject::{
    AgentIdentity, AuthorityIdentity, CaKind, CrlUri, EnforcerIdentity, PersonIdentity, Subject,
};
use crate::der::{NotDer, Reader, tag};
use crate::name::{DnsName, TrustDomain};
use crate::profile::Pen;
use crate::profile::oid::{self, Own};
use crate::roles::Roles;
use crate::scope::ScopeSet;
use crate::spiffe::SpiffeId;
use crate::trust::TrustLevel;

/// The value of each extension there is.
#[derive(Default)]
pub(super) struct Extensions<'a> {
    standard: BTreeMap<&'static str, &'a [u8]>,
    own: BTreeMap<Own, &'a [u8]>,
    pen: Option<Pen>,
}

const AKI: &str = "authorityKeyIdentifier";
const SKI: &str = "subjectKeyIdentifier";
const KEY_USAGE: &str = "keyUsage";
const PURPOSES: &str = "extKeyUsage";
const NAMES: &str = "subjectAltName";
const CONSTRAINTS: &str = "basicConstraints";
const CRL_POINTS: &str = "cRLDistributionPoints";

impl<'a> Extensions<'a> {
    pub(super) fn collect(tbs: &TbsCertificate<'a>) -> Result<Self, ReadError> {
        let mut extensions = Self::default();
        for extension in tbs.extensions() {
            let id = extension.oid.as_bytes();
            let previous = if let Some(name) = standard_name(id) {
                extensions.standard.insert(name, extension.value)
            } else if let Some((pen, own)) = Own::from_oid(id) {
                if extensions.pen.is_some_and(|other| other != pen) {
                    return Err(ReadError::TwoPens);
                }
                extensions.pen = Some(pen);
                extensions.own.insert(own, extension.value)
            } else if extension.critical {
                return Err(ReadError::UnknownCritical(oid::dotted(id)));
            } else {
                return Err(ReadError::Unknown(oid::dotted(id)));
            };
            if previous.is_some() {
                return Err(ReadError::Duplicate(oid::dotted(id)));
            }
        }
        Ok(extensions)
    }

    fn standard(&self, name: &'static str) -> Result<&'a [u8], ReadError> {
        self.standard
            .get(name)
            .copied()
            .ok_or(ReadError::Missing(name))
    }

    fn own(&self, own: Own) -> Result<&'a [u8], ReadError> {
        self.own
            .get(&own)
            .copied()
            .ok_or(ReadError::Missing(own.name()))
    }

    pub(super) fn subject(&self, tbs: &TbsCertificate<'_>) -> Result<(Subject, Pen), ReadError> {
        let constraints = self.standard(CONSTRAINTS)?;
        let constraints = content(CONSTRAINTS, tag::SEQUENCE, constraints)?;
        if constraints.is_empty() {
            self.leaf()
        } else {
            self.ca(tbs)
        }
    }

    fn ca(&self, tbs: &TbsCertificate<'_>) -> Result<(Subject, Pen), ReadError> {
        for name in [NAMES, CRL_POINTS] {
            if self.standard.contains_key(name) {
                return Err(ReadError::Unexpected(name));
            }
        }
        self.only_own(&[])?;
        let (trust_domain, kind) = read_ca_name(tbs.subject.as_raw())?;
        Ok(match kind {
            CaKind::Root => (Subject::Root { trust_domain }, Pen::default()),
            CaKind::Issuing => (Subject::IssuingCa { trust_domain }, Pen::default()),
            CaKind::Signer => {
                let pen = self.signer_pen()?.ok_or(ReadError::Value(PURPOSES))?;
                (Subject::SignerCa { trust_domain }, pen)
            }
        })
    }

    fn leaf(&self) -> Result<(Subject, Pen), ReadError> {
        let names = Names::read(self.standard(NAMES)?)?;
        if let Some(pen) = self.signer_pen()? {
            self.only_own(&[])?;
            names.only_uri()?;
            return match SpiffeId::parse_signer(names.uri) {
                Ok(SpiffeId::LogSigner { origin }) => Ok((Subject::LogSigner { origin }, pen)),
                _ => Err(ReadError::Uri),
            };
        }
        let uri: SpiffeId = names.uri.parse().map_err(|_| ReadError::Uri)?;
        let pen = self.pen.unwrap_or_default();
        match uri {
            SpiffeId::Agent { .. } => {
                names.only_uri()?;
                Ok((Subject::Agent(self.agent(uri)?), pen))
            }
            SpiffeId::Person { .. } => {
                names.only_uri()?;
                self.only_own(&[Own::Roles])?;
                let roles = self.own_texts(Own::Roles, Roles::MAX)?;
                let roles = Roles::from_canonical(roles)
                    .map_err(|_| ReadError::Value(Own::Roles.name()))?;
                Ok((Subject::Person(PersonIdentity { uri, roles }), pen))
            }
            SpiffeId::Enforcer { .. } => {
                self.only_own(&[])?;
                let Names { uri: _, dns, ip } = names;
                Ok((Subject::Enforcer(EnforcerIdentity { uri, dns, ip }), pen))
            }
            SpiffeId::Authority { .. } => {
                self.only_own(&[])?;
                let Names { uri: _, dns, ip } = names;
                Ok((Subject::Authority(AuthorityIdentity { uri, dns, ip }), pen))
            }
            SpiffeId::LogSigner { .. } => Err(ReadError::Uri),
        }
    }

    fn agent(&self, uri: SpiffeId) -> Result<AgentIdentity, ReadError> {
        self.only_own(&[
            Own::Scopes,
            Own::Trust,
            Own::Owner,
            Own::Grant,
            Own::Delegation,
        ])?;
        let scopes = self
            .own_texts(Own::Scopes, ScopeSet::MAX)?
            .into_iter()
            .map(str::parse)
            .collect::<Result<Vec<_>, _>>()
            .and_then(ScopeSet::from_canonical)
            .map_err(|_| ReadError::Value(Own::Scopes.name()))?;
        let trust = u8::try_from(self.own_integer(Own::Trust)?)
            .ok()
            .and_then(|level| TrustLevel::try_from(level).ok())
            .ok_or(ReadError::Value(Own::Trust.name()))?;
        let owner = self.own(Own::Owner)?;
        let owner = read_whole(owner, |reader| reader.utf8())
            .ok()
            .and_then(|owner| owner.parse().ok())
            .ok_or(ReadError::Value(Own::Owner.name()))?;
        let grant = self.own_integer(Own::Grant)?;
        let lineage = self
            .own_texts(Own::Delegation, AgentIdentity::MAX_LINEAGE)?
            .into_iter()
            .map(|id| match id.parse::<SpiffeId>() {
                Ok(id @ SpiffeId::Agent { .. }) if id.trust_domain() == uri.trust_domain() => {
                    Ok(id)
                }
                _ => Err(ReadError::Value(Own::Delegation.name())),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(AgentIdentity {
            uri,
            scopes,
            trust,
            owner,
            grant,
            lineage,
        })
    }

    /// Refuses our extensions on certificates that they have no meaning on.
    fn only_own(&self, allowed: &[Own]) -> Result<(), ReadError> {
        match self.own.keys().find(|own| !allowed.contains(own)) {
            Some(own) => Err(ReadError::Unexpected(own.name())),
            None => Ok(()),
        }
    }

    fn own_integer(&self, own: Own) -> Result<u64, ReadError> {
        read_whole(self.own(own)?, |reader| reader.integer())
            .map_err(|_| ReadError::Value(own.name()))
    }

    fn own_texts(&self, own: Own, most: usize) -> Result<Vec<&'a str>, ReadError> {
        let mut reader = Reader::new(content(own.name(), tag::SEQUENCE, self.own(own)?)?);
        let mut texts = Vec::new();
        while !reader.is_empty() {
            if texts.len() == most {
                return Err(ReadError::Value(own.name()));
            }
            texts.push(reader.utf8().map_err(|_| ReadError::Value(own.name()))?);
        }
        Ok(texts)
    }

    /// The PEN of the key purpose if it is the signers'.
    fn signer_pen(&self) -> Result<Option<Pen>, ReadError> {
        let Some(purposes) = self.standard.get(PURPOSES) else {
            return Ok(None);
        };
        let mut purposes = Reader::new(content(PURPOSES, tag::SEQUENCE, purposes)?);
        let first = purposes
            .expect(tag::OID)
            .map_err(|_| ReadError::Value(PURPOSES))?;
        Ok(oid::read_signer_purpose(first))
    }

    /// The extensions whose values follow from the kind of subject.
    pub(super) fn check_fixed(&self, subject: &Subject, pen: Pen) -> Result<(), ReadError> {
        if self.standard(CONSTRAINTS)? != encode::basic_constraints(subject) {
            return Err(ReadError::Value(CONSTRAINTS));
        }
        if self.standard(KEY_USAGE)? != encode::key_usage(subject) {
            return Err(ReadError::Value(KEY_USAGE));
        }
        match (
            encode::extended_key_usage(subject, pen),
            self.standard.get(PURPOSES),
        ) {
            (None, None) => {}
            (Some(_), None) => return Err(ReadError::Missing(PURPOSES)),
            (None, Some(_)) => return Err(ReadError::Unexpected(PURPOSES)),
            (Some(expected), Some(found)) if expected == *found => {}
            (Some(_), Some(_)) => return Err(ReadError::Value(PURPOSES)),
        }
        self.standard(SKI).map(|_| ())
    }

    pub(super) fn authority_key_id(
        &self,
        subject: &Subject,
    ) -> Result<Option<[u8; 20]>, ReadError> {
        match (subject.ca_kind(), self.standard.get(AKI)) {
            (Some(CaKind::Root), None) => Ok(None),
            (Some(CaKind::Root), Some(_)) => Err(ReadError::Unexpected(AKI)),
            (_, None) => Err(ReadError::Missing(AKI)),
            (_, Some(value)) => {
                let id = content(AKI, tag::SEQUENCE, value)?;
                let id = content(AKI, tag::context(0), id)?;
                Ok(Some(id.try_into().map_err(|_| ReadError::Value(AKI))?))
            }
        }
    }

    pub(super) fn crl_uri(&self, subject: &Subject) -> Result<Option<CrlUri>, ReadError> {
        match (subject.has_crl_uri(), self.standard.get(CRL_POINTS)) {
            (false, None) => Ok(None),
            (false, Some(_)) => Err(ReadError::Unexpected(CRL_POINTS)),
            (true, None) => Err(ReadError::Missing(CRL_POINTS)),
            (true, Some(value)) => {
                let points = content(CRL_POINTS, tag::SEQUENCE, value)?;
                let point = content(CRL_POINTS, tag::SEQUENCE, points)?;
                read_whole(point, read_crl_point)
                    .map(Some)
                    .map_err(|_| ReadError::Value(CRL_POINTS))
            }
        }
    }
}

/// The names of a subjectAltName: exactly one URI, then hosts.
struct Names<'a> {
    uri: &'a str,
    dns: Vec<DnsName>,
    ip: Vec<IpAddr>,
}

impl<'a> Names<'a> {
    fn read(value: &'a [u8]) -> Result<Self, ReadError> {
        let wrong = ReadError::Value(NAMES);
        let mut reader = Reader::new(content(NAMES, tag::SEQUENCE, value)?);
        let (mut uris, mut dns, mut ip) = (Vec::new(), Vec::new(), Vec::new());
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| ReadError::Value(NAMES));
        while !reader.is_empty() {
            if let Ok(Some(name)) = reader.optional(tag::context(6)) {
                uris.push(text(name)?);
            } else if let Ok(Some(name)) = reader.optional(tag::context(2)) {
                dns.push(
                    text(name)?
                        .parse::<DnsName>()
                        .map_err(|_| ReadError::Value(NAMES))?,
                );
            } else {
                let address = reader.expect(tag::context(7)).map_err(|_| wrong.clone())?;
                ip.push(read_address(address).ok_or_else(|| wrong.clone())?);
            }
        }
        let repeats = |count: usize, distinct: usize| {
            count > EnforcerIdentity::MAX_HOSTS || count != distinct
        };
        let distinct_dns = dns.iter().collect::<BTreeSet<_>>().len();
        let distinct_ip = ip.iter().collect::<BTreeSet<_>>().len();
        if repeats(dns.len(), distinct_dns) || repeats(ip.len(), distinct_ip) {
            return Err(wrong);
        }
        match *uris.as_slice() {
            [uri] => Ok(Self { uri, dns, ip }),
            _ => Err(ReadError::UriCount(uris.len())),
        }
    }

    fn only_uri(&self) -> Result<(), ReadError> {
        if self.dns.is_empty() && self.ip.is_empty() {
            Ok(())
        } else {
            Err(ReadError::Value(NAMES))
        }
    }
}

fn standard_name(id: &[u8]) -> Option<&'static str> {
    match id {
        oid::AUTHORITY_KEY_ID => Some(AKI),
        oid::SUBJECT_KEY_ID => Some(SKI),
        oid::KEY_USAGE => Some(KEY_USAGE),
        oid::EXTENDED_KEY_USAGE => Some(PURPOSES),
        oid::SUBJECT_ALT_NAME => Some(NAMES),
        oid::BASIC_CONSTRAINTS => Some(CONSTRAINTS),
        oid::CRL_DISTRIBUTION_POINTS => Some(CRL_POINTS),
        _ => None,
    }
}

fn content<'a>(name: &'static str, tag: u8, value: &'a [u8]) -> Result<&'a [u8], ReadError> {
    Reader::only(tag, value).map_err(|_| ReadError::Value(name))
}

fn read_whole<'a, T>(
    bytes: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, NotDer>,
) -> Result<T, NotDer> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn read_ca_name(name: &[u8]) -> Result<(TrustDomain, CaKind), ReadError> {
    let (organization, common_name) =
        read_whole(name, read_two_attributes).map_err(|_| ReadError::CaName)?;
    let kind = CaKind::ALL
        .into_iter()
        .find(|kind| kind.common_name() == common_name);
    Ok((
        organization.parse().map_err(|_| ReadError::CaName)?,
        kind.ok_or(ReadError::CaName)?,
    ))
}

fn read_two_attributes<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, &'a str), NotDer> {
    let mut attributes = reader.nested(tag::SEQUENCE)?;
    let mut next = |expected: &[u8]| {
        let mut attribute = attributes.nested(tag::SET)?.nested(tag::SEQUENCE)?;
        if attribute.expect(tag::OID)? != expected {
            return Err(NotDer);
        }
        attribute.utf8()
    };
    let organization = next(oid::ORGANIZATION)?;
    let common_name = next(oid::COMMON_NAME)?;
    attributes.finish()?;
    Ok((organization, common_name))
}
