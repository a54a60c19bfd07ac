//! A log in a directory.
//!
//! `segments/<first index, 20 digits>`, `hashes/<level>`, `checkpoint`, and the empty `lock`, which
//! is held with flock while the log is open. Files are made 0600, directories 0700. Temporary files
//! lie beside the directory, in its parent: `<directory>.tmp-checkpoint`, `<directory>.tmp-create`.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{FileId, Store, StoreError};

/// A store in a directory of its own.
#[derive(Debug)]
pub struct FileStore {
    /// The directory's final path.
    directory: PathBuf,
    state: Mutex<State>,
    /// None is held to read only.
    lock: Option<Lock>,
}

#[derive(Debug)]
struct State {
    /// Where the files are now: beside the directory while the store is being created.
    root: PathBuf,
    /// Open files. Old segments are closed again when there are many.
    open: BTreeMap<FileId, Arc<File>>,
}

impl FileStore {
    /// Opens the log in `directory` to write.
    ///
    /// # Errors
    /// [`StoreError`]: not there, not a log, or open in another process.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|e| StoreError::new("open", path.display(), e))?;
        let lock = Lock::take(lock, &path)?;
        Ok(Self::new(directory, directory.to_owned(), Some(lock)))
    }

    /// Looks at a log without locking it: it may be running. Writing fails.
    #[must_use]
    pub fn inspect(directory: &Path) -> Self {
        Self::new(directory, directory.to_owned(), None)
    }

    /// Begins a new log, which appears at `directory` with [`Store::publish`].
    ///
    /// # Errors
    /// [`StoreError`]: `directory` is there already (unless it is empty), or cannot be made.
    pub fn create(directory: &Path) -> Result<Self, StoreError> {
        if directory.exists() && !is_empty(directory)? {
            let exists = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(StoreError::new("create", directory.display(), exists));
        }
        let root = beside(directory, "create");
        // What an interrupted creation left was never a log.
        match fs::remove_dir_all(&root) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::new("remove", root.display(), e));
            }
            _ => {}
        }
        for path in [root.clone(), root.join(SEGMENTS), root.join(HASHES)] {
            DirBuilder::new()
                .mode(0o700)
                .create(&path)
                .map_err(|e| StoreError::new("create", path.display(), e))?;
        }
        let path = root.join(LOCK);
        let lock = Lock::take(new_file(&path)?, &path)?;
        Ok(Self::new(directory, root, Some(lock)))
    }

    /// The first records of the segments, in order; what else is there does not matter.
    pub(crate) fn segments(&self) -> Result<Vec<u64>, StoreError> {
        let names = names(&self.directory.join(SEGMENTS))?;
        let mut firsts: Vec<u64> = names
            .iter()
            .filter_map(
                |name| match FileId::from_path(&format!("{SEGMENTS}/{name}"))? {
                    FileId::Segment(first) => Some(first),
                    FileId::Hashes(_) => None,
                },
            )
            .collect();
        firsts.sort_unstable();
        Ok(firsts)
    }

    fn new(directory: &Path, root: PathBuf, lock: Option<Lock>) -> Self {
        let state = State {
            root,
            open: BTreeMap::new(),
        };
        Self {
            directory: directory.to_owned(),
            state: Mutex::new(state),
            lock,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, id: FileId) -> Result<Arc<File>, StoreError> {
        let mut state = self.state();
        if let Some(file) = state.open.get(&id) {
            return Ok(Arc::clone(file));
        }
        let path = state.root.join(id.to_string());
        let file = OpenOptions::new()
            .read(true)
            .write(self.lock.is_some())
            .open(&path)
            .map_err(|e| StoreError::new("open", id, e))?;
        Ok(state.keep(id, file))
    }
}

impl State {
    fn keep(&mut self, id: FileId, file: File) -> Arc<File> {
        if self.open.len() >= MAX_OPEN {
            // Segments come first in the order, the oldest before the others.
            self.open.pop_first();
        }
        let file = Arc::new(file);
        self.open.insert(id, Arc::clone(&file));
        file
    }
}

impl Store for FileStore {
    fn files(&self) -> Result<Vec<FileId>, StoreError> {
        let root = self.state().root.clone();
        list(&root)
    }

