//! Snapshots: what an enforcer that has nothing begins with.
//!
//! A snapshot's record follows at once behind the last one that it covers. So it is built and written
//! beside the sequencer, and announced if nothing came in between. When others keep coming first, it is
//! made in memory while they wait, and written afterwards: nobody waits for the disk. What a crash
//! leaves then is a record without its snapshot, which is as good as none, and another is made as soon
//! as somebody needs it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agentca_auditlog::status::snapshot::{
    Snapshot, SnapshotAgent, SnapshotCertificate, SnapshotError,
};
use agentca_identity::crypto::sha256;
use agentca_identity::name::Environment;
use tokio::sync::mpsc;

use crate::authority::change::{AnnounceSnapshot, SnapshotVerdict};
use crate::authority::handle::{Handle, Holder};
use crate::authority::refusal::Refusal;
use crate::authority::sequencer::Sequencer;
use crate::authority::state::{SnapshotMark, State};

/// Asks for snapshots.
#[derive(Clone, Debug)]
pub struct Snapshots(mpsc::UnboundedSender<Environment>);

/// A snapshot that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The last status number that it includes.
    pub covers: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why none was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    /// It cannot be written.
    #[error("`{path}`: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It cannot be encoded.
    #[error(transparent)]
    Encode(#[from] SnapshotError),
    /// It cannot be announced.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A task of ours failed.
    #[error("a task failed")]
    Task,
}

impl Snapshots {
    /// Where to ask, and the wishes to be served by [`serve`].
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Environment>) {
        let (wishes, inbox) = mpsc::unbounded_channel();
        (Self(wishes), inbox)
    }

    /// A snapshot of that environment is wanted.
    pub fn want(&self, environment: &Environment) {
        // Nobody makes any when the authority stops.
        let _stopping = self.0.send(environment.clone());
    }

    /// Asks for one when status records have piled up since the last.
    pub fn staged(&self, environment: &Environment, number: u64) {
        if number.is_multiple_of(EVERY) {
            self.want(environment);
        }
    }
}

/// Makes snapshots, one after the other, for ever.
pub async fn serve(
    sequencer: Arc<Sequencer>,
    folder: Arc<Path>,
    mut wishes: mpsc::UnboundedReceiver<Environment>,
) {
    let mut wanted = BTreeSet::new();
    loop {
        if wanted.is_empty() {
            let Some(environment) = wishes.recv().await else {
                return;
            };
            wanted.insert(environment);
        }
        // However often it was asked for meanwhile, one is enough.
        while let Ok(environment) = wishes.try_recv() {
            wanted.insert(environment);
        }
        for environment in std::mem::take(&mut wanted) {
            let (sequencer, folder, of) = (
                Arc::clone(&sequencer),
                Arc::clone(&folder),
                environment.clone(),
            );
            let made = tokio::task::spawn_blocking(move || make(&sequencer, &folder, &of));
            match made.await.unwrap_or(Err(MakeError::Task)) {
                Ok(Some(mark)) => tracing::info!(covers = mark.covers, "a snapshot was written"),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, %environment, "no snapshot was written");
                    wanted.insert(environment);
                }
            }
        }
        if !wanted.is_empty() {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The bytes of the snapshot that the state points to. One that is damaged is as good as none.
pub(crate) fn find(folder: &Path, environment: &Environment, mark: &SnapshotMark) -> Option<Found> {
    let path = path(folder, environment, mark.covers);
    let bytes = fs::read(&path)
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "no snapshot"))
        .ok()?;
    if sha256(&bytes) != mark.digest {
        tracing::warn!(path = %path.display(), "the snapshot is damaged and not used");
        return None;
    }
    Some(Found {
        covers: mark.covers,
        bytes,
    })
}

/// Makes one; none when the newest record is that of one already.
pub(super) fn make(
    sequencer: &Sequencer,
    folder: &Path,
    environment: &Environment,
) -> Result<Option<SnapshotMark>, MakeError> {
    sequencer.demand_room()?;
    let Some(snapshot) = sequencer.read(|state, _| take(state, folder, environment))? else {
        return Ok(None);
    };
    let mark = place(folder, environment, snapshot.number, |out| {
        Ok(snapshot.write(out)?.0)
    })?;
    match announce(sequencer, environment, mark) {
        Ok(SnapshotVerdict::Announced) => {
            tidy(folder, environment, mark.covers);
            return Ok(Some(mark));
        }
        Ok(SnapshotVerdict::Overtaken) => discard(folder, environment, mark.covers),
        Err(error) => {
            discard(folder, environment, mark.covers);
            return Err(error);
        }
    }
    // Who came first once will come first again: they wait while it is made in memory, no longer.
    let mut made = None;
    sequencer.submit_after(|state| {
        let Some(snapshot) = take(state, folder, environment) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let (digest, _) = snapshot
            .write(&mut bytes)
            .map_err(|e| Refusal::Internal(e.to_string()))?;
        let covers = snapshot.number;
        made = Some((SnapshotMark { covers, digest }, bytes));
        Ok(Some(AnnounceSnapshot {
            environment: environment.clone(),
            covers,
            digest,
        }))
    })?;
    let Some((mark, bytes)) = made else {
        return Ok(None);
    };
    place(folder, environment, mark.covers, |out| {
        out.write_all(&bytes).map_err(SnapshotError::from)?;
        Ok(mark.digest)
    })?;
    tidy(folder, environment, mark.covers);
    Ok(Some(mark))
}

