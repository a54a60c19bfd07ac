//! The state as rows, the form in which the index keeps it: one row per agent, person, enforcer,
//! certificate, revoked key, environment and status record.
//!
//! What can be derived from other rows is not written: serials, keys and ends follow from the
//! certificates, owners from the agents.

use agentca_identity::serial::Serial;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::handle::{Handle, Holder};
use super::state::{RowKey, State};

/// A row that this program did not write.
#[derive(Debug, thiserror::Error)]
#[error("a row of the index is not readable: {0}")]
pub struct RowError(String);

impl RowKey {
    /// The row's key: a letter for its kind, then what names it.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, name): (u8, Vec<u8>) = match self {
            Self::Agent(handle) => (b'a', handle.to_string().into()),
            Self::Person(name) => (b'p', name.as_str().into()),
            Self::Enforcer(handle) => (b'e', handle.to_string().into()),
            Self::Certificate { record, serial } => {
                // By record first: what is written in order is found in one place on the disk.
                let mut name = record.to_be_bytes().to_vec();
                name.extend_from_slice(serial.as_bytes());
                (b'c', name)
            }
            Self::RevokedKey(key) => (b'k', key.to_vec()),
            Self::Chain(environment) => (b'n', environment.as_str().into()),
            Self::Issuers(environment) => (b'i', environment.as_str().into()),
            Self::Status(environment, number) => {
                let mut name = Vec::from(environment.as_str());
                name.push(b'/');
                name.extend_from_slice(&number.to_be_bytes());
                (b's', name)
            }
        };
        let mut key = Vec::with_capacity(1 + name.len());
        key.push(kind);
        key.extend_from_slice(&name);
        key
    }

    /// Reads a row's key.
    pub fn decode(key: &[u8]) -> Result<Self, RowError> {
        let unreadable = || RowError("its key".into());
        let (kind, name) = key.split_first().ok_or_else(unreadable)?;
        let text = || std::str::from_utf8(name).map_err(|_| unreadable());
        Ok(match kind {
            b'a' => Self::Agent(handle(text()?)?),
            b'e' => Self::Enforcer(handle(text()?)?),
            b'p' => Self::Person(text()?.parse().map_err(refuse)?),
            b'c' => {
                let (record, serial) = name.split_first_chunk::<8>().ok_or_else(unreadable)?;
                Self::Certificate {
                    record: u64::from_be_bytes(*record),
                    serial: Serial::try_from(serial).map_err(refuse)?,
                }
            }
            b'k' => Self::RevokedKey(name.try_into().map_err(refuse)?),
            b'n' => Self::Chain(text()?.parse().map_err(refuse)?),
            b'i' => Self::Issuers(text()?.parse().map_err(refuse)?),
            b's' => {
                let (environment, number) = name.split_last_chunk::<8>().ok_or_else(unreadable)?;
                let environment = environment.strip_suffix(b"/").ok_or_else(unreadable)?;
                let environment = std::str::from_utf8(environment).map_err(refuse)?;
                let number = u64::from_be_bytes(*number);
                Self::Status(environment.parse().map_err(refuse)?, number)
            }
            _ => return Err(unreadable()),
        })
    }
}

impl State {
    /// What the row holds now; none when it is to be deleted.
    pub fn row(&self, key: &RowKey) -> Option<Vec<u8>> {
        match key {
            RowKey::Agent(handle) => self.agents.get(handle).and_then(write),
            RowKey::Person(name) => self.people.get(name).and_then(write),
            RowKey::Enforcer(handle) => self.enforcers.get(handle).and_then(write),
            RowKey::Certificate { serial, .. } => self.certificates.get(serial).and_then(write),
            RowKey::RevokedKey(key) => self.revoked_keys.contains(key).then(Vec::new),
            RowKey::Chain(environment) => self.environments.get(environment).and_then(write),
            RowKey::Issuers(environment) => self
                .environments
                .get(environment)
                .and_then(|chain| write(&chain.issuers)),
            RowKey::Status(environment, number) => {
                let position = usize::try_from(number.checked_sub(1)?).ok()?;
                let record = self.environments.get(environment)?.records.get(position)?;
                Some(record.to_be_bytes().to_vec())
            }
        }
    }