    fn create(&self, id: FileId) -> Result<(), StoreError> {
        let mut state = self.state();
        let path = state.root.join(id.to_string());
        // Opened first: where there is no descriptor for it nothing is made, and `create` can be tried again.
        let directory = open_directory(parent(&path))?;
        let file = new_file(&path)?;
        sync_all(&directory, parent(&path))?;
        state.keep(id, file);
        Ok(())
    }

    fn len(&self, id: FileId) -> Result<u64, StoreError> {
        let metadata = self.file(id)?.metadata();
        Ok(metadata
            .map_err(|e| StoreError::new("measure", id, e))?
            .len())
    }

    fn read_at(&self, id: FileId, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let file = self.file(id)?;
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            let at = offset + u64::try_from(read).unwrap_or(u64::MAX);
            match file.read_at(rest, at) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(StoreError::new("read", id, e)),
            }
        }
        Ok(read)
    }

    fn write_at(&self, id: FileId, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.file(id)?
            .write_all_at(bytes, offset)
            .map_err(|e| StoreError::new("write", id, e))
    }

    fn sync(&self, id: FileId) -> Result<(), StoreError> {
        self.file(id)?
            .sync_data()
            .map_err(|e| StoreError::new("sync", id, e))
    }

    fn truncate(&self, id: FileId, length: u64) -> Result<(), StoreError> {
        let file = self.file(id)?;
        file.set_len(length)
            .and_then(|()| file.sync_data())
            .map_err(|e| StoreError::new("truncate", id, e))
    }

    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.state().root.join(CHECKPOINT);
        match File::open(&path) {
            Ok(file) => {
                let mut note = Vec::new();
                file.take(MAX_CHECKPOINT)
                    .read_to_end(&mut note)
                    .map_err(|e| StoreError::new("read", CHECKPOINT, e))?;
                Ok(Some(note))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::new("open", CHECKPOINT, e)),
        }
    }

    fn replace_checkpoint(&self, note: &[u8]) -> Result<(), StoreError> {
        let root = self.state().root.clone();
        let temporary = beside(&self.directory, "checkpoint");
        let replace = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(note)?;
            file.sync_data()?;
            fs::rename(&temporary, root.join(CHECKPOINT))
        };
        replace().map_err(|e| StoreError::new("replace", CHECKPOINT, e))?;
        sync_directory(&root)
    }

    fn publish(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        for path in [
            state.root.join(SEGMENTS),
            state.root.join(HASHES),
            state.root.clone(),
        ] {
            sync_directory(&path)?;
        }
        fs::rename(&state.root, &self.directory)
            .map_err(|e| StoreError::new("publish", self.directory.display(), e))?;
        sync_directory(parent(&self.directory))?;
        state.root.clone_from(&self.directory);
        Ok(())
    }
}

/// The segment and hash files of a log directory, in order; anything else there is an error.
pub(crate) fn list(root: &Path) -> Result<Vec<FileId>, StoreError> {
    let mut files = Vec::new();
    for name in names(root)? {
        match name.as_str() {
            CHECKPOINT => {}
            LOCK if fs::metadata(root.join(LOCK)).is_ok_and(|lock| lock.len() == 0) => {}
            SEGMENTS | HASHES => {
                for inner in names(&root.join(&name))? {
                    let path = format!("{name}/{inner}");
                    let id = FileId::from_path(&path).ok_or_else(|| foreign(&path))?;
                    files.push(id);
                }
            }
            _ => return Err(foreign(&name)),
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The checkpoint's file name.
pub(crate) const CHECKPOINT: &str = "checkpoint";

fn foreign(path: &str) -> StoreError {
    let error = io::Error::new(
        io::ErrorKind::InvalidData,
        "it does not belong in a log directory",
    );
    StoreError::new("accept", path, error)
}

/// The held lock file of a log. It is given back by name: a child that is just being started has a copy of every
/// descriptor until it runs its program, and closing ours alone would leave the lock with it.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn take(file: File, path: &Path) -> Result<Self, StoreError> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(e) => {
                let source = match e {
                    TryLockError::WouldBlock => {
                        io::Error::new(io::ErrorKind::WouldBlock, "another process has it open")
                    }
                    TryLockError::Error(e) => e,
                };
                Err(StoreError::new("lock", path.display(), source))
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What fails here is undone by closing.
        let _ = self.0.unlock();
    }
}

fn names(directory: &Path) -> Result<Vec<String>, StoreError> {
    let entries = || {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()
    };
    entries().map_err(|e| StoreError::new("list", directory.display(), e))
}

fn is_empty(directory: &Path) -> Result<bool, StoreError> {
    Ok(names(directory)?.is_empty())
}

fn new_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| StoreError::new("create", path.display(), e))
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    sync_all(&open_directory(path)?, path)
}

