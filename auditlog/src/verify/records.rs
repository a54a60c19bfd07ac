//! What every record must be, and what some kinds of records must be besides.

use std::collections::HashMap;

use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;

use super::keys::KeyRing;
use super::levels::Levels;
use super::report::{Cosigned, Revocation};
use super::violation::{Reason, Violation};
use crate::decision::{CRL_ACCEPTED, WITNESS_CONFIRMED, read_witness_confirmed};
use crate::merkle::{Hash, leaf_hash};
use crate::record::{Envelope, LOG_OPENED, SIGNER_ANNOUNCED, read_announced, scan};
use crate::status::StatusRecord;

/// Follows the records of one log.
#[derive(Debug)]
pub(super) struct Records<'a> {
    pub(super) keys: KeyRing<'a>,
    origin: LogOrigin,
    origin_text: String,
    /// Status records are the authority's.
    has_status: bool,
    last_time: String,
    last_index: u64,
    /// Sizes that were co-signed, with rising times: 16 bytes for each, and there is one a minute.
    cosigned: Vec<(u64, Timestamp)>,
    cosignatures: u64,
    cosignatures_uncounted: u64,
    /// In an enforcer's log, once its first record was read.
    revocation: Option<Revocation>,
    /// The newest status record of each environment.
    status: HashMap<String, (u64, Hash)>,
}

impl<'a> Records<'a> {
    pub(super) fn new(origin: LogOrigin, keys: KeyRing<'a>) -> Self {
        Self {
            keys,
            origin_text: origin.to_string(),
            has_status: origin == LogOrigin::authority(origin.trust_domain().clone()),
            origin,
            last_time: String::new(),
            last_index: 0,
            cosigned: Vec::new(),
            cosignatures: 0,
            cosignatures_uncounted: 0,
            revocation: None,
            status: HashMap::new(),
        }
    }

    /// Checks record `index`.
    pub(super) fn take(
        &mut self,
        index: u64,
        bytes: &[u8],
        levels: &Levels<'_>,
    ) -> Result<(), Violation> {
        let wrong = |reason| Violation::record(index, reason);
        let envelope = scan(bytes).map_err(|e| wrong(Reason::Record(e)))?;
        if envelope.seq != index || envelope.log != self.origin_text {
            let (found, log) = (envelope.seq, envelope.log.to_owned());
            return Err(wrong(Reason::Elsewhere { found, log }));
        }
        self.take_time(index, &envelope)?;
        match envelope.kind {
            LOG_OPENED if index == 0 => {
                self.keys.open(bytes, &self.origin)?;
                self.revocation = self.revocation_mode();
            }
            _ if index == 0 => return Err(wrong(Reason::Announcement("its signers"))),
            LOG_OPENED => return Err(wrong(Reason::Announcement("anything at this place"))),
            SIGNER_ANNOUNCED => {
                let chain = read_announced(bytes).map_err(|e| wrong(Reason::Record(e)))?;
                self.keys.announce(index, &chain, &self.origin)?;
            }
            WITNESS_CONFIRMED => self.take_cosignature(index, bytes, levels)?,
            CRL_ACCEPTED => {
                if let Some(Revocation::Crl { accepted }) = &mut self.revocation {
                    *accepted += 1;
                }
            }
            _ if self.has_status && envelope.has_status => self.take_status(index, bytes)?,
            _ => {}
        }
        Ok(())
    }

    /// Times have one form, in which they sort like text.
    fn take_time(&mut self, index: u64, envelope: &Envelope<'_>) -> Result<(), Violation> {
        if self.last_time == envelope.time_text {
            self.last_index = index;
            return Ok(());
        }
        let wrong = |reason| Violation::record(index, reason);
        envelope.time().map_err(|e| wrong(Reason::Record(e)))?;
        if *envelope.time_text < *self.last_time {
            return Err(wrong(Reason::TimeGoesBack));
        }
        self.last_time.clear();
        self.last_time.push_str(envelope.time_text);
        self.last_index = index;
        Ok(())
    }

    fn take_cosignature(
        &mut self,
        index: u64,
        bytes: &[u8],
        levels: &Levels<'_>,
    ) -> Result<(), Violation> {
        let wrong = |reason| Violation::record(index, reason);
        let Some((key, signer)) = self.keys.witness() else {
            return Err(wrong(Reason::Announcement("a witness, yet one co-signed")));
        };
        let confirmed = read_witness_confirmed(bytes, &self.origin_text, key)
            .map_err(|e| wrong(Reason::Cosignature(e)))?;
        let (size, time) = (confirmed.checkpoint.size, confirmed.time);
        if size > index {
            return Err(wrong(Reason::CosignedRoot { size }));
        }
        match levels.root_at(size)? {
            Some(root) if root == confirmed.checkpoint.root => {}
            Some(_) => return Err(wrong(Reason::CosignedRoot { size })),
            // Behind the checkpoint, where the hash files do not reach yet: of which history it is
            // cannot be told, so it does not count yet.
            None => return Ok(()),
        }
        self.cosignatures += 1;
        // Outside its certificate's time a witness's word does not count, but it is no forgery.
        let seconds = signer.not_before().truncate_to_secs();
        if time < seconds || time > signer.not_after() {
            self.cosignatures_uncounted += 1;
            return Ok(());
        }
        if self.cosigned.last().is_none_or(|(_, last)| *last <= time) {
            self.cosigned.push((size, time));
        }
        Ok(())
    }

    fn take_status(&mut self, index: u64, bytes: &[u8]) -> Result<(), Violation> {
        let wrong = |reason| Violation::record(index, reason);
        let record = StatusRecord::parse(bytes).map_err(|e| wrong(Reason::Status(e)))?;
        let environment = record.environment.to_string();
        let (number, hash) = self.status.get(&environment).copied().unwrap_or_default();
        if record.number != number + 1 || record.prev != hash {
            return Err(wrong(Reason::StatusChain {
                environment,
                number,
            }));
        }
        self.status
            .insert(environment, (record.number, leaf_hash(bytes)));
        Ok(())
    }

    /// The time of the newest record.
    pub(super) fn time(&self) -> Result<Timestamp, Violation> {
        Timestamp::parse_rfc3339(&self.last_time).map_err(|_| {
            let reason = Reason::Record(crate::record::ScanError::Head("time"));
            Violation::record(self.last_index, reason)
        })
    }

    pub(super) fn newest_cosigned(&self) -> Option<Cosigned> {
        let witness = self.keys.witness_name()?;
        self.cosigned.last().map(|&(size, time)| Cosigned {
            witness,
            size,
            time,
        })
    }

    /// The largest size co-signed no later than `time`.
    pub(super) fn cosigned_until(&self, time: Timestamp) -> Option<u64> {
        let until = self
            .cosigned
            .iter()
            .filter(|(_, cosigned)| *cosigned <= time);
        until.map(|(size, _)| *size).max()
    }

    pub(super) fn cosignatures(&self) -> u64 {
        self.cosignatures
    }

    pub(super) fn cosignatures_uncounted(&self) -> u64 {
        self.cosignatures_uncounted
    }

    /// A log has a witness from its first record on or never, and it has one where there is a feed.
    fn revocation_mode(&self) -> Option<Revocation> {
        match self.keys.witness() {
            _ if self.has_status => None,
            Some(_) => Some(Revocation::Feed),
            None => Some(Revocation::Crl { accepted: 0 }),
        }
    }

    /// What the records so far say of it.
    pub(super) fn revocation(&self) -> Option<Revocation> {
        self.revocation
    }
}
