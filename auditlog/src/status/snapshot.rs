//! Snapshots of an environment's status, for enforcers that begin from nothing.
//!
//! Binary, integers big-endian, one form for one state:
//!
//! ```text
//! magic          8   "agcsnap" and the version 1
//! environment    u8 length, bytes
//! number         u64   the newest status record in it
//! hash           32    its leaf hash
//! issuers        u16 count; each u32 length, DER
//! agents         u32 count, by URI; each:
//!     uri            u16 length, bytes
//!     revoked_before u64   certificates issued by status records below have ended; 0: none
//!     restricted     u8    1: trust follows, 2: scopes follow, 3: both
//!     trust          u8    if restricted
//!     scopes         u16 count; each u8 length, bytes; if restricted
//! certificates   u64 count, by number; each:
//!     number         u64   of the status record that issued it
//!     serial         16
//!     agent          u32   place in the list above
//!     not_after      i64   Unix milliseconds
//!     fingerprint    32    SHA-256 of the DER
//!     revoked        u8    0 or 1
//! ```

use std::io::{self, Write};

use agentca_identity::crypto::Sha256;
use agentca_identity::name::Environment;
use agentca_identity::scope::ScopeSet;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use agentca_identity::time::Timestamp;
use agentca_identity::trust::TrustLevel;

use crate::merkle::Hash;

/// Everything an environment's status records up to `number` add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The environment.
    pub environment: Environment,
    /// The newest status record in it.
    pub number: u64,
    /// The leaf hash of that record.
    pub hash: Hash,
    /// The issuing CAs, DER.
    pub issuers: Vec<Vec<u8>>,
    /// Every agent, in order of its URI.
    pub agents: Vec<SnapshotAgent>,
    /// Every certificate that is still of interest, in order of its number.
    pub certificates: Vec<SnapshotCertificate>,
}

/// One agent of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotAgent {
    /// Who it is.
    pub uri: SpiffeId,
    /// Certificates issued by status records below this number have ended; 0 for none.
    pub revoked_before: u64,
    /// The highest trust level that counts, when lowered.
    pub trust: Option<TrustLevel>,
    /// The scopes that count, when lowered.
    pub scopes: Option<ScopeSet>,
}

/// One certificate of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotCertificate {
    /// The number of the status record that issued it.
    pub number: u64,
    /// Its serial.
    pub serial: Serial,
    /// The place of its agent in the snapshot's list.
    pub agent: u32,
    /// Its last second.
    pub not_after: Timestamp,
    /// SHA-256 of its DER.
    pub fingerprint: Hash,
    /// Whether it was revoked by itself.
    pub revoked: bool,
}

impl Snapshot {
    /// Writes the whole snapshot: SHA-256 of its bytes and their number.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn write(&self, out: impl Write) -> Result<(Hash, u64), SnapshotError> {
        let (environment, issuers) = (&self.environment, &self.issuers);
        SnapshotWriter::begin(out, environment, self.number, &self.hash, issuers)?
            .agents(&self.agents)?
            .certificates(self.certificates.len(), self.certificates.iter().copied())
    }

    /// Reads a whole snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`] for anything the writer does not write.
    pub fn read(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut rest = Reader(bytes);
        if rest.take(MAGIC.len())? != MAGIC {
            return Err(SnapshotError::Magic);
        }
        let length = usize::from(rest.u8()?);
        let environment = rest
            .text(length)?
            .parse()
            .map_err(|_| SnapshotError::Value)?;
        let number = rest.u64()?;
        let hash = rest.array()?;
        let mut issuers = Vec::new();
        for _ in 0..rest.u16()? {
            let length = usize::try_from(rest.u32()?).unwrap_or(usize::MAX);
            issuers.push(rest.take(length)?.to_vec());
        }
        let agents = rest.agents()?;
        let certificates = rest.certificates(agents.len(), number)?;
        if !rest.0.is_empty() {
            return Err(SnapshotError::Trailing);
        }
        Ok(Self {
            environment,
            number,
            hash,
            issuers,
            agents,
            certificates,
        })
    }
}

/// Writes a snapshot as it is gathered, so that it need not be in memory whole.
#[derive(Debug)]
pub struct SnapshotWriter<W> {
    out: Hashing<W>,
    agents: usize,
    number: u64,
}

