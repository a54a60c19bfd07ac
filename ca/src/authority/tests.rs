//! The sequencer and the state against a plain model: whatever the order of what is asked, nothing is
//! issued after a revocation, and log, index and memory agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentca_auditlog::status::StatusEvent;
use agentca_identity::certificate::AgentIdentity;
use agentca_identity::crypto::{KeyKind, PrivateKey, PublicKey};
use agentca_identity::profile::RevocationReason;
use agentca_identity::scope::{Scope, ScopeSet};
use agentca_identity::serial::Serial;
use agentca_identity::trust::TrustLevel;
use proptest::prelude::*;
use tempfile::TempDir;

use super::change::{
    AnnounceSigner, Caller, CertifyAgent, Change, Clock, Decision, PlanIssue, Reinstate, Restrict,
    Revoke, RevokeTarget, SetGrant, renewal_rights,
};
use super::event::{Body, Draft, Entry, Event};
use super::handle::Handle;
use super::refusal::Refusal;
use super::replay::replay;
use super::sequencer::{Listener, Sequencer};
use super::state::{RowKey, State};
use crate::mint::{Mint, Minted};
use crate::testing::Made;

type Rows = Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>;

/// An authority without sockets.
struct Lab {
    sequencer: Sequencer,
    mint: Mint,
    admin: Caller,
    /// What the index would hold.
    rows: Rows,
    _folder: TempDir,
}

impl Lab {
    fn new() -> Self {
        let rows = Rows::default();
        let keep = |rows: &Rows, changed: &[(Vec<u8>, Option<Vec<u8>>)]| {
            let mut rows = rows.lock().unwrap();
            for (key, value) in changed.iter().cloned() {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
        };
        let made = Made::new(|applied| keep(&rows, &applied.rows));
        let theirs = Arc::clone(&rows);
        let listener: Listener = Box::new(move |applied| keep(&theirs, &applied.rows));
        Self {
            sequencer: made.sequencer(vec![listener]),
            mint: made.mint(2),
            admin: made.admin,
            rows,
            _folder: made.folder,
        }
    }

    /// The road of `service::issue`, without waiting for the disk.
    fn issue(&self, agent: &Handle, scopes: &ScopeSet, key: &PublicKey) -> Result<Serial, Refusal> {
        let minted = self.plan_and_mint(agent, scopes, key)?;
        self.certify(self.admin.clone(), agent, &minted)
    }

    fn plan_and_mint(
        &self,
        agent: &Handle,
        scopes: &ScopeSet,
        key: &PublicKey,
    ) -> Result<Minted, Refusal> {
        let planned = self.sequencer.submit(PlanIssue {
            caller: self.admin.clone(),
            agent: agent.clone(),
            owner: Some("alice@example.org".parse().unwrap()),
            scopes: Some(scopes.clone()),
            trust: Some(TrustLevel::L2),
            lifetime: None,
            groups: Vec::new(),
            key: key.key_id(),
            default_lifetime: Duration::from_secs(3600),
            issuers: vec![vec![1]],
        })?;
        let newest = planned.last();
        let plan = planned.outcome;
        let identity = AgentIdentity {
            uri: agent.agent(&"example.org".parse().unwrap()),
            scopes: plan.request.scopes,
            trust: plan.request.trust,
            owner: plan.owner,
            grant: plan.standing.or(newest).unwrap(),
            lineage: Vec::new(),
        };
        Ok(self
            .mint
            .agent(identity, &plan.grant, key, plan.request.lifetime)
            .unwrap())
    }

    fn certify(&self, caller: Caller, agent: &Handle, minted: &Minted) -> Result<Serial, Refusal> {
        let serial = minted.certificate.serial();
        self.sequencer
            .submit(CertifyAgent {
                caller,
                agent: agent.clone(),
                serial,
                certificate: minted.certificate.der().to_vec(),
                facts: minted.facts.clone(),
            })
            .map(|_| serial)
    }

    fn revoke(&self, target: RevokeTarget) -> Result<(), Refusal> {
        let reason = RevocationReason::KeyCompromise;
        self.sequencer
            .submit(Revoke {
                caller: self.admin.clone(),
                target,
                reason,
            })
            .map(|_| ())
    }

    fn reinstate(&self, agent: &Handle) -> Result<(), Refusal> {
        let Handle { environment, name } = agent.clone();
        let change = Reinstate {
            caller: self.admin.clone(),
            environment: Some(environment),
            name,
        };
        self.sequencer.submit(change).map(|_| ())
    }

    fn state(&self) -> State {
        self.sequencer.read(|state, _| state.clone()).unwrap()
    }

    fn replayed(&self) -> State {
        let log = self.sequencer.log();
        let newest = self.state().applied();
        log.wait_blocking(newest - 1).unwrap();
        let mut state = State::new("example.org".parse().unwrap());
        replay(&mut state, log, |_| {}).unwrap();
        state
    }

    /// The state as the index gives it back.
    fn reloaded(&self) -> State {
        let live = self.state();
        let mut state = State::new("example.org".parse().unwrap());
        for (key, value) in self.rows.lock().unwrap().iter() {
            state
                .insert_row(RowKey::decode(key).unwrap(), value)
                .unwrap();
        }
        state.derive().unwrap();
        state.applied = live.applied;
        state.time = live.time;
        state
    }
}

fn agent(environment: &str, name: &str) -> Handle {
    Handle {
        environment: environment.parse().unwrap(),
        name: name.parse().unwrap(),
    }
}

fn scopes(names: &[&str]) -> ScopeSet {
    ScopeSet::new(names.iter().map(|name| name.parse::<Scope>().unwrap())).unwrap()
}

fn key() -> PublicKey {
    PrivateKey::generate(KeyKind::P256)
        .unwrap()
        .public_key()
        .clone()
}

fn target(agent: &Handle) -> RevokeTarget {
    RevokeTarget::Agent(Some(agent.environment.clone()), agent.name.clone())
}

/// What may be asked, over three agents.
#[derive(Clone, Debug)]
enum Step {
    Issue(usize),
    IssueWithKey(usize, usize),
    Revoke(usize),
    RevokeCertificate(usize),
    Reinstate(usize),
    Grant(usize, bool),
    Restrict(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize).prop_map(Step::Issue),
        2 => (0..3usize, 0..4usize).prop_map(|(agent, key)| Step::IssueWithKey(agent, key)),
        2 => (0..3usize).prop_map(Step::Revoke),
        2 => (0..8usize).prop_map(Step::RevokeCertificate),
        1 => (0..3usize).prop_map(Step::Reinstate),
        1 => (0..3usize, any::<bool>()).prop_map(|(agent, wide)| Step::Grant(agent, wide)),
        1 => (0..3usize, any::<bool>()).prop_map(|(agent, on)| Step::Restrict(agent, on)),
    ]
}

