//! Witnessing enforcers' logs by the rules of C2SP tlog-witness.
//!
//! What is co-signed is first a record of our own log: the heads of all enforcers that wait, at most
//! one record a second. So a witness that was restored from an older copy is found out by the
//! authority's own log.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agentca_auditlog::checkpoint::{Checkpoint, cosign};
use agentca_auditlog::note::{NoteError, NoteSigner, SignatureType, VerifierKey};
use agentca_identity::crypto::PublicKey;
use agentca_identity::spiffe::LogOrigin;
use agentca_identity::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::authority::change::{Clock, ProvenHead, Witness, WitnessVerdict};
use crate::authority::handle::Handle;
use crate::authority::refusal::Refusal;
use crate::authority::sequencer::Sequencer;
use crate::authority::state::{Held, State};

/// What an enforcer asks for.
#[derive(Debug)]
pub struct WitnessAsk {
    /// Who asks.
    pub enforcer: Handle,
    /// The size that it believes was confirmed last.
    pub old_size: u64,
    /// The proof from there.
    pub consistency: Vec<[u8; 32]>,
    /// The signed checkpoint.
    pub checkpoint: String,
    /// Its `stale_after`, when it follows the feed.
    pub stale_after: Option<Duration>,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witnessed {
    /// The cosignature line, and the size held from now on.
    Cosigned(String, u64),
    /// Refused; the log is held at this size.
    Held(u64),
}

/// Why a checkpoint is not even considered.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// It is not a checkpoint of the caller's log.
    #[error("the checkpoint is refused: {0}")]
    Checkpoint(String),
    /// No certificate of the caller's log is in force.
    #[error("no certificate of this log's key is in force; renew it")]
    NoKey,
    /// The change was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The cosignature failed.
    #[error("the cosignature failed: {0}")]
    Cosign(#[from] NoteError),
}

/// Asks the witness.
#[derive(Clone, Debug)]
pub struct WitnessQueue {
    queue: mpsc::Sender<Waiting>,
    sequencer: Arc<Sequencer>,
}

#[derive(Debug)]
struct Waiting {
    head: ProvenHead,
    reply: oneshot::Sender<Result<Witnessed, WitnessError>>,
}

impl WitnessQueue {
    /// The queue, and the task that serves it, which runs for ever.
    pub fn new(
        sequencer: Arc<Sequencer>,
        signer: NoteSigner,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, inbox) = mpsc::channel(MAX_WAITING);
        let serving = serve(Arc::clone(&sequencer), signer, inbox);
        (Self { queue, sequencer }, serving)
    }

