//! The catalogue on record: which files are in force, and each approval, rejection, assessment and
//! exception from the moment that it counts until it is withdrawn.
//!
//! Records that say something new name the one before them that did, so a restart reads what is known
//! from the log itself. Where the newest of them is stands in a file beside the log; without that file
//! everything is recorded once more, and nothing is ever left out for what it says.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentca_auditlog::decision::{CatalogueChange, CatalogueLoaded};
use agentca_auditlog::log::Log;
use agentca_auditlog::merkle::Hash;
use agentca_policy::Stated;

use crate::config::{Config, MAX_CATALOGUES};
use crate::journal::{self, JournalError};

/// What the log has of the catalogue.
#[derive(Debug)]
pub(crate) struct CatalogueLog {
    log: Arc<Log>,
    /// Says where the newest record is that had something new.
    hint: PathBuf,
    /// That record.
    previous: Option<u64>,
    /// The statements that are in force by what was recorded.
    known: HashSet<Hash>,
    /// The files that were recorded last; none at start.
    files: Option<Vec<(String, Hash)>>,
}

impl CatalogueLog {
    /// Reads what was recorded before.
    pub(crate) fn open(config: &Config, log: &Arc<Log>) -> Self {
        let hint = config.data_dir.join(HINT);
        let previous = std::fs::read_to_string(&hint)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let known = previous.and_then(|previous| known(log, previous));
        Self {
            log: Arc::clone(log),
            previous: previous.filter(|_| known.is_some()),
            known: known.unwrap_or_default(),
            hint,
            files: None,
        }
    }

    /// Records what comes in force, before it is: at start in any case, then when something is new.
    pub(crate) async fn record(&mut self, config: &Config) -> Result<(), JournalError> {
        let files = files(config);
        let stated: HashMap<Hash, &Stated> = config
            .stated
            .iter()
            .map(|stated| (stated.statement, stated))
            .collect();
        let mut rest = changes(config, &stated, &self.known);
        if rest.is_empty() && self.files.as_ref() == Some(&files) {
            return Ok(());
        }
        // All of it, in as many records as that takes: it is no more than the files hold and held.
        loop {
            let part = one_record(&mut rest);
            self.write(&files, &part).await?;
            if rest.is_empty() {
                break;
            }
        }
        self.files = Some(files);
        Ok(())
    }

    async fn write(
        &mut self,
        files: &[(String, Hash)],
        changes: &[Change<'_>],
    ) -> Result<(), JournalError> {
        let changed: Vec<CatalogueChange<'_>> = changes.iter().map(Change::fields).collect();
        let loaded = CatalogueLoaded {
            files,
            changes: &changed,
            previous: self.previous,
        };
        let index = journal::record(&self.log, |head, out| loaded.write(head, out)).await?;
        for change in changes {
            if change.stated.is_some() {
                self.known.insert(change.statement);
            } else {
                self.known.remove(&change.statement);
            }
        }
        if !changes.is_empty() {
            self.previous = Some(index);
            if let Err(error) = put(&self.hint, index) {
                tracing::warn!(%error, file = %self.hint.display(), "the catalogue will be recorded again after a restart");
            }
        }
        Ok(())
    }
}

/// A statement that is new, or was withdrawn.
#[derive(Debug)]
struct Change<'a> {
    statement: Hash,
    /// None when it was withdrawn.
    stated: Option<&'a Stated>,
    /// Times as records have them.
    at: Option<String>,
    ends: Option<String>,
}

impl Change<'_> {
    fn fields(&self) -> CatalogueChange<'_> {
        let stated = self.stated;
        CatalogueChange {
            action: stated.map_or("withdraw", |stated| stated.action),
            at: self.at.as_deref(),
            by: stated.map(|stated| shortened(&stated.by)),
            definition: stated.and_then(|stated| stated.definition.as_ref()),
            ends: self.ends.as_deref(),
            reason: stated.map(|stated| shortened(&stated.reason)),
            statement: &self.statement,
            tool: stated.map(|stated| shortened(&stated.tool)),
            upstream: stated.and_then(|stated| Some(shortened(stated.upstream.as_ref()?))),
        }
    }

    /// No fewer bytes than it takes in a record: no letter takes more than six.
    fn size(&self) -> usize {
        let CatalogueChange {
            by,
            reason,
            tool,
            upstream,
            ..
        } = self.fields();
        let texts = [by, reason, tool, upstream];
        let escaped = |text: &str| match text.chars().any(char::is_control) {
            true => text.len() * 6,
            false => text.len() * 2,
        };
        let lengths = texts.into_iter().flatten().map(escaped);
        BESIDES + lengths.sum::<usize>()
    }
}

