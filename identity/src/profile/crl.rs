//! Certificate revocation lists (RFC 5280 section 5): version 2, one full list per shard.
//!
//! A list names its shard in a critical issuingDistributionPoint; its entries are sorted by serial
//! number, each with a reason unless that is `unspecified`. The reader takes this form and no
//! other, and keeps 26 bytes an entry, so that a million of them can be asked in memory.

use thiserror::Error;

use crate::certificate::{
    CaKind, Certificate, CrlUri, assemble, read_algorithm, read_crl_point, write_algorithm,
    write_ca_name, write_crl_point, write_extension,
};
use crate::crypto::{CryptoError, KeyKind};
use crate::der::{NotDer, Reader, Writer, tag};
use crate::name::TrustDomain;
use crate::profile::{Issuer, RevocationReason, oid};
use crate::serial::Serial;
use crate::time::Timestamp;

/// What a list is to say.
#[derive(Clone, Debug)]
pub struct CrlTemplate<R> {
    /// The index of the record that announces it.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// When it is no longer fresh.
    pub next_update: Timestamp,
    /// Where the shard is published.
    pub shard_uri: CrlUri,
    /// Everything revoked in the shard, in any order: serial, when, why.
    pub revoked: R,
}

/// One revoked certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial: Serial,
    /// Since when, in whole seconds.
    pub since: Timestamp,
    /// Why.
    pub reason: RevocationReason,
}

/// Signs a list with the issuing CA's key; the DER.
pub fn sign_crl<R>(issuer: &Issuer, template: CrlTemplate<R>) -> Result<Vec<u8>, CrlError>
where
    R: Iterator<Item = (Serial, Timestamp, RevocationReason)>,
{
    if issuer.certificate().subject().ca_kind() != Some(CaKind::Issuing) {
        return Err(CrlError::Issuer);
    }
    let CrlTemplate {
        number,
        this_update,
        next_update,
        shard_uri,
        revoked,
    } = template;
    if next_update <= this_update {
        return Err(CrlError::Times);
    }
    let mut entries: Vec<Entry> = revoked
        .map(|(serial, since, reason)| Entry {
            serial,
            since: since.secs(),
            code: reason.code(),
        })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.serial);
    if !entries.is_sorted_by(|left, right| left.serial < right.serial) {
        return Err(CrlError::Duplicate);
    }
    let head = Head {
        trust_domain: issuer.certificate().subject().trust_domain().clone(),
        signed_with: issuer.key().kind(),
        authority_key_id: issuer.key().public_key().short_id(),
        number,
        this_update: this_update.truncate_to_secs(),
        next_update: next_update.truncate_to_secs(),
        shard_uri,
    };
    let tbs = head.encode(&entries);
    let signature = issuer.key().sign(&tbs)?;
    Ok(assemble(&tbs, issuer.key().kind(), &signature))
}

/// A list whose signature, form and issuer were checked. Whether it is fresh, and whether its
/// number went back, is for the holder to ask.
#[derive(Clone, Debug)]
pub struct Crl {
    head: Head,
    entries: Vec<Entry>,
}

impl Crl {
    /// Reads a list and checks that the issuing CA `issuer` signed it.
    pub fn parse_verified(der: &[u8], issuer: &Certificate) -> Result<Self, CrlError> {
        if issuer.subject().ca_kind() != Some(CaKind::Issuing) {
            return Err(CrlError::Issuer);
        }
        let walked = Walked::read(der).map_err(|NotDer| CrlError::NotDer)?;
        let key = issuer.public_key();
        if walked.authority_key_id != key.short_id() {
            return Err(CrlError::Issuer);
        }
        if read_algorithm(walked.algorithm) != Some(key.kind()) {
            return Err(CrlError::Signature);
        }
        // Nothing large is read before the signature is known to be good.
        key.verify(walked.tbs, walked.signature)
            .map_err(|_| CrlError::Signature)?;
        let head = Head {
            trust_domain: issuer.subject().trust_domain().clone(),
            signed_with: key.kind(),
            authority_key_id: key.short_id(),
            number: walked.number,
            this_update: walked.this_update,
            next_update: walked.next_update,
            shard_uri: walked.shard_uri,
        };
        if head.next_update <= head.this_update {
            return Err(CrlError::Times);
        }
        let entries = read_entries(walked.entries)?;
        let tbs = head.encode(&entries);
        if tbs != walked.tbs || assemble(&tbs, key.kind(), walked.signature) != der {
            return Err(CrlError::NotCanonical);
        }
        Ok(Self { head, entries })
    }

