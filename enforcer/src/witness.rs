//! Having this enforcer's log witnessed (C2SP tlog-witness), and remembering the authority's.
//!
//! The authority co-signs a head of our log only when it extends every head it co-signed before: it
//! would notice a log that went back, and so this enforcer does not serve before it was confirmed.
//! In return the authority's newest checkpoint is recorded here, and must be extended for ever.

mod certificate;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agentca_auditlog::checkpoint::{SignedCheckpoint, verify_cosignature};
use agentca_auditlog::decision::{AuthorityCheckpoint, WitnessConfirmed};
use agentca_auditlog::log::Log;
use agentca_auditlog::note::{NoteError, SignatureLine};
use agentca_auditlog::record::signer_announced;
use agentca_proto::feed_client::FeedClient;
use agentca_proto::{WitnessRequest, WitnessResponse};
use tokio::sync::watch;
use tonic::transport::Channel;

use self::certificate::ChainError;
pub(crate) use self::certificate::NamedWitness;
use crate::credentials::Credentials;
use crate::floor::{Floor, FloorError};
use crate::journal::{self, JournalError};
use crate::setting::Settings;
use crate::status::{Readiness, Registry};

/// The task's means.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) settings: Arc<Settings>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) log: Arc<Log>,
    pub(crate) floor: Arc<Floor>,
    /// The connection of the feed, once that is verified.
    pub(crate) links: watch::Receiver<Option<Channel>>,
    /// The size that was co-signed last, as far as known.
    pub(crate) held: Arc<AtomicU64>,
    /// Its certificate, as our log names it.
    pub(crate) named: Arc<NamedWitness>,
    /// When the floor was recorded last.
    pub(crate) remembered: Option<Instant>,
    /// From one confirmation to the next: [`INTERVAL`].
    pub(crate) interval: Duration,
}

