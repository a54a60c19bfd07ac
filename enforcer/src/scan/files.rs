//! A catalogue and its pins on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use agentca_policy::{Permissions, PermissionsDecl, PinsFile};
use toml::{Table, Value};

use super::Plan;
use crate::config::pins_path;

/// A catalogue as it is before a scan.
#[derive(Debug)]
pub struct CatalogueFiles {
    path: PathBuf,
    /// None when there is no such file yet.
    text: Option<String>,
    /// What each declared tool may reach.
    tools: BTreeMap<(String, String), Permissions>,
    methods: BTreeSet<(String, String)>,
    pub(super) pins: PinsFile,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct FileError {
    path: PathBuf,
    message: String,
}

impl FileError {
    pub(super) fn new(path: &Path, message: impl ToString) -> Self {
        Self {
            path: path.to_owned(),
            message: message.to_string(),
        }
    }
}

impl CatalogueFiles {
    /// Reads a catalogue and the pins beside it, as far as they are there.
    ///
    /// # Errors
    /// [`FileError`]: one of them is there and cannot be read.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        if path.extension().is_none_or(|extension| extension != "toml") {
            return Err(FileError::new(path, "its name has to end with `.toml`"));
        }
        let text = existing(path)?;
        let parsed = text.as_deref().unwrap_or_default().parse::<Table>();
        let table = parsed.map_err(|error| FileError::new(path, error.message()))?;
        Ok(Self {
            path: path.to_owned(),
            text,
            tools: named(&table, "tool").map(permitted).collect(),
            methods: named(&table, "method").map(|(name, _)| name).collect(),
            pins: read_pins(&pins_path(path))?,
        })
    }

    /// Whether a tool has a table.
    #[must_use]
    pub fn has_tool(&self, upstream: &str, name: &str) -> bool {
        self.permissions(upstream, name).is_some()
    }

    /// What a tool's table says that it may reach; none when it has no table.
    #[must_use]
    pub fn permissions(&self, upstream: &str, name: &str) -> Option<Permissions> {
        let name = (upstream.to_owned(), name.to_owned());
        self.tools.get(&name).copied()
    }

    /// Whether a method has a table.
    #[must_use]
    pub fn has_method(&self, upstream: &str, name: &str) -> bool {
        self.methods
            .contains(&(upstream.to_owned(), name.to_owned()))
    }

    /// The whole text with tables at its end.
    #[must_use]
    pub fn text_with(&self, tables: &str) -> String {
        let mut text = match &self.text {
            Some(text) => text.clone(),
            None => HEAD.to_owned(),
        };
        if !tables.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(tables);
        text
    }

    /// Adds tables at the end, and says whether that was needed: none of a tool that has one.
    ///
    /// # Errors
    /// [`FileError`], also when no table can stand at the end of this file.
    pub fn append(&self, tables: &str) -> Result<bool, FileError> {
        let text = self.text_with(tables);
        let parsed = text.parse::<Table>();
        let parsed = parsed.map_err(|error| FileError::new(&self.path, error.message()))?;
        if named(&parsed, "tool").all(|(name, _)| self.tools.contains_key(&name)) {
            return Ok(false);
        }
        write_file(&self.path, text.as_bytes()).map(|()| true)
    }

    /// Writes what a scan adds; what is as it was is not touched. Gives the files that were written.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write(&self, plan: &Plan) -> Result<Vec<PathBuf>, FileError> {
        let mut written = Vec::new();
        let pins = pins_path(&self.path);
        // A pin without its table does nothing, so that comes first.
        if plan.has_new_pins {
            let json = plan.pins.to_json();
            let json = json.map_err(|error| FileError::new(&pins, error))?;
            write_file(&pins, json.as_bytes())?;
            written.push(pins);
        }
        if !plan.added.is_empty() || self.text.is_none() {
            write_file(&self.path, self.text_with(&plan.added).as_bytes())?;
            written.push(self.path.clone());
        }
        Ok(written)
    }
}

/// Reads a file of pins; none is an empty one.
///
/// # Errors
/// [`FileError`]: everything that is wrong with it.
pub fn read_pins(path: &Path) -> Result<PinsFile, FileError> {
    let Some(text) = existing(path)? else {
        return Ok(PinsFile::default());
    };
    PinsFile::parse(&text).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        FileError::new(path, faults.join("; "))
    })
}

/// Writes a file beside its place and moves it there, so that it is never seen in part.
///
/// # Errors
/// [`FileError`].
pub fn write_file(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.new", std::process::id()));
    let aside = PathBuf::from(aside);
    let write = || -> io::Result<()> {
        let mut file = File::create_new(&aside)?;
        file.write_all(content)?;
        if let Ok(there) = fs::metadata(path) {
            file.set_permissions(there.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&aside, path)?;
        File::open(folder_of(path))?.sync_all()
    };
    write().map_err(|error| {
        // What is left of it is of no use.
        let _gone = fs::remove_file(&aside);
        FileError::new(path, format!("cannot be written: {error}"))
    })
}

/// Keeps every other command of ours from the files of a folder while it is held.
#[derive(Debug)]
pub struct FolderLock {
    _folder: File,
}

impl FolderLock {
    /// The same of several files, each folder once and always in the same order.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn of_all<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Vec<Self>, FileError> {
        let folders = paths.map(|path| {
            let folder = folder_of(path).canonicalize();
            let folder = folder.map_err(|error| FileError::new(path, error))?;
            Ok((folder, path))
        });
        let folders: BTreeMap<PathBuf, &Path> = folders.collect::<Result<_, _>>()?;
        folders.into_values().map(Self::of).collect()
    }

    /// Waits until nobody else holds the folder of a file.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn of(path: &Path) -> Result<Self, FileError> {
        // A file that is replaced can't be held itself.
        let folder = File::open(folder_of(path)).and_then(|folder| {
            folder.lock()?;
            Ok(folder)
        });
        let folder =
            folder.map_err(|error| FileError::new(path, format!("cannot be held: {error}")))?;
        Ok(Self { _folder: folder })
    }
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent();
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn existing(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new(path, format!("cannot be read: {error}"))),
    }
}

type Named<'a> = ((String, String), &'a Value);

/// The upstream and name of each table of a kind, and the table.
fn named<'a>(table: &'a Table, kind: &str) -> impl Iterator<Item = Named<'a>> {
    let tables = table.get(kind).and_then(Value::as_array);
    let text = |table: &Value, key: &str| Some(table.get(key)?.as_str()?.to_owned());
    let named = move |table: &'a Value| {
        let name = (text(table, "upstream")?, text(table, "name")?);
        Some((name, table))
    };
    tables.into_iter().flatten().filter_map(named)
}

fn permitted((name, table): Named<'_>) -> ((String, String), Permissions) {
    let declared = table.get("permissions").cloned();
    let declared = declared.and_then(|table| table.try_into::<PermissionsDecl>().ok());
    (name, declared.unwrap_or_default().or(Permissions::NONE))
}

const HEAD: &str = "\
# What agents may call of MCP servers; `catalogue = [\"…\"]` in the enforcer's configuration names this file.
# `agentca-enforcer scan` wrote it from what a server says about itself: risks and permissions are guesses, to be
# corrected here. A later scan adds what is new at the end and leaves the rest alone.
";