    /// The index of the record that announced it; never repeats or goes back.
    pub fn number(&self) -> u64 {
        self.head.number
    }

    /// The key identifier of the issuing CA that signed it.
    pub fn authority_key_id(&self) -> [u8; 20] {
        self.head.authority_key_id
    }

    /// When it was made.
    pub fn this_update(&self) -> Timestamp {
        self.head.this_update
    }

    /// When it is no longer fresh.
    pub fn next_update(&self) -> Timestamp {
        self.head.next_update
    }

    /// The shard that it is for.
    pub fn shard_uri(&self) -> &CrlUri {
        &self.head.shard_uri
    }

    /// The entry of `serial`, if it is revoked.
    pub fn revoked(&self, serial: &Serial) -> Option<Revoked> {
        let at = self
            .entries
            .binary_search_by_key(serial, |entry| entry.serial)
            .ok()?;
        self.entries.get(at).and_then(Entry::revoked)
    }

    /// How many are revoked.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is revoked.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Everything revoked, sorted by serial number.
    pub fn iter(&self) -> impl Iterator<Item = Revoked> + '_ {
        self.entries.iter().filter_map(Entry::revoked)
    }
}

/// Why a list is refused, or can't be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CrlError {
    /// The structure is not that of a list of ours.
    #[error("not the DER of a CRL of this system")]
    NotDer,
    /// It is not by this CA, or this is no issuing CA.
    #[error("the CRL is not by this issuing CA")]
    Issuer,
    /// The signature does not verify.
    #[error("the signature of the CRL does not verify")]
    Signature,
    /// nextUpdate is not after thisUpdate.
    #[error("nextUpdate of the CRL is not after its thisUpdate")]
    Times,
    /// A serial number occurs twice.
    #[error("a serial number occurs twice in the CRL")]
    Duplicate,
    /// Another form of the same facts.
    #[error("the CRL is not in the one form that this system writes")]
    NotCanonical,
    /// Signing failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// An entry, small: a list may have a million.
#[derive(Clone, Copy, Debug)]
struct Entry {
    serial: Serial,
    since: i64,
    code: u8,
}