impl<W: Write> SnapshotWriter<W> {
    /// Begins with what there is one of.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn begin(
        out: W,
        environment: &Environment,
        number: u64,
        hash: &Hash,
        issuers: &[Vec<u8>],
    ) -> Result<Self, SnapshotError> {
        let mut out = Hashing {
            out,
            sha256: Sha256::new(),
            length: 0,
        };
        let name = environment.to_string();
        out.put(MAGIC)?;
        out.put(&[count(name.len())?])?;
        out.put(name.as_bytes())?;
        out.put(&number.to_be_bytes())?;
        out.put(hash)?;
        out.put(&count::<u16>(issuers.len())?.to_be_bytes())?;
        for issuer in issuers {
            out.put(&count::<u32>(issuer.len())?.to_be_bytes())?;
            out.put(issuer)?;
        }
        Ok(Self {
            out,
            agents: 0,
            number,
        })
    }

    /// Adds all agents, in order of their URIs.
    ///
    /// # Errors
    /// [`SnapshotError`]; also when they are out of order.
    pub fn agents(mut self, agents: &[SnapshotAgent]) -> Result<Self, SnapshotError> {
        self.out.put(&count::<u32>(agents.len())?.to_be_bytes())?;
        let mut last: Option<String> = None;
        for agent in agents {
            let uri = agent.uri.to_string();
            if last.is_some_and(|last| last >= uri) {
                return Err(SnapshotError::Order);
            }
            self.out.put(&count::<u16>(uri.len())?.to_be_bytes())?;
            self.out.put(uri.as_bytes())?;
            self.out.put(&agent.revoked_before.to_be_bytes())?;
            let flags = u8::from(agent.trust.is_some()) | u8::from(agent.scopes.is_some()) << 1;
            self.out.put(&[flags])?;
            if let Some(trust) = agent.trust {
                self.out.put(&[u8::from(trust)])?;
            }
            if let Some(scopes) = &agent.scopes {
                self.out
                    .put(&count::<u16>(scopes.iter().count())?.to_be_bytes())?;
                for scope in scopes.iter() {
                    let scope = scope.to_string();
                    self.out.put(&[count(scope.len())?])?;
                    self.out.put(scope.as_bytes())?;
                }
            }
            last = Some(uri);
        }
        self.agents = agents.len();
        Ok(self)
    }

    /// Adds all certificates, in order of their numbers, and ends: SHA-256 of the bytes and their
    /// number.
    ///
    /// # Errors
    /// [`SnapshotError`]; also when they are out of order, or not as many as announced.
    pub fn certificates(
        mut self,
        announced: usize,
        certificates: impl IntoIterator<Item = SnapshotCertificate>,
    ) -> Result<(Hash, u64), SnapshotError> {
        self.out.put(&count::<u64>(announced)?.to_be_bytes())?;
        let (mut last, mut written) = (0, 0);
        for certificate in certificates {
            certificate.check(last, self.agents, self.number)?;
            last = certificate.number;
            written += 1;
            let mut bytes = [0; CERTIFICATE];
            let fields: [&[u8]; 6] = [
                &certificate.number.to_be_bytes(),
                certificate.serial.as_bytes(),
                &certificate.agent.to_be_bytes(),
                &certificate.not_after.millis().to_be_bytes(),
                &certificate.fingerprint,
                &[u8::from(certificate.revoked)],
            ];
            let mut place = &mut bytes[..];
            for field in fields {
                place.write_all(field)?;
            }
            self.out.put(&bytes)?;
        }
        if written != announced {
            return Err(SnapshotError::Order);
        }
        self.out.out.flush()?;
        Ok((self.out.sha256.finish(), self.out.length))
    }
}

impl SnapshotCertificate {
    fn check(&self, last: u64, agents: usize, newest: u64) -> Result<(), SnapshotError> {
        let known = usize::try_from(self.agent).is_ok_and(|agent| agent < agents);
        if self.number <= last || self.number > newest {
            Err(SnapshotError::Order)
        } else if known {
            Ok(())
        } else {
            Err(SnapshotError::Value)
        }
    }
}

