//! Writes a folder's files all or none: checked before anything is asked of anybody, written aside,
//! then renamed.
//!
//! A folder that did not exist appears whole, in one rename. In one that did, the files are renamed
//! one after the other in the order in which they were written; callers write keys before
//! certificates, so that whoever sees a new certificate finds its key. When a rename fails, the
//! files before it are put back.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use agentca_identity::crypto;

/// What happens to files that are already there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Existing {
    /// They stay, and nothing is written.
    Refuse,
    /// They are replaced.
    Replace,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Readers {
    /// Its owner: mode 0600.
    Owner,
    /// Everybody: mode 0644, less the umask.
    Everybody,
}

/// Why files could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StagingError {
    #[error("{} already exists and is left alone, {advice}", path.display())]
    Exists { path: PathBuf, advice: &'static str },
    #[error("{} is not a folder, give another", .0.display())]
    NotAFolder(PathBuf),
    #[error("{} is not the name of a file, give another", .0.display())]
    NotAFile(PathBuf),
    #[error("could not write {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Files on their way into a folder. Dropped before `commit`, nothing has happened.
#[derive(Debug)]
pub(crate) struct Staging {
    target: PathBuf,
    aside: PathBuf,
    fresh: bool,
    written: Vec<String>,
    /// Folders above it that were not there, the innermost first.
    made: Vec<PathBuf>,
}

impl Staging {
    /// Checks that `names` may be written into `target`, and makes the place aside.
    pub(crate) fn prepare(
        target: &Path,
        names: &[&str],
        existing: Existing,
    ) -> Result<Self, StagingError> {
        let fresh = match fs::metadata(target) {
            Ok(found) if !found.is_dir() => {
                return Err(StagingError::NotAFolder(target.to_owned()));
            }
            Ok(_) => false,
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(failed(target)(e)),
        };
        if existing == Existing::Refuse {
            for name in names {
                let path = target.join(name);
                if path.symlink_metadata().is_ok() {
                    let advice = "`--force` replaces it";
                    return Err(StagingError::Exists { path, advice });
                }
            }
        }
        let aside = if fresh {
            beside(target)
        } else {
            target.join(unused_name("new"))
        };
        let above = aside.parent().filter(|it| !it.as_os_str().is_empty());
        let missing = above.into_iter().flat_map(Path::ancestors);
        let missing = missing.take_while(|it| !it.as_os_str().is_empty() && !it.exists());
        // From here on whatever was made is taken away again unless it is committed.
        let staging = Self {
            target: target.to_owned(),
            fresh,
            written: Vec::new(),
            made: missing.map(Path::to_owned).collect(),
            aside,
        };
        if let Some(parent) = staging.aside.parent()
            && !parent.as_os_str().is_empty()
        {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&staging.aside)
            .map_err(failed(target))?;
        Ok(staging)
    }

    /// Writes one file aside, through to the disk.
    pub(crate) fn write(
        &mut self,
        name: &str,
        contents: &[u8],
        readers: Readers,
    ) -> Result<(), StagingError> {
        let path = self.aside.join(name);
        let mode = match readers {
            Readers::Owner => 0o600,
            Readers::Everybody => 0o644,
        };
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(contents)?;
                file.sync_all()
            })
            .map_err(failed(&self.target.join(name)))?;
        self.written.push(name.to_owned());
        Ok(())
    }

    /// Puts everything that was written in its place.
    pub(crate) fn commit(self) -> Result<(), StagingError> {
        if self.fresh {
            fs::rename(&self.aside, &self.target).map_err(failed(&self.target))?;
            return sync(self.target.parent().filter(|p| !p.as_os_str().is_empty()));
        }
        for (done, name) in self.written.iter().enumerate() {
            if let Err(e) = self.replace(name) {
                for earlier in self.written.iter().take(done) {
                    self.put_back(earlier);
                }
                return Err(failed(&self.target.join(name))(e));
            }
        }
        sync(Some(&self.target))
    }

    fn replace(&self, name: &str) -> io::Result<()> {
        let place = self.target.join(name);
        match fs::hard_link(&place, self.former(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        fs::rename(self.aside.join(name), place)
    }

    fn put_back(&self, name: &str) {
        let place = self.target.join(name);
        let former = self.former(name);
        // The first failure is what the caller is told; there is nothing better to do about a second.
        let _ = if former.exists() {
            fs::rename(former, place)
        } else {
            fs::remove_file(place)
        };
    }

    fn former(&self, name: &str) -> PathBuf {
        self.aside.join(format!("{name}.former"))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Gone already when a fresh folder was put in its place.
        let _ = fs::remove_dir_all(&self.aside);
        // Innermost first; one with something in it stays, and so does whatever is above it.
        for folder in &self.made {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

/// Writes single files, each whole or not at all, none of them before all may be written.
pub(crate) fn write_files<'a>(
    files: impl IntoIterator<Item = (&'a Path, &'a [u8])>,
    existing: Existing,
) -> Result<(), StagingError> {
    let mut staged = Vec::new();
    for (path, contents) in files {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| StagingError::NotAFile(path.to_owned()))?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut staging = Staging::prepare(folder, &[name], existing)?;
        staging.write(name, contents, Readers::Everybody)?;
        staged.push(staging);
    }
    staged.into_iter().try_for_each(Staging::commit)
}

/// A place next to a folder that is to be made.
fn beside(target: &Path) -> PathBuf {
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = target
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    parent.join(unused_name(&name))
}

fn unused_name(stem: &str) -> String {
    let random = u64::from_be_bytes(crypto::random::<8>());
    format!(".{stem}.tmp-{random:016x}")
}

fn sync(folder: Option<&Path>) -> Result<(), StagingError> {
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(failed(folder))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StagingError {
    let path = path.to_owned();
    move |source| StagingError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_folder_appears_whole() {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("deep/agent");
        let mut staging = Staging::prepare(&target, &["a.key", "a.crt"], Existing::Refuse).unwrap();
        staging.write("a.key", b"key", Readers::Owner).unwrap();
        staging.write("a.crt", b"crt", Readers::Everybody).unwrap();
        assert!(!target.exists());
        staging.commit().unwrap();
        assert_eq!(files(&target), ["a.crt", "a.key"]);
        assert_eq!(files(target.parent().unwrap()), ["agent"]);
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&target.join("a.key")), 0o600);
        assert_eq!(mode(&target), 0o700);
    }

    #[test]
    fn dropped_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("agent");
        let mut staging = Staging::prepare(&target, &["a"], Existing::Refuse).unwrap();
        staging.write("a", b"1", Readers::Owner).unwrap();
        drop(staging);
        assert!(files(home.path()).is_empty());
        // Nor of the folders above, as far as they were made for this.
        fs::create_dir(home.path().join("n1")).unwrap();
        let target = home.path().join("n1/n2/n3/agent");
        drop(Staging::prepare(&target, &["a"], Existing::Refuse).unwrap());
        assert!(files(&home.path().join("n1")).is_empty());
    }

    #[test]
    fn what_is_there_is_refused_or_replaced() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("a"), "old").unwrap();
        fs::write(home.path().join("other"), "kept").unwrap();
        let refused = Staging::prepare(home.path(), &["b", "a"], Existing::Refuse);
        assert!(matches!(refused, Err(StagingError::Exists { .. })));
        assert_eq!(files(home.path()), ["a", "other"]);

        let mut staging = Staging::prepare(home.path(), &["a", "b"], Existing::Replace).unwrap();
        staging.write("a", b"new", Readers::Owner).unwrap();
        staging.write("b", b"new", Readers::Owner).unwrap();
        staging.commit().unwrap();
        assert_eq!(files(home.path()), ["a", "b", "other"]);
        assert_eq!(fs::read(home.path().join("a")).unwrap(), b"new");
    }

    #[test]
    fn a_failed_replacement_puts_the_old_files_back() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("a"), "old").unwrap();
        let mut staging =
            Staging::prepare(home.path(), &["a", "b", "c"], Existing::Replace).unwrap();
        for name in ["a", "b", "c"] {
            staging.write(name, b"new", Readers::Owner).unwrap();
        }
        // A folder where the third file should go.
        fs::create_dir(home.path().join("c")).unwrap();
        assert!(staging.commit().is_err());
        assert_eq!(files(home.path()), ["a", "c"]);
        assert_eq!(fs::read(home.path().join("a")).unwrap(), b"old");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_as_it_was_given() {
        // Nobody makes folders there.
        let refused = Staging::prepare(Path::new("/proc/agent"), &["a"], Existing::Refuse);
        let said = refused.unwrap_err().to_string();
        assert!(said.starts_with("could not write /proc/agent: "), "{said}");
    }

    #[test]
    fn a_file_is_no_folder() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = Staging::prepare(&file, &["a"], Existing::Replace);
        assert!(matches!(refused, Err(StagingError::NotAFolder(_))));
    }
}