/// What a careful clerk would remember.
#[derive(Default)]
struct Clerk {
    known: BTreeSet<usize>,
    revoked: BTreeSet<usize>,
    /// Serial, agent, key, ended.
    certificates: Vec<(Serial, usize, [u8; 32], bool)>,
}

impl Clerk {
    fn may_certify(&self, agent: usize, key: &[u8; 32]) -> bool {
        let banned = self
            .certificates
            .iter()
            .any(|(_, _, k, ended)| k == key && *ended);
        let newest = self.certificates.iter().rev().find(|(_, _, k, _)| k == key);
        let foreign = newest.is_some_and(|(_, holder, _, _)| *holder != agent);
        !self.revoked.contains(&agent) && !banned && !foreign
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn log_index_and_memory_agree_with_a_plain_model(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let lab = Lab::new();
        let agents = [agent("prod", "a"), agent("prod", "b"), agent("dev", "a")];
        let keys: Vec<PublicKey> = (0..4).map(|_| key()).collect();
        let wide = scopes(&["payments:*"]);
        let mut clerk = Clerk::default();
        for step in steps {
            match step {
                Step::Issue(who) => certify(&lab, &mut clerk, &agents, who, &key()),
                Step::IssueWithKey(who, which) => {
                    certify(&lab, &mut clerk, &agents, who, &keys[which]);
                }
                Step::Revoke(who) => {
                    prop_assert_eq!(lab.revoke(target(&agents[who])).is_ok(), clerk.known.contains(&who));
                    if clerk.known.contains(&who) {
                        clerk.revoked.insert(who);
                        clerk.certificates.iter_mut().filter(|it| it.1 == who).for_each(|it| it.3 = true);
                    }
                }
                Step::RevokeCertificate(which) => {
                    let Some(it) = clerk.certificates.get_mut(which) else { continue };
                    lab.revoke(RevokeTarget::Serial(it.0)).unwrap();
                    it.3 = true;
                }
                Step::Reinstate(who) => {
                    prop_assert_eq!(lab.reinstate(&agents[who]).is_ok(), clerk.revoked.remove(&who));
                }
                Step::Grant(who, full) => {
                    let Handle { environment, name } = agents[who].clone();
                    let scopes = if full { wide.clone() } else { scopes(&["payments:read"]) };
                    let set = lab.sequencer.submit(SetGrant {
                        caller: lab.admin.clone(),
                        environment: Some(environment),
                        name,
                        scopes: Some(scopes),
                        max_trust: None,
                        max_lifetime: None,
                        groups: None,
                    });
                    prop_assert_eq!(set.is_ok(), clerk.known.contains(&who));
                }
                Step::Restrict(who, on) => {
                    let restricted = lab.sequencer.submit(Restrict {
                        caller: lab.admin.clone(),
                        agent: agents[who].clone(),
                        trust: on.then_some(TrustLevel::L1),
                        scopes: None,
                    });
                    prop_assert_eq!(restricted.is_ok(), clerk.known.contains(&who));
                }
            }
        }
        let live = lab.state();
        for (serial, who, _, ended) in &clerk.certificates {
            prop_assert_eq!(live.certificate(serial).unwrap().ended.is_some(), *ended);
            prop_assert!(live.agent(&agents[*who]).unwrap().serials.contains(serial));
        }
        prop_assert_eq!(&lab.replayed(), &live);
        prop_assert_eq!(&lab.reloaded(), &live);
    }
}

/// Issues what every grant allows, and compares with what the clerk expects.
fn certify(lab: &Lab, clerk: &mut Clerk, agents: &[Handle; 3], who: usize, key: &PublicKey) {
    let issued = lab.issue(&agents[who], &scopes(&["payments:read"]), key);
    let expected = clerk.may_certify(who, &key.key_id());
    assert_eq!(issued.is_ok(), expected, "{issued:?}");
    if let Ok(serial) = issued {
        clerk.known.insert(who);
        clerk.certificates.push((serial, who, key.key_id(), false));
    }
}

#[test]
fn no_interleaving_issues_after_a_revocation() {
    let lab = Lab::new();
    let (busy, other) = (agent("prod", "busy"), agent("prod", "other"));
    let allowed = scopes(&["payments:read"]);
    lab.issue(&busy, &allowed, &key()).unwrap();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for round in 0..60 {
                    let who = if round % 4 == 0 { &other } else { &busy };
                    // Refused or not: what counts is what the log says.
                    let _either = lab.issue(who, &allowed, &key());
                }
            });
        }
        threads.spawn(|| {
            for _ in 0..20 {
                lab.revoke(target(&busy)).unwrap();
                // Acknowledged: nothing that was planned before gets through now.
                let state = lab.state();
                let certificates = state.agent(&busy).unwrap().serials.len();
                std::thread::yield_now();
                assert_eq!(
                    lab.state().agent(&busy).unwrap().serials.len(),
                    certificates
                );
                lab.reinstate(&busy).unwrap();
            }
        });
    });
    let (mut revoked, mut issued) = (false, 0);
    let busy = busy.agent(&"example.org".parse().unwrap());
    lab.sequencer
        .log()
        .wait_blocking(lab.state().applied() - 1)
        .unwrap();
    for record in lab.sequencer.log().scan(0) {
        let (index, bytes) = record.unwrap();
        let Body::Status(record) = Entry::read(index, &bytes).unwrap().body else {
            continue;
        };
        match record.event {
            StatusEvent::AgentRevoked { agent, .. } if agent == busy => revoked = true,
            StatusEvent::AgentReinstated { agent } if agent == busy => revoked = false,
            StatusEvent::CertificateIssued { agent, .. } if agent == busy => {
                assert!(!revoked, "record {index} certifies a revoked agent");
                issued += 1;
            }
            _ => {}
        }
    }
    assert!(issued > 1, "nothing was tried");
    assert_eq!(lab.replayed(), lab.state());
}