    /// Takes a row in; after the last one [`State::derive`] makes the rest. Rows come in any order,
    /// but an environment's status rows by number.
    pub fn insert_row(&mut self, key: RowKey, value: &[u8]) -> Result<(), RowError> {
        match key {
            RowKey::Agent(handle) => {
                self.agents.insert(handle, read(value)?);
            }
            RowKey::Person(name) => {
                self.people.insert(name, read(value)?);
            }
            RowKey::Enforcer(handle) => {
                self.enforcers.insert(handle, read(value)?);
            }
            RowKey::Certificate { serial, .. } => {
                self.certificates.insert(serial, read(value)?);
            }
            RowKey::RevokedKey(key) => {
                self.revoked_keys.insert(key);
            }
            RowKey::Chain(environment) => {
                let chain = self.environments.entry(environment).or_default();
                let (records, issuers) = (
                    std::mem::take(&mut chain.records),
                    std::mem::take(&mut chain.issuers),
                );
                *chain = read(value)?;
                chain.records = records;
                chain.issuers = issuers;
            }
            RowKey::Issuers(environment) => {
                self.environments.entry(environment).or_default().issuers = read(value)?;
            }
            RowKey::Status(environment, number) => {
                let records = &mut self.environments.entry(environment).or_default().records;
                if u64::try_from(records.len()).ok() != number.checked_sub(1) {
                    return Err(RowError(format!("status number {number} is out of order")));
                }
                records.push(u64::from_be_bytes(value.try_into().map_err(refuse)?));
            }
        }
        Ok(())
    }

    /// Makes what follows from the rows.
    pub fn derive(&mut self) -> Result<(), RowError> {
        for chain in self.environments.values() {
            if u64::try_from(chain.records.len()).ok() != Some(chain.number) {
                return Err(RowError("a status chain has gaps".into()));
            }
        }
        for (handle, agent) in &self.agents {
            self.owners
                .entry(agent.owner.clone())
                .or_default()
                .insert(handle.clone());
        }
        let mut by_record: Vec<(u64, Serial)> = self
            .certificates
            .iter()
            .map(|(serial, issued)| (issued.record, *serial))
            .collect();
        by_record.sort_unstable();
        for (_, serial) in by_record {
            self.derive_from(serial)?;
        }
        Ok(())
    }

    fn derive_from(&mut self, serial: Serial) -> Result<(), RowError> {
        let unknown = || RowError(format!("certificate {serial} is nobody's"));
        let issued = self.certificates.get_mut(&serial).ok_or_else(unknown)?;
        self.keys.insert(issued.facts.key, serial);
        self.expiry.insert((issued.facts.not_after, serial));
        let serials = match &mut issued.holder {
            Holder::Agent(handle) => {
                // One copy of each name is enough for a million certificates.
                let (shared, _) = self.agents.get_key_value(handle).ok_or_else(unknown)?;
                *handle = shared.clone();
                &mut self.agents.get_mut(handle).ok_or_else(unknown)?.serials
            }
            Holder::Person(name) => &mut self.people.get_mut(name).ok_or_else(unknown)?.serials,
            Holder::Enforcer(handle) | Holder::Signer(handle, _) => {
                &mut self.enforcers.get_mut(handle).ok_or_else(unknown)?.serials
            }
            Holder::Authority(_) => return Ok(()),
        };
        serials.push(serial);
        if let (Holder::Signer(handle, origin), Some(key)) = (&issued.holder, issued.facts.ed25519)
            && let Some(enforcer) = self.enforcers.get_mut(handle)
            && enforcer.log_origin == *origin
        {
            enforcer.log_keys.push((serial, key));
        }
        Ok(())
    }
}

fn handle(text: &str) -> Result<Handle, RowError> {
    let (environment, name) = text
        .split_once('/')
        .ok_or_else(|| RowError("its key".into()))?;
    Ok(Handle {
        environment: environment.parse().map_err(refuse)?,
        name: name.parse().map_err(refuse)?,
    })
}

/// What cannot be written becomes a row that cannot be read: the next start finds it and makes the
/// index anew.
fn write<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    Some(postcard::to_allocvec(value).unwrap_or_default())
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, RowError> {
    postcard::from_bytes(value).map_err(refuse)
}

fn refuse(error: impl ToString) -> RowError {
    RowError(error.to_string())
}
