//! The CAs below the root, each followed by the next of its line before it ends.
//!
//! At two thirds of a CA's life the next one is made, under the root's key, and its certificate is
//! announced in every environment as `issuer-added`. It certifies from three quarters on, and only once
//! that announcement is durable and its CRLs are published. The one before goes on signing the CRLs of
//! its own certificates until it ends.
//!
//! The root's key is needed for a moment only, in `keys/root.key`. While it is kept elsewhere, nothing is
//! made, and this is said until it comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agentca_identity::crypto::{CryptoError, KeyKind, PrivateKey, PublicKey};
use agentca_identity::name::TrustDomain;
use agentca_identity::profile::{
    Issuer, Pen, Prepared, ProfileError, Template, Validity, lifetime,
};
use agentca_identity::time::Timestamp;

use crate::authority::change::AnnounceIssuers;
use crate::authority::refusal::Refusal;
use crate::authority::sequencer::Sequencer;
use crate::crl::Shelf;
use crate::keys::{Credential, KeyError, KeyFolder, KeyName};
use crate::line::{Generation, Line, MOST, Number};
use crate::mint::Mint;

/// Looks after the CAs.
#[derive(Debug)]
pub struct Rotation {
    /// The number in every certificate's OIDs.
    pub pen: Pen,
    /// When the root ends: what ends with it has no successor under it.
    pub root_end: Timestamp,
    /// When it was said last that the root's key is missing, for the issuing CA and the CA of signers.
    pub warned: [Option<Instant>; 2],
}

/// What it works with.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// The lines of CAs.
    pub mint: &'a Mint,
    /// Where they are announced.
    pub sequencer: &'a Sequencer,
    /// What CRLs there are.
    pub shelf: &'a Shelf,
    /// Where keys lie.
    pub folder: &'a Arc<KeyFolder>,
}

/// Why a CA has no successor yet.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Its key cannot be made.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// Its certificate cannot be made.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// It cannot be written, or the root cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It cannot be recorded.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A task of ours failed.
    #[error("a task failed")]
    Task,
    /// A line is full.
    #[error("a line of CAs ends with its {MOST}th: make a new authority")]
    Full,
}

/// How a line makes the next.
#[derive(Debug)]
struct Kind {
    what: &'static str,
    /// Its place in [`Rotation::warned`].
    place: usize,
    name: fn(Number) -> KeyName,
    template: fn(TrustDomain, &PublicKey, Validity) -> Template,
}

impl Rotation {
    /// Makes, announces and takes into use what is due at `now`. What fails keeps nothing else waiting.
    pub async fn look(&mut self, means: Means<'_>, now: Timestamp) -> Vec<RotationError> {
        let Means {
            mint,
            sequencer,
            shelf,
            folder,
        } = means;
        let (issuing, signer) = (&*mint.issuing, &*mint.signer);
        let mut failed = Vec::new();
        failed.extend(self.prepare(issuing, &ISSUING, folder, now).await.err());
        failed.extend(self.prepare(signer, &SIGNER, folder, now).await.err());
        match announce(sequencer, issuing, now).await {
            Ok(()) => {
                let published = |next: &Generation| {
                    let mut shards = mint.shards_of(next);
                    shards.all(|shard| shelf.find(shard).is_some())
                };
                take_into_use(issuing, &ISSUING, now, published);
            }
            Err(error) => failed.push(error),
        }
        take_into_use(signer, &SIGNER, now, |_| true);
        failed
    }

    async fn prepare(
        &mut self,
        line: &Line,
        kind: &'static Kind,
        folder: &Arc<KeyFolder>,
        now: Timestamp,
    ) -> Result<(), RotationError> {
        let newest = line.newest();
        // What ends with the root has no successor under it.
        if !newest.is_near(now) || newest.certificate().not_after() >= self.root_end {
            return Ok(());
        }
        let (folder, pen, last) = (Arc::clone(folder), self.pen, newest.number);
        // To open an encrypted key takes its time.
        let making = tokio::task::spawn_blocking(move || {
            let root = folder.read_root(pen)?;
            root.map(|root| make(&root, kind, last, &folder, now))
                .transpose()
        });
        let Some(next) = making.await.map_err(|_| RotationError::Task)?? else {
            self.miss_root(kind, &newest);
            return Ok(());
        };
        tracing::info!(
            number = next.number,
            until = %next.certificate().not_after(),
            "the next {} was made; move keys/root.key away again if it is kept elsewhere",
            kind.what
        );
        line.add(next);
        Ok(())
    }

