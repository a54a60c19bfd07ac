//! The files of disclosures: one a day, appended, searched, and erased in place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentca_auditlog::disclosure::Disclosed;
use agentca_identity::time::Timestamp;
use serde::Deserialize;

/// The files as their writer has them.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    max_age: Duration,
    today: Option<(String, File)>,
    /// The last line may be half there.
    torn: bool,
}

impl Files {
    pub(super) fn new(dir: PathBuf, max_age: Duration) -> Self {
        Self {
            dir,
            max_age,
            today: None,
            torn: false,
        }
    }

    /// Appends lines to today's file.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let day = day_of(Timestamp::now());
        let open = self.today.take().filter(|(open, _)| *open == day);
        let mut file = match open {
            Some((_, file)) => file,
            None => {
                self.sweep();
                self.torn = true;
                open_to_append(&self.dir, &day)?
            }
        };
        // A line end after whatever is there: one that was cut off spoils no other.
        let mut written = if self.torn {
            file.write_all(b"\n")
        } else {
            Ok(())
        };
        written = written.and_then(|()| file.write_all(lines));
        self.torn = written.is_err();
        self.today = Some((day, file));
        written
    }

    /// Deletes the files that are too old.
    pub(super) fn sweep(&self) {
        let now = Timestamp::now();
        let files = match list(&self.dir) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, dir = %self.dir.display(), "old disclosures cannot be looked for");
                return;
            }
        };
        for DayFile { path, begins } in files {
            if now.saturating_since(begins) <= self.max_age.saturating_add(DAY) {
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(file = %path.display(), "old disclosures deleted"),
                Err(error) => {
                    tracing::warn!(%error, file = %path.display(), "old disclosures stay");
                }
            }
        }
    }
}

fn open_to_append(dir: &Path, day: &str) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(dir.join(format!("{day}{SUFFIX}")))
}

pub(super) fn push_line(out: &mut Vec<u8>, index: u64, disclosures: &[String]) {
    out.extend_from_slice(line(index, disclosures).as_bytes());
    out.push(b'\n');
}

/// Base64url needs no escaping.
fn line(index: u64, disclosures: &[String]) -> String {
    let begin = beginning(index);
    if disclosures.is_empty() {
        return format!("{begin}\"disclosures\":[]}}");
    }
    format!(
        "{begin}\"disclosures\":[\"{}\"]}}",
        disclosures.join("\",\"")
    )
}

fn beginning(index: u64) -> String {
    format!("{{\"index\":{index},")
}

/// The disclosures that were kept for record `index`, which was written about `time`. Whether each is of
/// that record is another question.
pub(crate) fn find(dir: &Path, index: u64, time: Timestamp) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for DayFile { path, begins } in list(dir)? {
        let near = begins.saturating_since(time) <= DAY && time.saturating_since(begins) <= DAY * 2;
        if near {
            each_line(&File::open(path)?, index, |_, line| {
                found.extend(read(line));
                Ok(())
            })?;
        }
    }
    Ok(found)
}

/// Overwrites the disclosures of record `index`, of one argument or of all, and says how many they
/// were. Files keep their size, so that an enforcer may go on appending.
pub(crate) fn erase(dir: &Path, index: u64, argument: Option<&str>) -> io::Result<usize> {
    let mut erased = 0;
    for DayFile { path, .. } in list(dir)? {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let before = erased;
        each_line(&file, index, |offset, text| {
            let all = read(text);
            let stays: Vec<String> = all
                .iter()
                .filter(|disclosure| argument.is_some_and(|key| !is_of(disclosure, key)))
                .cloned()
                .collect();
            erased += all.len().saturating_sub(stays.len());
            let rest = if stays.is_empty() {
                String::new()
            } else {
                line(index, &stays)
            };
            let blank = " ".repeat(text.len().saturating_sub(rest.len()));
            file.write_all_at((rest + &blank).as_bytes(), offset)
        })?;
        if erased > before {
            file.sync_all()?;
        }
    }
    Ok(erased)
}

fn is_of(disclosure: &str, key: &str) -> bool {
    Disclosed::read(disclosure).is_ok_and(|told| told.key == key)
}

/// Whatever cannot be read was cut off, or erased.
fn read(line: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Line {
        disclosures: Vec<String>,
    }
    serde_json::from_str(line).map_or_else(|_| Vec::new(), |line: Line| line.disclosures)
}

/// Calls for each line of a record, with where it begins; without its end.
fn each_line(
    file: &File,
    index: u64,
    mut found: impl FnMut(u64, &str) -> io::Result<()>,
) -> io::Result<()> {
    let (begin, mut lines) = (beginning(index), BufReader::new(file));
    let (mut line, mut offset) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        let length = lines.read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        if line.starts_with(begin.as_bytes())
            && let Some(Ok(text)) = line.strip_suffix(b"\n").map(std::str::from_utf8)
        {
            found(offset, text)?;
        }
        offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
}

/// A file, and when its day begins.
struct DayFile {
    path: PathBuf,
    begins: Timestamp,
}

/// The files by day; what has another name is not ours.
fn list(dir: &Path) -> io::Result<Vec<DayFile>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let day = name.and_then(|name| name.strip_suffix(SUFFIX));
        let begins = day.map(|day| Timestamp::parse_rfc3339(&format!("{day}T00:00:00.000Z")));
        if let Some(Ok(begins)) = begins {
            files.push(DayFile { path, begins });
        }
    }
    files.sort_by_key(|file| file.begins);
    Ok(files)
}

/// `2026-11-21`, in UTC.
fn day_of(time: Timestamp) -> String {
    let mut text = time.rfc3339();
    text.truncate(10);
    text
}

const SUFFIX: &str = ".jsonl";
const DAY: Duration = Duration::from_secs(24 * 3_600);