#[test]
fn a_certificate_that_was_made_before_a_change_is_not_handed_over_after_it() {
    let lab = Lab::new();
    let (support, read) = (agent("prod", "support-01"), scopes(&["payments:read"]));
    let minted = lab.plan_and_mint(&support, &read, &key()).unwrap();
    lab.revoke(target(&support)).unwrap();
    let refused = lab
        .certify(lab.admin.clone(), &support, &minted)
        .unwrap_err();
    assert!(matches!(refused, Refusal::Revoked(_)), "{refused}");
    // Reinstated, it may be certified: it was never handed over, and its key never revoked.
    lab.reinstate(&support).unwrap();
    lab.sequencer
        .submit(SetGrant {
            caller: lab.admin.clone(),
            environment: None,
            name: support.name.clone(),
            scopes: None,
            max_trust: Some(TrustLevel::L1),
            max_lifetime: None,
            groups: None,
        })
        .unwrap();
    let refused = lab
        .certify(lab.admin.clone(), &support, &minted)
        .unwrap_err();
    assert!(matches!(refused, Refusal::Changed(_)), "{refused}");
}

#[test]
fn a_renewal_carries_what_grant_and_restriction_leave() {
    let lab = Lab::new();
    let support = agent("prod", "support-01");
    let both = scopes(&["mail:send", "payments:*"]);
    let serial = lab.issue(&support, &both, &key()).unwrap();
    let id = support.agent(&"example.org".parse().unwrap());
    let caller = Caller { id, serial };
    let rights = |lab: &Lab| {
        let fresh = key().key_id();
        lab.sequencer
            .read(|state, clock| renewal_rights(&caller, &support, &fresh, state, clock))
            .unwrap()
    };
    assert_eq!(rights(&lab).unwrap().request.scopes, both);
    let grant = |scopes: ScopeSet| SetGrant {
        caller: lab.admin.clone(),
        environment: None,
        name: support.name.clone(),
        scopes: Some(scopes),
        max_trust: None,
        max_lifetime: Some(Duration::from_secs(600)),
        groups: None,
    };
    lab.sequencer
        .submit(grant(scopes(&["payments:read", "files:read"])))
        .unwrap();
    let left = rights(&lab).unwrap().request;
    assert_eq!(
        (left.scopes, left.lifetime.as_secs()),
        (scopes(&["payments:read"]), 600)
    );
    let restrict = |trust, scopes| Restrict {
        caller: lab.admin.clone(),
        agent: support.clone(),
        trust,
        scopes,
    };
    lab.sequencer
        .submit(restrict(Some(TrustLevel::L1), None))
        .unwrap();
    assert_eq!(rights(&lab).unwrap().request.trust, TrustLevel::L1);
    lab.sequencer
        .submit(restrict(None, Some(scopes(&["mail:*"]))))
        .unwrap();
    assert!(matches!(rights(&lab).unwrap_err(), Refusal::NothingLeft(_)));
    lab.sequencer.submit(restrict(None, None)).unwrap();
    assert_eq!(rights(&lab).unwrap().request.trust, TrustLevel::L2);
    lab.revoke(RevokeTarget::Serial(serial)).unwrap();
    assert!(matches!(rights(&lab).unwrap_err(), Refusal::Caller { .. }));
}