    /// Said once an hour.
    fn miss_root(&mut self, kind: &Kind, newest: &Generation) {
        let Some(warned) = self.warned.get_mut(kind.place) else {
            return;
        };
        if warned.is_some_and(|at| at.elapsed() < REMIND) {
            return;
        }
        *warned = Some(Instant::now());
        tracing::warn!(
            until = %newest.certificate().not_after(),
            "the {} needs a successor: put root.key into keys/ until it is made",
            kind.what
        );
    }
}

fn make(
    root: &Issuer,
    kind: &Kind,
    last: Number,
    folder: &KeyFolder,
    now: Timestamp,
) -> Result<Generation, RotationError> {
    let number = last.checked_add(1).filter(|number| *number <= MOST);
    let number = number.ok_or(RotationError::Full)?;
    let key = PrivateKey::generate(KeyKind::P256)?;
    let validity = Validity::starting(now, lifetime::ISSUING_CA);
    let validity = validity.until_at_most(root.certificate().not_after());
    let trust_domain = root.certificate().subject().trust_domain().clone();
    let template = (kind.template)(trust_domain, key.public_key(), validity);
    let certificate = root.prepare(template).and_then(Prepared::sign)?;
    let credential = Credential {
        chain: vec![certificate.der().to_vec()],
        key: key.clone(),
    };
    folder.write_next((kind.name)(number), &credential)?;
    let issuer = Issuer::new(certificate, key, root.pen())?;
    Ok(Generation { number, issuer })
}

/// Every environment hears of every issuing CA that stands; completes when that is durable.
async fn announce(
    sequencer: &Sequencer,
    issuing: &Line,
    now: Timestamp,
) -> Result<(), RotationError> {
    let standing = issuing.standing(now);
    // The first one is what environments are opened with.
    if standing.len() < 2 {
        return Ok(());
    }
    let certificates = standing
        .iter()
        .map(|it| it.certificate().der().to_vec())
        .collect();
    let announced = sequencer.submit(AnnounceIssuers { certificates })?;
    if let Some(index) = announced.last() {
        sequencer.durable(index).await?;
    }
    Ok(())
}

/// Certifies from the newest CA whose turn has come.
fn take_into_use(line: &Line, kind: &Kind, now: Timestamp, ready: impl Fn(&Generation) -> bool) {
    let standing = line.standing(now);
    let current = line.current();
    let pairs = standing.iter().zip(standing.iter().skip(1));
    let due = pairs
        .filter(|(before, next)| before.is_due(now) && next.number > current.number && ready(next))
        .last();
    if let Some((_, next)) = due {
        line.use_from_now_on(next.clone());
        tracing::info!(number = next.number, "the next {} certifies now", kind.what);
    }
}

