//! What commands are told of a reload that was refused: a file in `data_dir` that the running enforcer holds locked for
//! as long as it is true. One that nobody holds was left by a process that ended without a word, and says nothing.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use agentca_identity::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A running enforcer's file.
#[derive(Debug)]
pub(super) struct Notice {
    path: PathBuf,
    held: Option<File>,
}

/// A reload that was refused.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// When.
    pub(crate) at: String,
    pub(crate) why: String,
}

impl Notice {
    /// Of the one enforcer that has this folder; whatever lies there is of the one before.
    pub(super) fn open(data_dir: &Path) -> Self {
        let notice = Self {
            path: data_dir.join(FILE),
            held: None,
        };
        notice.remove();
        notice
    }

    /// The last reload was refused.
    pub(super) fn refused(&mut self, why: &str) {
        let refused = Refused {
            at: Timestamp::now().to_string(),
            why: why.to_owned(),
        };
        match self.put(&refused) {
            Ok(file) => self.let_go(Some(file)),
            Err(error) => {
                let file = self.path.display();
                tracing::warn!(%file, %error, "commands are not told of the refused reload");
            }
        }
    }

    /// The last reload was taken.
    pub(super) fn taken(&mut self) {
        if self.held.is_some() {
            self.remove();
            self.let_go(None);
        }
    }

    fn put(&self, refused: &Refused) -> io::Result<File> {
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        // Nobody knows the file yet.
        file.lock()?;
        file.write_all(&serde_json::to_vec(refused)?)?;
        std::fs::rename(&beside, &self.path)?;
        Ok(file)
    }

    /// By name: a program that is just being started has a copy of every descriptor for a moment.
    fn let_go(&mut self, next: Option<File>) {
        if let Some(file) = std::mem::replace(&mut self.held, next) {
            // What fails here is undone by closing.
            let _closed = file.unlock();
        }
    }

    fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            let file = self.path.display();
            tracing::warn!(%file, %error, "what commands are told of reloads is not of this process");
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        self.taken();
    }
}

/// The last reload of the enforcer that is running with this `data_dir`, if it refused that.
pub(crate) fn last_refused(data_dir: &Path) -> Option<Refused> {
    let path = data_dir.join(FILE);
    let file = File::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            serde_json::from_reader(io::Read::take(&file, LONGEST)).ok()
        }
        // Whoever wrote it has ended.
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

const FILE: &str = "reload-refused.json";
const LONGEST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_while_it_stands_and_its_enforcer_runs() {
        let dir = tempfile::tempdir().unwrap();
        let told = || last_refused(dir.path()).map(|refused| refused.why);
        let mut notice = Notice::open(dir.path());
        assert_eq!(told(), None);
        notice.refused("`listen` changed");
        assert_eq!(told().unwrap(), "`listen` changed");
        notice.refused("`threads` changed");
        assert_eq!(told().unwrap(), "`threads` changed");
        notice.taken();
        assert_eq!(told(), None);
        notice.refused("`listen` changed");
        drop(notice);
        assert_eq!(told(), None);
        assert!(!dir.path().join(FILE).exists());
    }

    #[test]
    fn what_a_dead_process_left_says_nothing_and_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut notice = Notice::open(dir.path());
        notice.refused("`listen` changed");
        let left = std::fs::read(dir.path().join(FILE)).unwrap();
        drop(notice);
        std::fs::write(dir.path().join(FILE), left).unwrap();
        assert!(last_refused(dir.path()).is_none());
        drop(Notice::open(dir.path()));
        assert!(!dir.path().join(FILE).exists());
    }
}
