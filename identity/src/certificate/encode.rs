//! Facts to DER: the one form that the reader accepts.

use std::net::IpAddr;

use super::subject::CaKind;
use super::{CrlUri, Facts, Subject};
use crate::crypto::KeyKind;
use crate::der::{Writer, tag};
use crate::name::TrustDomain;
use crate::profile::Pen;
use crate::profile::oid::{self, Own};

/// A TBSCertificate.
pub(super) fn facts(facts: &Facts) -> Vec<u8> {
    let subject = &facts.subject;
    let mut writer = Writer::new();
    writer.sequence(|w| {
        w.nested(tag::context_constructed(0), |w| w.integer(2));
        w.tlv(tag::INTEGER, facts.serial.as_bytes());
        write_algorithm(w, facts.signed_with);
        write_ca_name(w, subject.trust_domain(), subject.issuer_kind());
        w.sequence(|w| {
            w.time(facts.not_before);
            w.time(facts.not_after);
        });
        match subject.ca_kind() {
            Some(kind) => write_ca_name(w, subject.trust_domain(), kind),
            None => w.sequence(|w| write_attribute(w, oid::COMMON_NAME, subject.common_name())),
        }
        w.raw(facts.public_key.spki_der());
        w.nested(tag::context_constructed(3), |w| {
            w.sequence(|w| write_extensions(w, facts))
        });
    });
    writer.finish()
}

/// A signed object around its TBS: certificate, CRL or CSR.
pub(crate) fn assemble(tbs: &[u8], signed_with: KeyKind, signature: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.sequence(|w| {
        w.raw(tbs);
        write_algorithm(w, signed_with);
        w.bits(signature);
    });
    writer.finish()
}

/// The AlgorithmIdentifier of a signature (RFC 5758, RFC 8410): no parameters for either kind.
pub(crate) fn write_algorithm(writer: &mut Writer, kind: KeyKind) {
    writer.sequence(|w| {
        w.oid(match kind {
            KeyKind::P256 => oid::ECDSA_WITH_SHA256,
            KeyKind::Ed25519 => oid::ED25519,
        });
    });
}

/// The distinguished name of a CA.
pub(crate) fn write_ca_name(writer: &mut Writer, trust_domain: &TrustDomain, kind: CaKind) {
    writer.sequence(|w| {
        write_attribute(w, oid::ORGANIZATION, trust_domain.as_str());
        write_attribute(w, oid::COMMON_NAME, kind.common_name());
    });
}

/// A DistributionPointName with one URI, as CRL pointers and CRLs hold it.
pub(crate) fn write_crl_point(writer: &mut Writer, uri: &CrlUri) {
    writer.nested(tag::context_constructed(0), |w| {
        w.nested(tag::context_constructed(0), |w| {
            w.tlv(tag::context(6), uri.as_str().as_bytes())
        });
    });
}

/// The value of basicConstraints.
pub(super) fn basic_constraints(subject: &Subject) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.sequence(|w| {
        if let Some(kind) = subject.ca_kind() {
            w.tlv(tag::BOOLEAN, &[0xff]);
            w.integer(match kind {
                CaKind::Root => 1,
                CaKind::Issuing | CaKind::Signer => 0,
            });
        }
    });
    writer.finish()
}

/// The value of keyUsage: a BIT STRING with its trailing zero bits cut.
pub(super) fn key_usage(subject: &Subject) -> Vec<u8> {
    const DIGITAL_SIGNATURE: [u8; 2] = [7, 0b1000_0000];
    const CERT_SIGN: [u8; 2] = [2, 0b0000_0100];
    const CERT_AND_CRL_SIGN: [u8; 2] = [1, 0b0000_0110];
    let mut writer = Writer::new();
    let bits = match subject.ca_kind() {
        None => DIGITAL_SIGNATURE,
        Some(CaKind::Signer) => CERT_SIGN,
        Some(CaKind::Root | CaKind::Issuing) => CERT_AND_CRL_SIGN,
    };
    writer.tlv(tag::BIT_STRING, &bits);
    writer.finish()
}

