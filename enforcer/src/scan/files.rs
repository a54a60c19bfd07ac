//! A catalogue and its pins on disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use agentca_policy::PinsFile;
use toml::{Table, Value};

use super::Plan;
use crate::config::pins_path;

/// A catalogue as it is before a scan.
#[derive(Debug)]
pub struct CatalogueFiles {
    path: PathBuf,
    /// None when there is no such file yet.
    text: Option<String>,
    tools: BTreeSet<(String, String)>,
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
            tools: named(&table, "tool"),
            methods: named(&table, "method"),
            pins: read_pins(&pins_path(path))?,
        })
    }

    /// Whether a tool has a table.
    #[must_use]
    pub fn has_tool(&self, upstream: &str, name: &str) -> bool {
        self.tools.contains(&(upstream.to_owned(), name.to_owned()))
    }

    /// Whether a method has a table.
    #[must_use]
    pub fn has_method(&self, upstream: &str, name: &str) -> bool {
        self.methods
            .contains(&(upstream.to_owned(), name.to_owned()))
    }

    /// The whole text after a scan.
    #[must_use]
    pub fn text_with(&self, plan: &Plan) -> String {
        let mut text = match &self.text {
            Some(text) => text.clone(),
            None => HEAD.to_owned(),
        };
        if !plan.added.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&plan.added);
        text
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
            write_file(&self.path, self.text_with(plan).as_bytes())?;
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
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| {
        // What is left of it is of no use.
        let _gone = fs::remove_file(&aside);
        FileError::new(path, format!("cannot be written: {error}"))
    })
}

fn existing(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new(path, format!("cannot be read: {error}"))),
    }
}

/// The upstream and name of each table of a kind.
fn named(table: &Table, kind: &str) -> BTreeSet<(String, String)> {
    let tables = table.get(kind).and_then(Value::as_array);
    let text = |table: &Value, key: &str| Some(table.get(key)?.as_str()?.to_owned());
    tables
        .into_iter()
        .flatten()
        .filter_map(|table| Some((text(table, "upstream")?, text(table, "name")?)))
        .collect()
}

const HEAD: &str = "\
# What agents may call of MCP servers; `catalogue = [\"…\"]` in the enforcer's configuration names this file.
# `agentca-enforcer scan` wrote it from what a server says about itself: risks and permissions are guesses, to be
# corrected here. A later scan adds what is new at the end and leaves the rest alone.
";