/// The changes that fit into one record.
fn one_record<'a>(rest: &mut Vec<Change<'a>>) -> Vec<Change<'a>> {
    let mut size = 0;
    let fit = rest
        .iter()
        .take_while(|change| {
            size += change.size();
            size <= CHANGES
        })
        .count()
        .max(1);
    let after = rest.split_off(fit.min(rest.len()));
    std::mem::replace(rest, after)
}

/// What is new in the order of the files, then what is gone.
fn changes<'a>(
    config: &'a Config,
    stated: &HashMap<Hash, &'a Stated>,
    known: &HashSet<Hash>,
) -> Vec<Change<'a>> {
    let mut told = HashSet::new();
    let new = config
        .stated
        .iter()
        .filter(|stated| !known.contains(&stated.statement) && told.insert(stated.statement));
    let mut changes: Vec<Change<'a>> = new
        .map(|stated| Change {
            statement: stated.statement,
            stated: Some(stated),
            at: stated.at.map(|at| at.rfc3339()),
            ends: stated.ends.map(|ends| ends.rfc3339()),
        })
        .collect();
    let mut gone: Vec<Hash> = known
        .iter()
        .filter(|statement| !stated.contains_key(*statement))
        .copied()
        .collect();
    gone.sort_unstable();
    changes.extend(gone.into_iter().map(|statement| Change {
        statement,
        stated: None,
        at: None,
        ends: None,
    }));
    changes
}

/// The files as they are named in the configuration, with their digests.
fn files(config: &Config) -> Vec<(String, Hash)> {
    let base = config.read.first().and_then(|(path, _)| path.parent());
    let named = |(path, digest): &(PathBuf, Hash)| {
        let name = base.and_then(|base| path.strip_prefix(base).ok());
        let name = name.unwrap_or(path).display().to_string();
        (shortened(&name).to_owned(), *digest)
    };
    config.read.iter().map(named).collect()
}

/// What is in force by the records from `newest` back; none when that is no such record.
fn known(log: &Log, newest: u64) -> Option<HashSet<Hash>> {
    let mut newest_first = Vec::new();
    let mut next = Some(newest);
    while let Some(index) = next {
        let record = log.record(index).ok().flatten()?;
        let (changes, previous) = CatalogueLoaded::read(&record).ok()?;
        newest_first.push(changes);
        next = previous.filter(|previous| *previous < index);
    }
    let mut known = HashSet::new();
    for (statement, holds) in newest_first.into_iter().rev().flatten() {
        if holds {
            known.insert(statement);
        } else {
            known.remove(&statement);
        }
    }
    Some(known)
}

/// The beginning of a text.
fn shortened(text: &str) -> &str {
    let end = text.floor_char_boundary(LETTERS);
    text.get(..end).unwrap_or_default()
}

fn put(path: &Path, index: u64) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, format!("{index}\n"))?;
    std::fs::rename(&beside, path)
}

const HINT: &str = "catalogue.index";
/// Bytes of each text.
const LETTERS: usize = 200;
/// Bytes of changes in one record, where any change finds room.
const CHANGES: usize = 36_000;
/// Of a change besides its texts.
const BESIDES: usize = 400;
/// Of a file besides its name.
const DIGEST: usize = 80;
/// The configuration and the files that it names, with the pins beside each.
const FILES: usize = 2 * (1 + MAX_CATALOGUES);
// Every one of them finds room in a record, beside as many changes as there may be.
const _: () = assert!(FILES * (LETTERS + DIGEST) + CHANGES < 60_000);

#[cfg(test)]
mod tests;