/// The value of extKeyUsage; none for the root and the issuing CA.
pub(super) fn extended_key_usage(subject: &Subject, pen: Pen) -> Option<Vec<u8>> {
    let mut writer = Writer::new();
    match subject {
        Subject::Root { .. } | Subject::IssuingCa { .. } => return None,
        Subject::SignerCa { .. } | Subject::LogSigner { .. } => {
            writer.sequence(|w| w.oid(&oid::signer_purpose(pen)));
        }
        Subject::Agent(_) | Subject::Enforcer(_) | Subject::Person(_) | Subject::Authority(_) => {
            writer.sequence(|w| {
                w.oid(oid::SERVER_AUTH);
                w.oid(oid::CLIENT_AUTH);
            });
        }
    }
    Some(writer.finish())
}

/// Our extensions for this subject, in order, each with its value.
pub(crate) fn own_extensions(subject: &Subject) -> Vec<(Own, Vec<u8>)> {
    match subject {
        Subject::Agent(agent) => vec![
            (
                Own::Scopes,
                texts(agent.scopes.iter().map(|scope| scope.as_str())),
            ),
            (
                Own::Trust,
                value(|w| w.integer(u64::from(u8::from(agent.trust)))),
            ),
            (Own::Owner, value(|w| w.utf8(agent.owner.as_str()))),
            (Own::Grant, value(|w| w.integer(agent.grant))),
            (
                Own::Delegation,
                texts(agent.lineage.iter().map(ToString::to_string)),
            ),
        ],
        Subject::Person(person) => {
            vec![(
                Own::Roles,
                texts(person.roles.iter().map(|role| role.as_str())),
            )]
        }
        _ => Vec::new(),
    }
}

/// In the order in which rcgen writes them.
fn write_extensions(w: &mut Writer, facts: &Facts) {
    let subject = &facts.subject;
    if let Some(id) = &facts.authority_key_id {
        write_extension(w, oid::AUTHORITY_KEY_ID, false, |w| {
            w.sequence(|w| w.tlv(tag::context(0), id));
        });
    }
    if let Some(id) = subject.id() {
        write_extension(w, oid::SUBJECT_ALT_NAME, false, |w| {
            w.sequence(|w| write_names(w, &id.to_string(), subject));
        });
    }
    write_extension(w, oid::KEY_USAGE, true, |w| w.raw(&key_usage(subject)));
    if let Some(purposes) = extended_key_usage(subject, facts.pen) {
        write_extension(w, oid::EXTENDED_KEY_USAGE, false, |w| w.raw(&purposes));
    }
    if let Some(uri) = &facts.crl_uri {
        write_extension(w, oid::CRL_DISTRIBUTION_POINTS, false, |w| {
            w.sequence(|w| w.sequence(|w| write_crl_point(w, uri)));
        });
    }
    write_extension(w, oid::SUBJECT_KEY_ID, false, |w| {
        w.tlv(tag::OCTET_STRING, &facts.public_key.short_id());
    });
    write_extension(w, oid::BASIC_CONSTRAINTS, true, |w| {
        w.raw(&basic_constraints(subject))
    });
    for (own, content) in own_extensions(subject) {
        write_extension(w, &own.oid(facts.pen), false, |w| w.raw(&content));
    }
}

pub(crate) fn write_extension(
    writer: &mut Writer,
    oid: &[u8],
    critical: bool,
    fill: impl FnOnce(&mut Writer),
) {
    writer.sequence(|w| {
        w.oid(oid);
        if critical {
            w.tlv(tag::BOOLEAN, &[0xff]);
        }
        w.nested(tag::OCTET_STRING, fill);
    });
}

fn write_names(writer: &mut Writer, uri: &str, subject: &Subject) {
    writer.tlv(tag::context(6), uri.as_bytes());
    let (dns, ip) = subject.hosts();
    for name in dns {
        writer.tlv(tag::context(2), name.as_str().as_bytes());
    }
    for address in ip {
        match address {
            IpAddr::V4(address) => writer.tlv(tag::context(7), &address.octets()),
            IpAddr::V6(address) => writer.tlv(tag::context(7), &address.octets()),
        }
    }
}

fn write_attribute(writer: &mut Writer, oid: &[u8], text: &str) {
    writer.nested(tag::SET, |w| {
        w.sequence(|w| {
            w.oid(oid);
            w.utf8(text);
        });
    });
}

fn value(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    fill(&mut writer);
    writer.finish()
}

fn texts<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> Vec<u8> {
    value(|w| w.sequence(|w| texts.for_each(|text| w.utf8(text.as_ref()))))
}