const ISSUING: Kind = Kind {
    what: "issuing CA",
    place: 0,
    name: KeyName::Issuing,
    template: Template::issuing_ca,
};
const SIGNER: Kind = Kind {
    what: "CA of signers",
    place: 1,
    name: KeyName::Signer,
    template: Template::signer_ca,
};
/// How often a missing root is mentioned.
const REMIND: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use agentca_identity::chain::TrustAnchor;
    use agentca_identity::scope::ScopeSet;
    use bytes::Bytes;

    use super::*;
    use crate::authority::change::PlanIssue;
    use crate::authority::handle::Handle;
    use crate::crl::Published;
    use crate::mint::Minted;
    use crate::testing::Made;

    struct Lab {
        sequencer: Sequencer,
        mint: Mint,
        shelf: Shelf,
        folder: Arc<KeyFolder>,
        rotation: Rotation,
        anchor: TrustAnchor,
        made: Made,
    }

    impl Lab {
        fn new() -> Self {
            let made = Made::new(drop);
            let lab = Self {
                sequencer: made.sequencer(Vec::new()),
                mint: made.mint(2),
                shelf: Shelf::default(),
                folder: Arc::new(KeyFolder::new(&made.data(), None)),
                rotation: Rotation {
                    pen: made.keys.pen,
                    root_end: made.keys.root.not_after(),
                    warned: [None; 2],
                },
                anchor: TrustAnchor::from_root_der(made.keys.root.der()).unwrap(),
                made,
            };
            lab.open_environment("prod");
            lab
        }

        /// An environment is opened with the first agent.
        fn open_environment(&self, environment: &str) {
            let agent = Handle {
                environment: environment.parse().unwrap(),
                name: "a".parse().unwrap(),
            };
            let plan = PlanIssue {
                caller: self.made.admin.clone(),
                agent,
                owner: Some("alice@example.org".parse().unwrap()),
                scopes: Some(ScopeSet::new(["payments:read".parse().unwrap()]).unwrap()),
                trust: Some("L2".parse().unwrap()),
                lifetime: None,
                groups: Vec::new(),
                key: [7; 32],
                default_lifetime: Duration::from_secs(3600),
                issuers: self.mint.issuers(),
            };
            self.sequencer.submit(plan).unwrap();
        }

        async fn look(&mut self, now: Timestamp) {
            let failed = self.try_look(now).await;
            assert!(failed.is_empty(), "{failed:?}");
        }

        async fn try_look(&mut self, now: Timestamp) -> Vec<RotationError> {
            let means = Means {
                mint: &self.mint,
                sequencer: &self.sequencer,
                shelf: &self.shelf,
                folder: &self.folder,
            };
            self.rotation.look(means, now).await
        }

        /// After this share of the first CAs' life.
        fn after(&self, (part, whole): (u32, u32)) -> Timestamp {
            let first = self.made.keys.issuing.standing(Timestamp::now());
            let certificate = first[0].certificate().clone();
            let life = certificate
                .not_after()
                .saturating_since(certificate.not_before());
            certificate.not_before() + life / whole * part
        }

        /// Which certify: the issuing CA, the CA of signers.
        fn certify(&self) -> (Number, Number) {
            (
                self.mint.issuing.current().number,
                self.mint.signer.current().number,
            )
        }

        fn issuers_of(&self, environment: &str) -> Vec<Vec<u8>> {
            let environment = environment.parse().unwrap();
            let read = self
                .sequencer
                .read(|state, _| state.chain(&environment).unwrap().issuers.clone());
            read.unwrap()
        }

        fn records(&self) -> u64 {
            self.sequencer.read(|state, _| state.applied()).unwrap()
        }

        fn publish(&self, shard: u16) {
            let now = Timestamp::now();
            let published = Published {
                der: Bytes::new(),
                number: 1,
                this_update: now,
                next_update: now,
                entries: 0,
            };
            self.shelf.put(shard, published);
        }

        fn key_file(&self, name: &str) -> std::path::PathBuf {
            self.made.data().join("keys").join(name)
        }

        fn person(&self) -> Minted {
            let key = PrivateKey::generate(KeyKind::P256).unwrap();
            let id = "spiffe://example.org/person/bob".parse().unwrap();
            let roles = agentca_identity::roles::Roles::all();
            self.mint.person(id, roles, key.public_key()).unwrap()
        }
    }

    #[tokio::test]
    async fn the_next_is_announced_then_published_and_only_then_certifies() {
        let mut lab = Lab::new();
        lab.look(lab.after((3, 5))).await;
        assert_eq!(lab.mint.issuing.newest().number, 1);
        assert_eq!(lab.issuers_of("prod").len(), 1);
        lab.look(lab.after((2, 3))).await;
        let next = lab.mint.issuing.newest();
        assert_eq!((next.number, lab.certify()), (2, (1, 1)));
        let announced = lab.issuers_of("prod");
        assert_eq!(announced.last().unwrap(), next.certificate().der());
        // Once: what was announced is not announced again, and an environment opened since has both.
        lab.open_environment("dev");
        let records = lab.records();
        lab.look(lab.after((2, 3))).await;
        assert_eq!(lab.records(), records);
        assert_eq!(lab.issuers_of("dev"), announced);
        // It is due, but one of its lists is not published yet.
        lab.publish(next.shard(0));
        lab.look(lab.after((3, 4))).await;
        assert_eq!(lab.certify(), (1, 2));
        lab.publish(next.shard(1));
        lab.look(lab.after((2, 3))).await;
        assert_eq!(lab.certify(), (1, 2), "not before its time");
        lab.look(lab.after((3, 4))).await;
        assert_eq!(lab.certify(), (2, 2));
        let person = lab.person();
        let shard = person.facts.shard.unwrap();
        assert!(next.owns(shard) && shard >= 1024, "{shard}");
        let chain = person.chain();
        assert_eq!(chain[1], next.certificate().der());
        let signed_by = person.certificate.authority_key_id();
        assert_eq!(signed_by, Some(next.certificate().public_key().short_id()));
        // The CAs themselves hang from the root.
        let signer = lab.mint.signer.current();
        assert!(lab.anchor.learn_pen(signer.certificate().der()).is_ok());
    }

    #[tokio::test]
    async fn a_restart_finds_every_ca_that_has_not_ended() {
        let mut lab = Lab::new();
        lab.look(lab.after((2, 3))).await;
        let mode = |name| {
            std::fs::metadata(lab.key_file(name))
                .unwrap()
                .permissions()
                .mode()
        };
        for name in ["issuing-2.key", "signer-2.key"] {
            assert_eq!(mode(name) & 0o777, 0o600, "{name}");
        }
        let numbers = |line: &Arc<Line>, now| -> Vec<Number> {
            line.standing(now).iter().map(|it| it.number).collect()
        };
        let now = lab.after((3, 4));
        let keys = lab.folder.load(now).unwrap();
        assert_eq!(numbers(&keys.issuing, now), [1, 2]);
        assert_eq!(keys.issuing.current().number, 1);
        // The key of one that ended may be gone.
        for name in ["issuing.key", "signer.key"] {
            std::fs::remove_file(lab.key_file(name)).unwrap();
        }
        assert!(lab.folder.load(now).is_err(), "it has not ended");
        let now = lab.after((1, 1)) + Duration::from_secs(1);
        let keys = lab.folder.load(now).unwrap();
        assert_eq!(numbers(&keys.issuing, now), [2]);
        assert_eq!(keys.signer.current().number, 2);
    }

    #[tokio::test]
    async fn without_the_roots_key_nothing_is_made_until_it_comes() {
        let mut lab = Lab::new();
        let (here, away) = (lab.key_file("root.key"), lab.key_file("elsewhere"));
        std::fs::rename(&here, &away).unwrap();
        lab.look(lab.after((2, 3))).await;
        assert_eq!(lab.mint.issuing.newest().number, 1);
        std::fs::rename(&away, &here).unwrap();
        // What a crash left behind of an attempt is no CA.
        std::fs::write(lab.key_file("issuing-2.key"), "torn").unwrap();
        lab.look(lab.after((2, 3))).await;
        assert_eq!(lab.mint.issuing.newest().number, 2);
        lab.folder.load(lab.after((2, 3))).unwrap();
    }

    #[tokio::test]
    async fn what_ends_with_the_root_has_no_successor() {
        let mut lab = Lab::new();
        let root = lab.made.keys.root.not_after();
        lab.look(root - Duration::from_secs(86_400)).await;
        assert_eq!(lab.mint.issuing.newest().certificate().not_after(), root);
        lab.look(root - Duration::from_secs(3_600)).await;
        assert_eq!(lab.mint.issuing.newest().number, 2);
        // Nor is its key asked for.
        lab.rotation.warned = [None; 2];
        std::fs::remove_file(lab.key_file("root.key")).unwrap();
        lab.look(root - Duration::from_secs(3_600)).await;
        assert_eq!(lab.rotation.warned, [None; 2]);
    }

    #[tokio::test]
    async fn a_line_that_cannot_go_on_keeps_no_other_waiting() {
        let mut lab = Lab::new();
        std::fs::create_dir(lab.key_file("issuing-2.crt")).unwrap();
        let failed = lab.try_look(lab.after((2, 3))).await;
        assert!(matches!(failed[..], [RotationError::Key(_)]), "{failed:?}");
        assert_eq!(lab.mint.issuing.newest().number, 1);
        assert_eq!(lab.mint.signer.newest().number, 2);
        lab.try_look(lab.after((3, 4))).await;
        assert_eq!(lab.certify(), (1, 2));
    }

    #[tokio::test]
    async fn each_line_says_that_the_roots_key_is_missing() {
        let mut lab = Lab::new();
        std::fs::remove_file(lab.key_file("root.key")).unwrap();
        lab.look(lab.after((2, 3))).await;
        assert!(lab.rotation.warned.iter().all(Option::is_some));
    }
}
