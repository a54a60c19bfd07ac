//! Room for the log: what is left on its file system beyond a reserve that is kept for revocations.
//!
//! Whatever fills a disk, revoking must go on. So while less than the reserve is free only what ends or
//! narrows rights is taken, and what makes that known.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What is left on a file system.
#[derive(Debug)]
pub struct Room {
    folder: PathBuf,
    reserve: u64,
    short: AtomicBool,
}

impl Room {
    /// Of the file system that `folder` is on, less `reserve` bytes; looks at once.
    pub fn of(folder: &Path, reserve: u64) -> Self {
        let room = Self {
            folder: folder.to_owned(),
            reserve,
            short: AtomicBool::new(false),
        };
        room.look();
        room
    }

    /// Whether only the reserve is left.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// How many bytes are kept.
    pub fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Looks again and again, for ever.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let room = Arc::clone(&self);
            // A file system that hangs keeps nobody but this task waiting.
            if tokio::task::spawn_blocking(move || room.look())
                .await
                .is_err()
            {
                tracing::error!("the room for the log is not looked at any more");
                return;
            }
        }
    }

    fn look(&self) {
        if self.reserve == 0 {
            return;
        }
        let free = rustix::fs::statvfs(&self.folder)
            .map(|it| it.f_bavail.saturating_mul(it.f_frsize))
            .inspect_err(|error| tracing::warn!(%error, "the room for the log is not known"));
        // What is not known is not there.
        let free = free.unwrap_or(0);
        let short = free < self.reserve;
        if self.short.swap(short, Ordering::Relaxed) == short {
            return;
        }
        let reserve = self.reserve;
        if short {
            tracing::error!(
                free,
                reserve,
                "the disk is nearly full: only revocations are taken until there is more room"
            );
        } else {
            tracing::info!(free, reserve, "there is room for the log again");
        }
    }
}

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_compared_with_the_reserve() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Room::of(folder.path(), 1).is_short());
        assert!(Room::of(folder.path(), u64::MAX).is_short());
        let gone = folder.path().join("gone");
        assert!(Room::of(&gone, 1).is_short(), "what is not known");
        assert!(!Room::of(&gone, 0).is_short(), "no reserve, no question");
    }
}
