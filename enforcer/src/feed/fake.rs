//! An authority for tests of the feed.

use agentca_auditlog::heartbeat::Heartbeat;
use agentca_auditlog::merkle::{Hash, leaf_hash};
use agentca_auditlog::note::{NoteSigner, SignatureType, VerifierKey};
use agentca_auditlog::record::Head;
use agentca_auditlog::status::{StatusEvent, StatusRecord};
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::name::Environment;
use agentca_identity::time::Timestamp;

use super::chain::Position;

const ORIGIN: &str = "example.org/ca";

/// An authority that says what it is told to.
pub(super) struct Authority {
    pub(super) signer: NoteSigner,
    pub(super) environment: Environment,
    pub(super) position: Position,
    pub(super) size: u64,
    pub(super) time: i64,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        Self {
            signer: NoteSigner::new(ORIGIN, SignatureType::Ed25519, key).unwrap(),
            environment: "prod".parse().unwrap(),
            position: Position::default(),
            size: 10,
            time: 1_800_000_000,
        }
    }

    pub(super) fn key(&self) -> &VerifierKey {
        self.signer.verifier()
    }

    pub(super) fn record(&mut self, event: StatusEvent) -> Vec<u8> {
        self.size += 1;
        let number = self.position.number + 1;
        let bytes = self.record_at(number, self.position.hash, event);
        self.position = Position {
            number,
            hash: leaf_hash(&bytes),
        };
        bytes
    }

    pub(super) fn record_at(&self, number: u64, prev: Hash, event: StatusEvent) -> Vec<u8> {
        let environment = self.environment.clone();
        let record = StatusRecord {
            environment,
            number,
            prev,
            seq: self.size,
            by: None,
            event,
        };
        let mut bytes = Vec::new();
        let head = Head::new(self.size, Timestamp::from_secs(self.time), ORIGIN);
        record.encode(&head, &mut bytes);
        bytes
    }

    pub(super) fn heartbeat(&mut self) -> String {
        self.time += 1;
        self.heartbeat_of(self.position)
    }

    pub(super) fn heartbeat_of(&self, position: Position) -> String {
        let heartbeat = Heartbeat {
            origin: ORIGIN.to_owned(),
            time: Timestamp::from_secs(self.time),
            checkpoint_size: self.size,
            checkpoint_root: [u8::try_from(self.size % 251).unwrap(); 32],
            environment: self.environment.clone(),
            status_number: position.number,
            status_hash: position.hash,
        };
        heartbeat.sign(&self.signer).unwrap()
    }
}
