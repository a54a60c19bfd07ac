//! The status feed over real sockets: what followers get, what they confirm, and how an authority
//! that was rolled back finds out.

use std::time::{Duration, Instant};

use crate::support::{Enforcer, Running, Site, add_enforcer, issue, key, revoke_agent};
use agentca::serve::ServeError;
use agentca_auditlog::checkpoint::Checkpoint;
use agentca_auditlog::heartbeat::Heartbeat;
use agentca_auditlog::merkle::{Hash, leaf_hash};
use agentca_auditlog::note::VerifierKey;
use agentca_auditlog::status::{Snapshot, StatusEvent, StatusRecord};
use agentca_identity::crypto::sha256;
use agentca_proto as proto;
use agentca_proto::follow_request::Message as Ask;
use agentca_proto::follow_response::Message as Say;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// A follower that believes nothing it has not verified.
struct Follower {
    asks: mpsc::Sender<proto::FollowRequest>,
    says: Streaming<proto::FollowResponse>,
    key: VerifierKey,
    number: u64,
    hash: Hash,
    snapshot: Vec<u8>,
    events: Vec<StatusEvent>,
    checkpoint: String,
    heartbeat: String,
}

impl Follower {
    async fn connect(
        site: &Site,
        running: &Running,
        enforcer: &Enforcer,
        place: (u64, Hash),
        floor: &str,
    ) -> Result<Self, Status> {
        Self::claim(site, running, enforcer, place, floor, "").await
    }

    async fn claim(
        site: &Site,
        running: &Running,
        enforcer: &Enforcer,
        (number, hash): (u64, Hash),
        floor: &str,
        heartbeat: &str,
    ) -> Result<Self, Status> {
        let mut client = site.feed(running, &enforcer.tls).await;
        let (asks, requests) = mpsc::channel(8);
        let hello = proto::Hello {
            environment: "prod".into(),
            status_number: number,
            status_hash: if number == 0 {
                Vec::new()
            } else {
                hash.to_vec()
            },
            floor_checkpoint: floor.to_owned(),
            stale_after_ms: 30_000,
            heartbeat: heartbeat.to_owned(),
        };
        let hello = proto::FollowRequest {
            message: Some(Ask::Hello(hello)),
        };
        asks.send(hello).await.unwrap();
        let mut says = client
            .follow(ReceiverStream::new(requests))
            .await?
            .into_inner();
        let key: VerifierKey = enforcer.added.authority_vkey.parse().unwrap();
        let Some(Say::Welcome(welcome)) = says.message().await?.unwrap().message else {
            panic!("no welcome");
        };
        let newest = Checkpoint::open(welcome.checkpoint.as_bytes(), &key).unwrap();
        let older = Checkpoint::open(floor.as_bytes(), &key).unwrap();
        let proof: Vec<Hash> = welcome
            .consistency
            .iter()
            .map(|hash| hash.as_slice().try_into().unwrap())
            .collect();
        newest.extends(&older, &proof).unwrap();
        let (snapshot, events, checkpoint) = (Vec::new(), Vec::new(), welcome.checkpoint);
        Ok(Self {
            asks,
            says,
            key,
            number,
            hash,
            snapshot,
            events,
            checkpoint,
            heartbeat: heartbeat.to_owned(),
        })
    }

    async fn fresh(site: &Site, running: &Running, enforcer: &Enforcer) -> Self {
        let floor = enforcer.added.authority_checkpoint.clone();
        Self::connect(site, running, enforcer, (0, [0; 32]), &floor)
            .await
            .unwrap()
    }