fn announce(
    sequencer: &Sequencer,
    environment: &Environment,
    mark: SnapshotMark,
) -> Result<SnapshotVerdict, MakeError> {
    let SnapshotMark { covers, digest } = mark;
    let change = AnnounceSnapshot {
        environment: environment.clone(),
        covers,
        digest,
    };
    Ok(sequencer.submit(change)?.outcome)
}

/// What stands in an environment; none when its newest record is that of a snapshot that is there.
fn take(state: &State, folder: &Path, environment: &Environment) -> Option<Snapshot> {
    let chain = state.chain(environment)?;
    if chain.snapshot.is_some_and(|mark| {
        mark.covers + 1 == chain.number && path(folder, environment, mark.covers).exists()
    }) {
        return None;
    }
    let agents_here = || {
        let all = state.agents().iter();
        all.filter(|(handle, _)| handle.environment == *environment)
    };
    let mut agents = Vec::new();
    let room = agents_here().map(|(_, agent)| agent.serials.len()).sum();
    let mut certificates = Vec::with_capacity(room);
    for (place, (handle, agent)) in agents_here().enumerate() {
        let place = u32::try_from(place).ok()?;
        agents.push(SnapshotAgent {
            uri: handle.agent(state.trust_domain()),
            revoked_before: agent.ended_before,
            trust: agent.restriction.as_ref().and_then(|it| it.trust),
            scopes: agent.restriction.as_ref().and_then(|it| it.scopes.clone()),
        });
        let issued = agent.serials.iter().filter_map(|serial| {
            let issued = state.certificate(serial)?;
            debug_assert_eq!(issued.holder, Holder::Agent(Handle::clone(handle)));
            Some(SnapshotCertificate {
                number: issued.number,
                serial: *serial,
                agent: place,
                not_after: issued.facts.not_after,
                fingerprint: issued.facts.fingerprint,
                revoked: issued.ended.is_some(),
            })
        });
        certificates.extend(issued);
    }
    certificates.sort_unstable_by_key(|certificate| certificate.number);
    Some(Snapshot {
        environment: environment.clone(),
        number: chain.number,
        hash: chain.hash,
        issuers: chain.issuers.clone(),
        agents,
        certificates,
    })
}

/// Writes a snapshot beside its place, syncs it, and moves it there.
fn place(
    folder: &Path,
    environment: &Environment,
    covers: u64,
    write: impl FnOnce(&mut BufWriter<fs::File>) -> Result<[u8; 32], MakeError>,
) -> Result<SnapshotMark, MakeError> {
    let path = path(folder, environment, covers);
    let fresh = path.with_extension("new");
    let failed = |source| MakeError::Io {
        path: fresh.clone(),
        source,
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let file = fs::File::create(&fresh).map_err(failed)?;
    let mut out = BufWriter::new(file);
    let digest = write(&mut out)?;
    out.flush().map_err(failed)?;
    out.get_ref().sync_all().map_err(failed)?;
    fs::rename(&fresh, &path).map_err(failed)?;
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)?;
    Ok(SnapshotMark { covers, digest })
}

/// Deletes all but the two newest of an environment: a follower may be reading the last one.
fn tidy(folder: &Path, environment: &Environment, newest: u64) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut older: Vec<u64> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let number = name.strip_prefix(environment.as_str())?.strip_prefix('-')?;
            number.parse().ok().filter(|number| *number < newest)
        })
        .collect();
    older.sort_unstable();
    older.pop();
    older
        .into_iter()
        .for_each(|number| discard(folder, environment, number));
}

fn discard(folder: &Path, environment: &Environment, number: u64) {
    let path = path(folder, environment, number);
    if let Err(error) = fs::remove_file(&path) {
        tracing::warn!(path = %path.display(), %error, "an old snapshot stays");
    }
}

fn path(folder: &Path, environment: &Environment, number: u64) -> PathBuf {
    folder.join(format!("{environment}-{number}"))
}

/// After how many status records of an environment a snapshot is due.
pub(super) const EVERY: u64 = 10_000;
/// After how long one that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Room;
    use crate::testing::Made;

    #[test]
    fn the_reserve_is_not_for_snapshots() {
        let made = Made::new(drop);
        let room = Room::of(&made.data(), u64::MAX);
        let (sequencer, _alarm) = made.sequencer_with(Vec::new(), room);
        let folder = made.data().join("snapshots");
        let refused = make(&sequencer, &folder, &"prod".parse().unwrap()).unwrap_err();
        assert!(matches!(refused, MakeError::Refused(Refusal::Reserved(_))));
        assert!(!folder.exists());
    }
}