impl Witness {
    /// Asks at once and then every minute, for ever. The first confirmation opens this enforcer.
    pub(crate) async fn run(&mut self) -> Infallible {
        loop {
            let pause = match self.round().await {
                Ok(()) => {
                    self.registry.set_witnessed();
                    self.registry.set_readiness(Readiness::Ready);
                    self.interval
                }
                Err(error) if error.is_refusal() => {
                    self.registry.set_readiness(Readiness::Refused);
                    tracing::error!(%error, "the witness refused this enforcer's log: not serving");
                    self.interval
                }
                Err(error) => {
                    tracing::warn!(%error, "this enforcer's log was not witnessed");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One confirmation, of everything durable when it begins.
    pub(crate) async fn round(&mut self) -> Result<(), WitnessError> {
        let channel = self.link().await?;
        let floor = self.floor.newest();
        self.remember(&floor).await?;
        let own = publish(&self.log).await?;
        let mut client = FeedClient::new(channel);
        for _ in 0..ATTEMPTS {
            let asked = self.held.load(Ordering::Acquire);
            let response = self.ask(&mut client, &own, &floor).await?;
            match judge(&response, asked, own.checkpoint.size)? {
                Answer::Cosigned => return self.confirm(&own, &floor, &response).await,
                Answer::HeldAt(size) => self.held.store(size, Ordering::Release),
            }
        }
        Err(WitnessError::Unsettled)
    }

    /// Whether the feed is connected and verified right now.
    pub(crate) fn is_connected(&self) -> bool {
        self.links.borrow().is_some()
    }

    /// Records the floor for a restart, once a minute also when confirmations fail meanwhile.
    async fn remember(&mut self, floor: &SignedCheckpoint) -> Result<(), JournalError> {
        if self
            .remembered
            .is_some_and(|at| at.elapsed() < self.interval / 2)
        {
            return Ok(());
        }
        let seen = AuthorityCheckpoint { note: &floor.note };
        journal::record(&self.log, |head, out| seen.write(head, out)).await?;
        self.remembered = Some(Instant::now());
        Ok(())
    }

    async fn ask(
        &self,
        client: &mut FeedClient<Channel>,
        own: &SignedCheckpoint,
        floor: &SignedCheckpoint,
    ) -> Result<WitnessResponse, WitnessError> {
        let (log, size) = (Arc::clone(&self.log), own.checkpoint.size);
        let held = self.held.load(Ordering::Acquire);
        let proof = match held {
            0 => Vec::new(),
            _ => tokio::task::spawn_blocking(move || log.consistency(held, size))
                .await
                .map_err(|_| WitnessError::Stopped)?
                .map_err(|error| WitnessError::Log(error.to_string()))?,
        };
        let request = WitnessRequest {
            old_size: held,
            consistency: proof.iter().map(|hash| hash.to_vec()).collect(),
            checkpoint: own.note.clone(),
            floor_checkpoint: floor.note.clone(),
        };
        let asking = client.witness(request);
        let response = tokio::time::timeout(TIMEOUT, asking).await;
        Ok(response.map_err(|_| WitnessError::TimedOut)??.into_inner())
    }

    async fn confirm(
        &mut self,
        own: &SignedCheckpoint,
        floor: &SignedCheckpoint,
        response: &WitnessResponse,
    ) -> Result<(), WitnessError> {
        // Every field is named, so that a new one has to be decided upon.
        let WitnessResponse {
            cosignature,
            held_size: _,
            authority_checkpoint,
            authority_consistency,
            witness_chain,
        } = response;
        let credentials = self.settings.credentials();
        let line: SignatureLine = cosignature.parse().map_err(WitnessError::Cosignature)?;
        let time = verify_cosignature(&own.checkpoint, &line, &credentials.witness_key)
            .map_err(WitnessError::Cosignature)?;
        let key = &credentials.authority_key;
        self.floor
            .advance(floor, authority_checkpoint, authority_consistency, key)?;
        self.held.store(own.checkpoint.size, Ordering::Release);
        self.announce(witness_chain, &credentials).await?;
        let confirmed = WitnessConfirmed {
            checkpoint: &own.checkpoint,
            cosignature,
        };
        journal::record(&self.log, |head, out| confirmed.write(head, out)).await?;
        tracing::debug!(size = own.checkpoint.size, %time, "log witnessed");
        Ok(())
    }

    /// A renewed certificate of the witness is named before anything that it vouches for.
    async fn announce(
        &self,
        chain: &[Vec<u8>],
        credentials: &Credentials,
    ) -> Result<(), WitnessError> {
        let (anchor, witness) = (&credentials.anchor, &credentials.witness_key);
        if let Some(until) = self.named.judge(chain, anchor, witness)? {
            journal::record(&self.log, |head, out| signer_announced(head, out, chain)).await?;
            self.named.announced(until);
            tracing::info!(%until, "the witness's certificate was renewed");
        }
        Ok(())
    }

    async fn link(&mut self) -> Result<Channel, WitnessError> {
        loop {
            let linked = self.links.wait_for(Option::is_some);
            if let Ok(verified) = tokio::time::timeout(self.interval, linked).await {
                let channel = verified.map_err(|_| WitnessError::Stopped)?.clone();
                return channel.ok_or(WitnessError::Stopped);
            }
            // The authority is away. Denials go on being recorded, and the floor stays among the newest.
            if self.remembered.is_some() {
                let floor = self.floor.newest();
                self.remember(&floor).await?;
            }
        }
    }
}

/// What the witness answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Cosigned,
    /// It holds another size than we thought: so after a restart, and when an earlier ask of ours that was
    /// given up is recorded after all. A proof from there is asked for.
    HeldAt(u64),
}

/// Judges the answer to an ask that proved `size` records to extend `asked`. It is a refusal only when that
/// is the very size that is held.
fn judge(response: &WitnessResponse, asked: u64, size: u64) -> Result<Answer, WitnessError> {
    let held = response.held_size;
    if !response.cosignature.is_empty() {
        return Ok(Answer::Cosigned);
    }
    if held > size {
        return Err(WitnessError::WentBack { held, size });
    }
    if held == asked {
        return Err(WitnessError::Refused { held });
    }
    Ok(Answer::HeldAt(held))
}

/// A checkpoint over everything durable.
async fn publish(log: &Arc<Log>) -> Result<Arc<SignedCheckpoint>, WitnessError> {
    let log = Arc::clone(log);
    tokio::task::spawn_blocking(move || log.publish_now())
        .await
        .map_err(|_| WitnessError::Stopped)?
        .map_err(|error| WitnessError::Log(error.to_string()))
}

/// Why a log was not witnessed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WitnessError {
    #[error(
        "the witness holds {held} records of this log, it has {size}: it went back; is `data_dir` the one it had? A log that is lost goes on under `agentca enforcer add NAME --env ENV --dns HOST --new-log --force --out DIR`"
    )]
    WentBack { held: u64, size: u64 },
    #[error(
        "the log does not extend the {held} records that the witness holds; is `data_dir` the one it had? A log that is lost goes on under `agentca enforcer add NAME --env ENV --dns HOST --new-log --force --out DIR`"
    )]
    Refused { held: u64 },
    #[error("the witness did not answer: {} ({:?})", .0.message(), .0.code())]
    Status(#[from] tonic::Status),
    #[error("the witness did not answer in time")]
    TimedOut,
    #[error("what the witness holds of this log changed with every ask")]
    Unsettled,
    #[error("the cosignature cannot be believed: {0}")]
    Cosignature(NoteError),
    #[error("the witness's certificate cannot be believed: {0}")]
    Certificate(#[from] ChainError),
    #[error(transparent)]
    Floor(#[from] FloorError),
    #[error("the log: {0}")]
    Log(String),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("stopping")]
    Stopped,
}

impl WitnessError {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::WentBack { .. } | Self::Refused { .. })
    }
}