#[derive(Debug)]
struct Hashing<W> {
    out: W,
    sha256: Sha256,
    length: u64,
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.sha256.update(bytes);
        self.length += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(self.out.write_all(bytes)?)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], SnapshotError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(SnapshotError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        self.take(N)?.try_into().map_err(|_| SnapshotError::Short)
    }

    fn u8(&mut self) -> Result<u8, SnapshotError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, SnapshotError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, SnapshotError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn text(&mut self, length: usize) -> Result<&'a str, SnapshotError> {
        std::str::from_utf8(self.take(length)?).map_err(|_| SnapshotError::Value)
    }

    fn agents(&mut self) -> Result<Vec<SnapshotAgent>, SnapshotError> {
        let mut agents = Vec::new();
        let mut last = "";
        for _ in 0..self.u32()? {
            let length = usize::from(self.u16()?);
            let uri = self.text(length)?;
            if uri <= last {
                return Err(SnapshotError::Order);
            }
            last = uri;
            agents.push(self.agent(uri)?);
        }
        Ok(agents)
    }

    fn agent(&mut self, text: &str) -> Result<SnapshotAgent, SnapshotError> {
        let uri = match text.parse() {
            Ok(uri @ SpiffeId::Agent { .. }) => uri,
            _ => return Err(SnapshotError::Value),
        };
        let revoked_before = self.u64()?;
        let flags = self.u8()?;
        if flags > 3 {
            return Err(SnapshotError::Value);
        }
        let trust = match flags & 1 {
            1 => Some(TrustLevel::try_from(self.u8()?).map_err(|_| SnapshotError::Value)?),
            _ => None,
        };
        let scopes = if flags & 2 == 2 {
            Some(self.scopes()?)
        } else {
            None
        };
        Ok(SnapshotAgent {
            uri,
            revoked_before,
            trust,
            scopes,
        })
    }

    fn scopes(&mut self) -> Result<ScopeSet, SnapshotError> {
        let mut texts = Vec::new();
        for _ in 0..self.u16()? {
            let length = usize::from(self.u8()?);
            texts.push(self.text(length)?);
        }
        let scopes = texts
            .iter()
            .map(|text| text.parse())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| SnapshotError::Value)?;
        ScopeSet::from_canonical(scopes).map_err(|_| SnapshotError::Value)
    }

    fn certificates(
        &mut self,
        agents: usize,
        newest: u64,
    ) -> Result<Vec<SnapshotCertificate>, SnapshotError> {
        let count = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        // The bytes must be there before memory is asked for.
        if self.0.len() / CERTIFICATE < count {
            return Err(SnapshotError::Short);
        }
        let mut certificates = Vec::with_capacity(count);
        let mut last = 0;
        for _ in 0..count {
            let certificate = SnapshotCertificate {
                number: self.u64()?,
                serial: Serial::from_bytes(self.array()?).map_err(|_| SnapshotError::Value)?,
                agent: self.u32()?,
                not_after: self.timestamp()?,
                fingerprint: self.array()?,
                revoked: match self.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(SnapshotError::Value),
                },
            };
            certificate.check(last, agents, newest)?;
            last = certificate.number;
            certificates.push(certificate);
        }
        Ok(certificates)
    }

    fn timestamp(&mut self) -> Result<Timestamp, SnapshotError> {
        let millis = i64::from_be_bytes(self.array()?);
        let time = Timestamp::from_millis(millis);
        if time.millis() == millis {
            Ok(time)
        } else {
            Err(SnapshotError::Value)
        }
    }
}

fn count<T: TryFrom<usize>>(length: usize) -> Result<T, SnapshotError> {
    T::try_from(length).map_err(|_| SnapshotError::Value)
}

const MAGIC: &[u8] = b"agcsnap\x01";
const CERTIFICATE: usize = 8 + 16 + 4 + 8 + 32 + 1;

/// Why bytes are not a snapshot, or one could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot of this version.
    #[error("not a snapshot of a known version")]
    Magic,
    /// It ends early.
    #[error("the snapshot is cut off")]
    Short,
    /// Bytes follow its end.
    #[error("bytes follow the snapshot's end")]
    Trailing,
    /// A list is out of order, or not as long as announced.
    #[error("a list of the snapshot is out of order")]
    Order,
    /// A value is not of its kind, or too large.
    #[error("a value of the snapshot is not of its kind")]
    Value,
    /// The output failed.
    #[error("could not write the snapshot: {0}")]
    Write(#[from] io::Error),
}