    /// Judges a checkpoint and has it recorded and co-signed.
    pub async fn ask(&self, ask: WitnessAsk) -> Result<Witnessed, WitnessError> {
        let standing = self
            .sequencer
            .read(|state, clock| standing(state, clock, &ask.enforcer))?;
        let (origin, held, keys) = standing?;
        let checkpoint = open(&ask.checkpoint, &origin, &keys)?;
        if ask.old_size != held.size || checkpoint.size < held.size {
            return Ok(Witnessed::Held(held.size));
        }
        let older = Checkpoint {
            origin: origin.to_string(),
            size: held.size,
            root: held.root,
        };
        if let Err(error) = checkpoint.extends(&older, &ask.consistency) {
            tracing::warn!(%origin, held = held.size, %error, "a log that does not extend what was co-signed is refused");
            return Ok(Witnessed::Held(held.size));
        }
        let head = ProvenHead {
            enforcer: ask.enforcer,
            origin,
            from: (held.size, held.root),
            to: (checkpoint.size, checkpoint.root),
            stale_after_ms: ask
                .stale_after
                .and_then(|span| u64::try_from(span.as_millis()).ok()),
        };
        let (reply, answer) = oneshot::channel();
        let gone = || Refusal::Internal("the witness stopped".into());
        self.queue
            .send(Waiting { head, reply })
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The caller's log as it stands: origin, held head, keys in force.
fn standing(
    state: &State,
    clock: Clock,
    enforcer: &Handle,
) -> Result<(LogOrigin, Held, Vec<[u8; 32]>), WitnessError> {
    let known = state
        .enforcer(enforcer)
        .filter(|known| !known.removed)
        .ok_or_else(|| Refusal::UnknownEnforcer(enforcer.clone()))?;
    let in_force = |serial| {
        state
            .certificate(serial)
            .is_some_and(|it| it.in_force(clock.now))
    };
    let keys: Vec<[u8; 32]> = known
        .log_keys
        .iter()
        .filter(|(serial, _)| in_force(serial))
        .map(|(_, key)| *key)
        .collect();
    if keys.is_empty() {
        return Err(WitnessError::NoKey);
    }
    Ok((known.log_origin.clone(), known.held, keys))
}

/// The checkpoint, if one of the keys signed it.
fn open(note: &str, origin: &LogOrigin, keys: &[[u8; 32]]) -> Result<Checkpoint, WitnessError> {
    let mut last = String::from("no key");
    for raw in keys {
        let key = PublicKey::from_ed25519_raw(raw);
        let key = VerifierKey::new(&origin.to_string(), SignatureType::Ed25519, key)?;
        match Checkpoint::open(note.as_bytes(), &key) {
            Ok(checkpoint) => return Ok(checkpoint),
            Err(error) => last = error.to_string(),
        }
    }
    Err(WitnessError::Checkpoint(last))
}

async fn serve(sequencer: Arc<Sequencer>, signer: NoteSigner, mut inbox: mpsc::Receiver<Waiting>) {
    let mut next = Instant::now();
    loop {
        let batch = gather(&mut inbox, next).await;
        if batch.is_empty() {
            return;
        }
        next = Instant::now() + PACE;
        record(&sequencer, &signer, batch).await;
    }
}

/// Whoever waits at `not_before`, as far as one record holds them; nobody when the queue has ended.
async fn gather(inbox: &mut mpsc::Receiver<Waiting>, not_before: Instant) -> Vec<Waiting> {
    let mut waiting = Vec::new();
    if inbox.recv_many(&mut waiting, MAX_HEADS).await == 0 {
        return waiting;
    }
    tokio::time::sleep_until(not_before).await;
    while waiting.len() < MAX_HEADS
        && let Ok(more) = inbox.try_recv()
    {
        waiting.push(more);
    }
    waiting
}

/// One record over all heads, then the cosignatures.
async fn record(sequencer: &Sequencer, signer: &NoteSigner, batch: Vec<Waiting>) {
    let heads: Vec<ProvenHead> = batch.iter().map(|waiting| waiting.head.clone()).collect();
    let recorded = match sequencer.submit(Witness { heads }) {
        Ok(submitted) => match submitted.last() {
            Some(index) => sequencer.durable(index).await.map(|()| submitted.outcome),
            None => Ok(submitted.outcome),
        },
        Err(refusal) => Err(refusal),
    };
    match recorded {
        Ok(verdicts) => {
            for (Waiting { head, reply }, verdict) in batch.into_iter().zip(verdicts) {
                // Whoever asked may have gone; then nobody needs the answer.
                let _gone = reply.send(answer(head, verdict, signer));
            }
        }
        Err(refusal) => {
            for Waiting { reply, .. } in batch {
                let _gone = reply.send(Err(refusal.clone().into()));
            }
        }
    }
}

fn answer(
    head: ProvenHead,
    verdict: WitnessVerdict,
    signer: &NoteSigner,
) -> Result<Witnessed, WitnessError> {
    match verdict {
        WitnessVerdict::Recorded => {
            let (size, root) = head.to;
            let checkpoint = Checkpoint {
                origin: head.origin.to_string(),
                size,
                root,
            };
            let line = cosign(&checkpoint, Timestamp::now(), signer)?;
            Ok(Witnessed::Cosigned(line.to_string(), size))
        }
        WitnessVerdict::Held(size) => Ok(Witnessed::Held(size)),
        WitnessVerdict::Retired => Err(Refusal::EnforcerRemoved(head.enforcer).into()),
    }
}

/// The shortest time between two records.
const PACE: Duration = Duration::from_secs(1);
/// Heads in one record: even with the longest of names they stay below what a record may have.
const MAX_HEADS: usize = 128;
/// Enforcers that may wait at once.
const MAX_WAITING: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use agentca_auditlog::merkle::empty_root;

    use crate::authority::change::{AddEnforcer, Change, Decision, EnforcerKeys, LogChoice};
    use crate::testing::Made;

    struct Fail;

    impl Change for Fail {
        type Outcome = ();

        fn decide(self, _: &State, _: Clock) -> Result<Decision<()>, Refusal> {
            panic!("half-way");
        }
    }

    type Answer = oneshot::Receiver<Result<Witnessed, WitnessError>>;

    fn signer(made: &Made) -> NoteSigner {
        let key = made.keys.witness.key.clone();
        NoteSigner::new("example.org/ca/witness", SignatureType::Cosignature, key).unwrap()
    }

    /// Adds an enforcer that has no certificate yet.
    fn add(made: &Made, sequencer: &Sequencer, number: u32) -> (Handle, LogOrigin) {
        let name = format!("{number:0>64}");
        let enforcer = Handle {
            environment: "e".repeat(64).parse().unwrap(),
            name: name.parse().unwrap(),
        };
        let key = |kind: u8| {
            let mut key = [kind; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            key
        };
        let added = sequencer.submit(AddEnforcer {
            caller: made.admin.clone(),
            enforcer: enforcer.clone(),
            dns: Vec::new(),
            ip: Vec::new(),
            keys: EnforcerKeys {
                tls: key(1),
                log: key(2),
                response: key(3),
            },
            log: LogChoice::Keep,
            issuers: vec![vec![1]],
        });
        (enforcer, added.unwrap().outcome)
    }

    fn ask((enforcer, origin): &(Handle, LogOrigin), size: u64) -> (Waiting, Answer) {
        let head = ProvenHead {
            enforcer: enforcer.clone(),
            origin: origin.clone(),
            from: (0, empty_root()),
            to: (size, [1; 32]),
            stale_after_ms: Some(u64::MAX),
        };
        let (reply, answer) = oneshot::channel();
        (Waiting { head, reply }, answer)
    }

    #[tokio::test]
    async fn whoever_asks_twice_hears_what_will_be_held() {
        let made = Made::new(drop);
        let sequencer = made.sequencer(Vec::new());
        let edge = add(&made, &sequencer, 1);
        let (first, answered) = ask(&edge, 5);
        let (second, again) = ask(&edge, 7);
        record(&sequencer, &signer(&made), vec![first, second]).await;
        let answered = answered.await.unwrap().unwrap();
        assert!(
            matches!(answered, Witnessed::Cosigned(_, 5)),
            "{answered:?}"
        );
        assert_eq!(again.await.unwrap().unwrap(), Witnessed::Held(5));
    }

    #[tokio::test]
    async fn however_many_wait_each_record_holds_its_heads() {
        let made = Made::new(drop);
        let sequencer = made.sequencer(Vec::new());
        let (queue, mut inbox) = mpsc::channel(MAX_WAITING);
        let mut answers = Vec::new();
        for number in 0..1_000 {
            let (waiting, answer) = ask(&add(&made, &sequencer, number), 1);
            queue.try_send(waiting).unwrap();
            answers.push(answer);
        }
        drop(queue);
        loop {
            let batch = gather(&mut inbox, Instant::now()).await;
            if batch.is_empty() {
                break;
            }
            record(&sequencer, &signer(&made), batch).await;
        }
        for answer in answers {
            let answer = answer.await.unwrap().unwrap();
            assert!(matches!(answer, Witnessed::Cosigned(_, 1)), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_passed_on_as_it_is() {
        let made = Made::new(drop);
        let sequencer = Arc::new(made.sequencer(Vec::new()));
        let failing = Arc::clone(&sequencer);
        std::thread::spawn(move || failing.submit(Fail).map(drop))
            .join()
            .unwrap_err();
        let signer = signer(&made);
        let mut answers = Vec::new();
        let mut batch = Vec::new();
        for enforcer in ["edge-1", "edge-2"] {
            let origin = format!("example.org/prod/enforcer/{enforcer}");
            let head = ProvenHead {
                enforcer: Handle {
                    environment: "prod".parse().unwrap(),
                    name: enforcer.parse().unwrap(),
                },
                origin: origin.parse().unwrap(),
                from: (0, [0; 32]),
                to: (1, [1; 32]),
                stale_after_ms: None,
            };
            let (reply, answer) = oneshot::channel();
            batch.push(Waiting { head, reply });
            answers.push(answer);
        }
        record(&sequencer, &signer, batch).await;
        for answer in answers {
            let refused = answer.await.unwrap().unwrap_err();
            assert!(
                matches!(refused, WitnessError::Refused(Refusal::Internal(_))),
                "{refused}"
            );
        }
    }
}