impl Entry {
    fn revoked(&self) -> Option<Revoked> {
        let reason = RevocationReason::from_code(self.code).ok()?;
        Some(Revoked {
            serial: self.serial,
            since: Timestamp::from_secs(self.since),
            reason,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.sequence(|w| {
            w.tlv(tag::INTEGER, self.serial.as_bytes());
            w.time(Timestamp::from_secs(self.since));
            // RFC 5280 section 5.3.1: `unspecified` is said by silence.
            if self.code != 0 {
                w.sequence(|w| {
                    write_extension(w, oid::REASON_CODE, false, |w| {
                        w.tlv(tag::ENUMERATED, &[self.code]);
                    });
                });
            }
        });
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, NotDer> {
        let mut entry = reader.nested(tag::SEQUENCE)?;
        let serial = Serial::try_from(entry.expect(tag::INTEGER)?).map_err(|_| NotDer)?;
        let since = entry.time()?.secs();
        let code = match entry.optional(tag::SEQUENCE)? {
            None => 0,
            Some(extensions) => {
                let mut extension = Reader::new(Reader::only(tag::SEQUENCE, extensions)?);
                if extension.expect(tag::OID)? != oid::REASON_CODE {
                    return Err(NotDer);
                }
                match Reader::only(tag::ENUMERATED, extension.expect(tag::OCTET_STRING)?)? {
                    [code] => *code,
                    _ => return Err(NotDer),
                }
            }
        };
        RevocationReason::from_code(code).map_err(|_| NotDer)?;
        Ok(Self {
            serial,
            since,
            code,
        })
    }
}

/// Everything but the entries.
#[derive(Clone, Debug)]
struct Head {
    trust_domain: TrustDomain,
    signed_with: KeyKind,
    authority_key_id: [u8; 20],
    number: u64,
    this_update: Timestamp,
    next_update: Timestamp,
    shard_uri: CrlUri,
}

impl Head {
    /// The TBSCertList.
    fn encode(&self, entries: &[Entry]) -> Vec<u8> {
        let mut writer = Writer::with_capacity(512 + entries.len() * 52);
        writer.sequence(|w| {
            w.integer(1);
            write_algorithm(w, self.signed_with);
            write_ca_name(w, &self.trust_domain, CaKind::Issuing);
            w.time(self.this_update);
            w.time(self.next_update);
            if !entries.is_empty() {
                w.sequence(|w| entries.iter().for_each(|entry| entry.write(w)));
            }
            w.nested(tag::context_constructed(0), |w| {
                w.sequence(|w| self.write_extensions(w))
            });
        });
        writer.finish()
    }

    fn write_extensions(&self, w: &mut Writer) {
        write_extension(w, oid::AUTHORITY_KEY_ID, false, |w| {
            w.sequence(|w| w.tlv(tag::context(0), &self.authority_key_id));
        });
        write_extension(w, oid::CRL_NUMBER, false, |w| w.integer(self.number));
        write_extension(w, oid::ISSUING_DISTRIBUTION_POINT, true, |w| {
            w.sequence(|w| write_crl_point(w, &self.shard_uri));
        });
    }
}

/// The parts of a list before anything is believed.
struct Walked<'a> {
    tbs: &'a [u8],
    this_update: Timestamp,
    next_update: Timestamp,
    entries: &'a [u8],
    authority_key_id: &'a [u8],
    number: u64,
    shard_uri: CrlUri,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Walked<'a> {
    fn read(der: &'a [u8]) -> Result<Self, NotDer> {
        let mut outer = Reader::new(Reader::only(tag::SEQUENCE, der)?);
        let (tbs, content) = outer.expect_whole(tag::SEQUENCE)?;
        let algorithm = Reader::only(tag::OID, outer.expect(tag::SEQUENCE)?)?;
        let signature = outer.bits()?;
        outer.finish()?;

        let mut inner = Reader::new(content);
        if inner.integer()? != 1 {
            return Err(NotDer);
        }
        inner.expect(tag::SEQUENCE)?;
        inner.expect(tag::SEQUENCE)?;
        let (this_update, next_update) = (inner.time()?, inner.time()?);
        let entries = inner.optional(tag::SEQUENCE)?.unwrap_or_default();
        let extensions = inner.expect(tag::context_constructed(0))?;
        inner.finish()?;

        let mut extensions = Reader::new(Reader::only(tag::SEQUENCE, extensions)?);
        let id = Reader::only(
            tag::SEQUENCE,
            extension(&mut extensions, oid::AUTHORITY_KEY_ID)?,
        )?;
        let authority_key_id = Reader::only(tag::context(0), id)?;
        let number = Reader::new(extension(&mut extensions, oid::CRL_NUMBER)?).integer()?;
        let point = extension(&mut extensions, oid::ISSUING_DISTRIBUTION_POINT)?;
        let shard_uri = read_crl_point(&mut Reader::new(Reader::only(tag::SEQUENCE, point)?))?;
        extensions.finish()?;
        Ok(Self {
            tbs,
            this_update,
            next_update,
            entries,
            authority_key_id,
            number,
            shard_uri,
            algorithm,
            signature,
        })
    }
}

/// The value of the next extension, which must be this one. What is skipped here (criticality,
/// what follows a value) is held by encoding the whole again.
fn extension<'a>(extensions: &mut Reader<'a>, oid: &[u8]) -> Result<&'a [u8], NotDer> {
    let mut extension = extensions.nested(tag::SEQUENCE)?;
    if extension.expect(tag::OID)? != oid {
        return Err(NotDer);
    }
    extension.optional(tag::BOOLEAN)?;
    extension.expect(tag::OCTET_STRING)
}

fn read_entries(content: &[u8]) -> Result<Vec<Entry>, CrlError> {
    // The smallest entry has 35 bytes.
    let mut entries: Vec<Entry> = Vec::with_capacity(content.len() / 35);
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        let entry = Entry::read(&mut reader).map_err(|NotDer| CrlError::NotDer)?;
        match entries.last() {
            Some(last) if last.serial == entry.serial => return Err(CrlError::Duplicate),
            Some(last) if last.serial > entry.serial => return Err(CrlError::NotCanonical),
            _ => entries.push(entry),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