fn open_directory(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(|e| StoreError::new("open", path.display(), e))
}

/// Only this is a failed sync, after which nothing is tried again.
fn sync_all(directory: &File, path: &Path) -> Result<(), StoreError> {
    let synced = directory.sync_all();
    synced.map_err(|e| StoreError::new("sync", path.display(), e))
}

fn parent(directory: &Path) -> &Path {
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn beside(directory: &Path, what: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".tmp-");
    name.push(what);
    parent(directory).join(name)
}

const LOCK: &str = "lock";
const SEGMENTS: &str = "segments";
const HASHES: &str = "hashes";
const MAX_OPEN: usize = 64;
const MAX_CHECKPOINT: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn created(directory: &Path) -> FileStore {
        let store = FileStore::create(directory).unwrap();
        store.create(FileId::Segment(0)).unwrap();
        store.publish().unwrap();
        store
    }

    #[test]
    fn nothing_is_there_before_publish() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("log");
        let store = FileStore::create(&directory).unwrap();
        store.create(FileId::Segment(0)).unwrap();
        assert!(!directory.exists());
        store.publish().unwrap();
        assert_eq!(store.files().unwrap(), [FileId::Segment(0)]);
        store.write_at(FileId::Segment(0), 0, b"after").unwrap();
        assert_eq!(
            fs::read(directory.join("segments/00000000000000000000")).unwrap(),
            b"after"
        );
        let left: Vec<_> = names(temp.path()).unwrap();
        assert_eq!(left, ["log"], "no temporary directory stays");
    }

    #[test]
    fn never_overwrites() {
        let temp = tempfile::tempdir().unwrap();
        drop(created(&temp.path().join("log")));
        assert!(FileStore::create(&temp.path().join("log")).is_err());
    }

    #[test]
    fn one_writer_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let store = created(&temp.path().join("log"));
        let error = FileStore::open(&temp.path().join("log")).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
        // What a child has until it runs its program.
        let copy = store.lock.as_ref().unwrap().0.try_clone().unwrap();
        drop(store);
        FileStore::open(&temp.path().join("log")).unwrap();
        drop(copy);
    }

    #[test]
    fn files_are_for_their_owner_only() {
        let temp = tempfile::tempdir().unwrap();
        let store = created(&temp.path().join("log"));
        store.replace_checkpoint(b"note").unwrap();
        let root = temp.path().join("log");
        for file in ["lock", "checkpoint", "segments/00000000000000000000"] {
            let mode = fs::metadata(root.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert_eq!(
            fs::metadata(root).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn foreign_files_are_refused() {
        for path in [
            "notes.txt",
            "segments/1",
            "hashes/00",
            "hashes/8",
            "segments/x",
        ] {
            let temp = tempfile::tempdir().unwrap();
            let store = created(&temp.path().join("log"));
            fs::write(temp.path().join("log").join(path), b"").unwrap();
            let error = store.files().unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
        let temp = tempfile::tempdir().unwrap();
        let store = created(&temp.path().join("log"));
        fs::write(temp.path().join("log/lock"), b"x").unwrap();
        assert!(store.files().is_err(), "the lock file is empty");
    }

    #[test]
    fn many_segments_do_not_keep_many_files_open() {
        let temp = tempfile::tempdir().unwrap();
        let store = created(&temp.path().join("log"));
        for first in 1..200 {
            store.create(FileId::Segment(first)).unwrap();
            store.write_at(FileId::Segment(first), 0, b"x").unwrap();
        }
        assert!(store.state().open.len() <= MAX_OPEN);
        let mut byte = [0];
        assert_eq!(store.read_at(FileId::Segment(3), 0, &mut byte).unwrap(), 1);
    }
}
