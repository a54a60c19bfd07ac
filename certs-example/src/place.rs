//! The folder in which everything happens.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::Error;

/// `out/`, emptied, ours alone until it is dropped.
pub(crate) struct Place {
    out: PathBuf,
    _lock: File,
}

impl Place {
    /// Takes the folder for this run and empties it. Refuses a folder that is in use, or that is not the example's.
    pub(crate) fn make(out: PathBuf) -> Result<Self, Error> {
        let lock_file = out.join(LOCK);
        if out.is_dir() && fs::read_dir(&out)?.next().is_some() && !lock_file.is_file() {
            return Err(format!("{} holds files that are not the example's", out.display()).into());
        }
        fs::create_dir_all(&out)?;
        let out = out.canonicalize()?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_file)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another example is running in {}", out.display()).into());
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        for entry in fs::read_dir(&out)? {
            let entry = entry?;
            if entry.file_name() == LOCK {
                continue;
            } else if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { out, _lock: lock })
    }

    /// The folder itself, absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.out
    }

    /// A path below the folder.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.out.join(below)
    }
}

const LOCK: &str = ".certs-example";