/// From one confirmation to the next.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);
/// How often one head is asked for.
const ATTEMPTS: u32 = 3;
const RETRY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use agentca_auditlog::record::Opening;
    use agentca_identity::time::Timestamp;

    use super::*;
    use crate::config::Config;
    use crate::journal::Floors;
    use crate::setting::Setting;
    use crate::testing;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn only_a_proof_from_what_is_held_can_be_refused() {
        let answer = |cosignature: &str, held_size| WitnessResponse {
            cosignature: cosignature.to_owned(),
            held_size,
            ..WitnessResponse::default()
        };
        assert_eq!(judge(&answer("x", 9), 4, 9).unwrap(), Answer::Cosigned);
        // Another ask of ours came in between.
        assert_eq!(judge(&answer("", 7), 4, 9).unwrap(), Answer::HeldAt(7));
        assert_eq!(judge(&answer("", 2), 4, 9).unwrap(), Answer::HeldAt(2));
        let refused = judge(&answer("", 4), 4, 9).unwrap_err();
        assert!(matches!(refused, WitnessError::Refused { held: 4 }));
        let back = judge(&answer("", 10), 4, 9).unwrap_err();
        assert!(matches!(back, WitnessError::WentBack { held: 10, size: 9 }));
        assert!(back.is_refusal() && refused.is_refusal());
    }

    #[tokio::test]
    async fn the_floor_stays_among_the_newest_records_while_the_authority_is_away() {
        let dir = tempfile::tempdir().unwrap();
        testing::Pki::new().write(dir.path(), HOUR);
        let text = "environment = \"prod\"\nlisten = \"127.0.0.1:0\"\nidentity_dir = \".\"\n\
                    data_dir = \"data\"\nauthority = \"https://127.0.0.1:1\"\n"
            .to_owned()
            + crate::testing::ROUTES;
        let config = Config::parse(&text, dir.path()).unwrap();
        let credentials =
            Credentials::load(dir.path(), &config.environment, Timestamp::now()).unwrap();
        let floor = credentials.checkpoint.clone();
        let named = Arc::new(NamedWitness::of(&credentials.witness_key, []));
        let (_log_dir, log) = testing::log(&Opening::default());
        let (_links, linked) = watch::channel(None);
        let interval = Duration::from_millis(20);
        let mut witness = Witness {
            registry: Registry::for_feed(config.stale_after),
            settings: Settings::new(Setting {
                config: Arc::new(config),
                credentials: Arc::new(credentials),
            }),
            log: Arc::clone(&log),
            floor: Arc::new(Floor::at(floor.clone())),
            links: linked,
            held: Arc::default(),
            // It was there before.
            remembered: Some(Instant::now()),
            named,
            interval,
        };
        let away = tokio::spawn(async move { witness.run().await });
        for index in 1..=3 {
            let written = tokio::time::timeout(HOUR / 60, log.durable_at(index)).await;
            written.expect("the floor is recorded").unwrap();
            let record = log.record(index).unwrap().unwrap();
            assert_eq!(AuthorityCheckpoint::read(&record).unwrap(), floor.note);
        }
        away.abort();
        // The log has to end before its directory.
        assert!(away.await.unwrap_err().is_cancelled());
        assert_eq!(Floors::find(&log, 0).unwrap().authority, Some(floor));
    }
}