#[test]
fn by_owner_and_by_ambiguous_name() {
    let lab = Lab::new();
    let read = scopes(&["payments:read"]);
    for handle in [agent("prod", "a"), agent("dev", "a"), agent("prod", "b")] {
        lab.issue(&handle, &read, &key()).unwrap();
    }
    let ambiguous = lab
        .revoke(RevokeTarget::Agent(None, "a".parse().unwrap()))
        .unwrap_err();
    assert!(
        ambiguous.to_string().contains("dev/a, prod/a"),
        "{ambiguous}"
    );
    let before = lab.state().applied();
    lab.revoke(RevokeTarget::Owner("alice@example.org".parse().unwrap()))
        .unwrap();
    assert_eq!(lab.state().applied(), before + 3);
    assert!(
        lab.state()
            .agents()
            .values()
            .all(|agent| agent.revoked.is_some())
    );
    // Again: nothing is left to do, and nothing is written.
    lab.revoke(RevokeTarget::Owner("alice@example.org".parse().unwrap()))
        .unwrap();
    assert_eq!(lab.state().applied(), before + 3);
    let nobody = lab
        .revoke(RevokeTarget::Owner("bob@example.org".parse().unwrap()))
        .unwrap_err();
    assert!(matches!(nobody, Refusal::UnknownOwner(_)));
}

#[test]
fn the_logs_next_certificate_is_a_record_like_any_other() {
    let lab = Lab::new();
    let before = lab.state().applied();
    let chain = vec![vec![1; 40], vec![2; 40]];
    let announced = lab.sequencer.submit(AnnounceSigner { chain }).unwrap();
    assert_eq!(announced.records, [before]);
    lab.issue(&agent("prod", "after"), &scopes(&["payments:read"]), &key())
        .unwrap();
    assert_eq!(lab.replayed(), lab.state());
}

/// An agent whose grant was lost to a crash.
struct Register(Handle);

impl Change for Register {
    type Outcome = ();

    fn decide(self, state: &State, _: Clock) -> Result<Decision<()>, Refusal> {
        let registered = Event::AgentRegistered {
            agent: self.0.agent(state.trust_domain()),
            owner: "bob@example.org".parse().unwrap(),
            by: "spiffe://example.org/person/admin".parse().unwrap(),
        };
        Ok(Decision {
            drafts: vec![Draft::own(registered)],
            outcome: (),
        })
    }
}

#[test]
fn a_registered_owner_stays_when_only_the_grant_is_missing() {
    let lab = Lab::new();
    let half = agent("prod", "half");
    lab.sequencer.submit(Register(half.clone())).unwrap();
    let refused = lab
        .plan_and_mint(&half, &scopes(&["payments:read"]), &key())
        .unwrap_err();
    assert!(matches!(refused, Refusal::OtherOwner { .. }), "{refused}");
}
