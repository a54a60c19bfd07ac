//! What is wrong with a configuration: everything at once, each line with the file and the key.

use std::fmt;
use std::path::{Path, PathBuf};

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, when the text came from one.
    file: Option<PathBuf>,
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(crate) fn of(errors: Errors) -> Self {
        Self { file: None, errors }
    }

    /// Something about the file as a whole.
    pub(super) fn unreadable(file: &Path, source: &std::io::Error) -> Self {
        let message = format!(
            "{source}; name the configuration with `--config FILE` (enforcer/enforcer.example.toml, \
             in the source tree, is one)"
        );
        Self::of(vec![ConfigError {
            file: None,
            key: "cannot be read".to_owned(),
            message,
        }])
        .in_file(file)
    }

    /// Text that is no TOML.
    pub(super) fn syntax(text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or_default();
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text.get(begin..).unwrap_or_default().lines().next();
        let number = before.matches('\n').count().saturating_add(1);
        let shown: String = line
            .unwrap_or_default()
            .chars()
            .take(LONGEST_SHOWN)
            .collect();
        let said = error.message().replace('\n', ", ");
        Self::of(vec![ConfigError {
            file: None,
            key: format!("line {number}"),
            message: format!("`{}` is no TOML: {said}", shown.trim()),
        }])
    }

    /// The same, each line beginning with the file, unless it is about another one.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        Self {
            file: Some(file.to_owned()),
            ..self
        }
    }

    /// The errors in the order in which the file is read.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }

    /// Whether something is wrong with a file that the configuration names, not with itself.
    #[must_use]
    pub fn in_other_files(&self) -> bool {
        self.errors.iter().any(|error| error.file.is_some())
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            if let Some(file) = error.file.as_ref().or(self.file.as_ref()) {
                write!(f, "{}: ", file.display())?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigError {
    /// The file, unless it is the configuration itself.
    pub file: Option<PathBuf>,
    /// The key as in the file, list members by their place from 1: `route[2].scope`.
    pub key: String,
    /// What is wrong and what to write.
    pub message: String,
}

impl ConfigError {
    /// The same about another file, unless it is about one already.
    pub(super) fn in_file(self, file: &Path) -> Self {
        Self {
            file: self.file.or_else(|| Some(file.to_owned())),
            ..self
        }
    }
}

/// Collects errors while values are taken one by one.
pub(super) type Errors = Vec<ConfigError>;

/// Adds what is wrong with a key.
pub(super) fn blame(errors: &mut Errors, key: impl Into<String>, message: impl ToString) {
    errors.push(ConfigError {
        file: None,
        key: key.into(),
        message: message.to_string(),
    });
}

/// Adds what is wrong in another file.
pub(super) fn blame_in(
    errors: &mut Errors,
    file: &Path,
    key: impl Into<String>,
    message: impl ToString,
) {
    blame(errors, key, message);
    if let Some(error) = errors.last_mut() {
        error.file = Some(file.to_owned());
    }
}

/// The value, or none and its error noted.
pub(super) fn note<T>(
    errors: &mut Errors,
    key: &str,
    value: Result<T, impl fmt::Display>,
) -> Option<T> {
    value.map_err(|error| blame(errors, key, error)).ok()
}

/// Whether something is wrong with the key already, so that nothing follows from its absence.
pub(super) fn is_blamed(errors: &Errors, key: &str) -> bool {
    errors.iter().any(|error| error.key == key)
}

/// How much of a line that is no TOML is shown.
const LONGEST_SHOWN: usize = 80;