    /// Reads until a heartbeat; what it covers is in `events`. None when the stream ended.
    async fn next(&mut self) -> Option<u64> {
        loop {
            let said = tokio::time::timeout(Duration::from_secs(10), self.says.message()).await;
            match said.unwrap().ok()??.message.unwrap() {
                Say::Welcome(_) => panic!("a second welcome"),
                Say::Snapshot(chunk) => self.snapshot.extend_from_slice(&chunk.data),
                Say::Update(update) => {
                    update.records.iter().for_each(|record| self.take(record));
                    if update.heartbeat.is_empty() {
                        continue;
                    }
                    let beat = Heartbeat::open(update.heartbeat.as_bytes(), &self.key).unwrap();
                    assert_eq!(
                        (beat.status_number, beat.status_hash),
                        (self.number, self.hash)
                    );
                    self.heartbeat = update.heartbeat;
                    return Some(self.number);
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let record = StatusRecord::parse(bytes).unwrap();
        if self.number == 0 && !self.snapshot.is_empty() {
            let snapshot = Snapshot::read(&self.snapshot).unwrap();
            let digest = sha256(&self.snapshot);
            let covers = snapshot.number;
            assert_eq!(record.event, StatusEvent::Snapshot { digest, covers });
            (self.number, self.hash) = (snapshot.number, snapshot.hash);
        }
        assert_eq!((record.number, record.prev), (self.number + 1, self.hash));
        (self.number, self.hash) = (record.number, leaf_hash(bytes));
        self.events.push(record.event);
    }

    async fn confirm(&self) {
        let confirm = proto::Confirm {
            status_number: self.number,
        };
        let confirm = proto::FollowRequest {
            message: Some(Ask::Confirm(confirm)),
        };
        self.asks.send(confirm).await.unwrap();
    }

    /// Follows and confirms until an event is there.
    async fn until(&mut self, wanted: impl Fn(&StatusEvent) -> bool) {
        while !self.events.iter().any(&wanted) {
            self.next().await.expect("the stream ended");
            self.confirm().await;
        }
    }
}

fn is_revocation(event: &StatusEvent) -> bool {
    matches!(event, StatusEvent::AgentRevoked { .. })
}

fn is_snapshot(event: &StatusEvent) -> bool {
    matches!(event, StatusEvent::Snapshot { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_in_force_when_every_follower_has_confirmed() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let first = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    let second = add_enforcer(&mut admin, "edge-2", false).await.unwrap();
    // A third one exists, but has never served anybody: nobody waits for it.
    add_enforcer(&mut admin, "edge-3", false).await.unwrap();
    let mut followers = Vec::new();
    for enforcer in [&first, &second] {
        let mut follower = Follower::fresh(&site, &running, enforcer).await;
        follower.next().await.unwrap();
        follower.confirm().await;
        followers.push(follower);
    }
    admin.issue(issue("support-01", &key())).await.unwrap();
    let following = followers.into_iter().map(|mut follower| {
        tokio::spawn(async move {
            follower.until(is_revocation).await;
            follower
        })
    });
    let following: Vec<_> = following.collect();
    let asked = Instant::now();
    let revoked = loop {
        let answer = admin.revoke(revoke_agent("support-01")).await;
        let revoked = answer.unwrap().into_inner();
        // It waits for two seconds, and again when it is asked again.
        if revoked.lagging.is_empty() {
            break revoked;
        }
        assert!(asked.elapsed() < Duration::from_secs(20), "{revoked:?}");
    };
    assert_eq!(
        (revoked.enforcers, revoked.confirmed),
        (2, 2),
        "{revoked:?}"
    );
    let whole = asked.elapsed().as_secs_f64() * 1000.0;
    assert!(revoked.in_force_ms < whole, "{revoked:?}");
    let mut silent = following.into_iter().next().unwrap().await.unwrap();
    // One that follows but does not confirm is named.
    admin.issue(issue("support-02", &key())).await.unwrap();
    let revoked = admin
        .revoke(revoke_agent("support-02"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(revoked.enforcers, 2);
    assert!(
        revoked.lagging.contains(&"prod/edge-1".to_owned()),
        "{revoked:?}"
    );
    silent.next().await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_begins_with_the_snapshot_and_goes_on_where_it_was() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let enforcer = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    let mut follower = Follower::fresh(&site, &running, &enforcer).await;
    follower.until(is_snapshot).await;
    for name in ["a", "b", "c"] {
        admin.issue(issue(name, &key())).await.unwrap();
    }
    admin.revoke(revoke_agent("b")).await.unwrap();
    // The next enforcer's snapshot has all of that in it.
    let second = add_enforcer(&mut admin, "edge-2", false).await.unwrap();
    let snapshots = |follower: &Follower| follower.events.iter().filter(|e| is_snapshot(e)).count();
    while snapshots(&follower) < 2 {
        follower.next().await.unwrap();
    }
    let mut fresh = Follower::fresh(&site, &running, &second).await;
    fresh.next().await.unwrap();
    let snapshot = Snapshot::read(&fresh.snapshot).unwrap();
    assert_eq!(snapshot.agents.len(), 3);
    assert_eq!(
        snapshot
            .certificates
            .iter()
            .map(|it| it.revoked)
            .collect::<Vec<_>>(),
        [false, true, false]
    );
    assert!(fresh.events.iter().all(is_snapshot), "{:?}", fresh.events);
    assert_eq!((fresh.number, fresh.hash), (follower.number, follower.hash));

    // One that comes back gets what it missed and nothing else.
    let place = (follower.number, follower.hash);
    let floor = follower.checkpoint.clone();
    drop(follower);
    admin.issue(issue("d", &key())).await.unwrap();
    let mut back = Follower::connect(&site, &running, &enforcer, place, &floor)
        .await
        .unwrap();
    back.next().await.unwrap();
    assert!(back.snapshot.is_empty());
    assert_eq!(back.events.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_records_come_in_pieces_and_live_ones_in_order() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let enforcer = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    let mut early = Follower::fresh(&site, &running, &enforcer).await;
    early.until(is_snapshot).await;
    let place = (early.number, early.hash);
    let writers = (0..8).map(|writer| {
        let mut admin = admin.clone();
        tokio::spawn(async move {
            for count in 0..150 {
                admin
                    .issue(issue(&format!("agent-{writer}"), &key()))
                    .await
                    .unwrap();
                let _ = count;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    // It follows while others write, from where it was: never a gap, never twice.
    let floor = early.checkpoint.clone();
    let mut late = Follower::connect(&site, &running, &enforcer, place, &floor)
        .await
        .unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    while late.number < place.0 + 1200 {
        late.next().await.unwrap();
    }
    let mut again = Follower::connect(&site, &running, &enforcer, place, &floor)
        .await
        .unwrap();
    again.next().await.unwrap();
    assert_eq!((again.number, again.hash), (late.number, late.hash));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_enforcer_of_the_environment_follows_and_only_while_it_may() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let enforcer = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    let person = Enforcer {
        tls: site.admin.clone(),
        ..enforcer
    };
    let floor = person.added.authority_checkpoint.clone();
    let refused = Follower::connect(&site, &running, &person, (0, [0; 32]), &floor).await;
    assert_eq!(refused.err().unwrap().code(), Code::PermissionDenied);
    let enforcer = add_enforcer(&mut admin, "edge-2", false).await.unwrap();
    let mut follower = Follower::fresh(&site, &running, &enforcer).await;
    follower.next().await.unwrap();
    let remove = proto::RemoveEnforcerRequest {
        environment: "prod".into(),
        name: "edge-2".into(),
    };
    admin.remove_enforcer(remove).await.unwrap();
    while follower.next().await.is_some() {}
    let refused = Follower::connect(&site, &running, &enforcer, (0, [0; 32]), &floor).await;
    assert_eq!(refused.err().unwrap().code(), Code::PermissionDenied);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claimed_position_is_refused_and_stops_nobody() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let enforcer = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    let mut follower = Follower::fresh(&site, &running, &enforcer).await;
    follower.until(is_snapshot).await;
    let floor = enforcer.added.authority_checkpoint.clone();
    let heartbeat = follower.heartbeat.clone();
    for (ahead, hash) in [(1, None), (0, Some([7; 32]))] {
        let place = (follower.number + ahead, hash.unwrap_or(follower.hash));
        let refused = Follower::claim(&site, &running, &enforcer, place, &floor, &heartbeat).await;
        assert_eq!(refused.err().unwrap().code(), Code::FailedPrecondition);
    }
    let place = (follower.number, follower.hash);
    Follower::claim(&site, &running, &enforcer, place, &floor, &heartbeat)
        .await
        .unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_position_that_is_not_ours_stops_the_authority() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let enforcer = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    admin.issue(issue("support-01", &key())).await.unwrap();
    running.stop().await;
    let copy = site.folder.path().join("copy");
    copy_folder(&site.data(), &copy);
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let mut follower = Follower::fresh(&site, &running, &enforcer).await;
    follower.next().await.unwrap();
    admin.revoke(revoke_agent("support-01")).await.unwrap();
    follower.until(is_revocation).await;
    running.stop().await;
    // No checkpoint over the revocation was seen, the heartbeat alone says that it happened.
    let older = Running::start(&copy).await;
    let place = (follower.number, follower.hash);
    let floor = enforcer.added.authority_checkpoint.clone();
    let heartbeat = follower.heartbeat.clone();
    let refused = Follower::claim(&site, &older, &enforcer, place, &floor, &heartbeat).await;
    assert_eq!(refused.err().unwrap().code(), Code::FailedPrecondition);
    let ended = older.ended().await;
    assert!(
        matches!(&ended, ServeError::Stopped(why) if why.contains("older copy")),
        "{ended}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_restored_from_an_older_copy_stops() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let enforcer = add_enforcer(&mut admin, "edge-1", false).await.unwrap();
    admin.issue(issue("support-01", &key())).await.unwrap();
    running.stop().await;
    let copy = site.folder.path().join("copy");
    copy_folder(&site.data(), &copy);
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let mut follower = Follower::fresh(&site, &running, &enforcer).await;
    follower.next().await.unwrap();
    admin.revoke(revoke_agent("support-01")).await.unwrap();
    follower.until(is_revocation).await;
    running.stop().await;
    // Restarted, the real one goes on; its checkpoint is what the enforcer holds from then on.
    let running = site.start().await;
    let place = (follower.number, follower.hash);
    let floor = follower.checkpoint.clone();
    let again = Follower::connect(&site, &running, &enforcer, place, &floor)
        .await
        .unwrap();
    let floor = again.checkpoint.clone();
    running.stop().await;
    let older = Running::start(&copy).await;
    let refused = Follower::connect(&site, &older, &enforcer, (0, [0; 32]), &floor).await;
    assert_eq!(refused.err().unwrap().code(), Code::FailedPrecondition);
    assert!(matches!(older.ended().await, ServeError::Stopped(_)));
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
