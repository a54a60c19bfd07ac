//! The bridge as an entry of a client's configuration. Only clients whose files are documented are here;
//! for others the entry is printed.

mod edit;
mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use agentca_identity::time::Timestamp;

/// A client whose configuration is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Client {
    /// Claude Desktop: the person's claude_desktop_config.json
    ClaudeDesktop,
    /// Claude Code: .mcp.json of the project in this folder
    ClaudeCode,
    /// Cursor: ~/.cursor/mcp.json
    Cursor,
    /// VS Code: .vscode/mcp.json of the project in this folder
    Vscode,
    /// Windsurf: ~/.codeium/windsurf/mcp_config.json
    Windsurf,
    /// Codex: config.toml in $CODEX_HOME or ~/.codex
    Codex,
    /// Gemini CLI: ~/.gemini/settings.json
    Gemini,
}

/// How the client starts the bridge.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) arguments: Vec<String>,
}

/// What is going to be written.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) path: PathBuf,
    before: Option<String>,
    after: String,
}

/// Why nothing is written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    #[error("HOME is not set, give the configuration with `--file`")]
    NoHome,
    #[error("could not read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("could not write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is left alone: {source}; `--print` shows the entry to add by hand", path.display())]
    Edit { path: PathBuf, source: EditError },
}

/// Why a configuration can't be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("it is not JSON ({0})")]
    NotJson(#[from] serde_json::Error),
    #[error("it is not TOML: {0}")]
    NotToml(#[from] toml::de::Error),
    #[error("`{0}` is there twice")]
    Twice(String),
    #[error("`{0}` is no object")]
    NotAnObject(String),
    #[error("`{0}` is not written as tables of their own")]
    NotTables(String),
}

impl Client {
    /// Where its configuration is; `variable` knows folders that the environment names.
    pub(crate) fn path(
        self,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<PathBuf, InstallError> {
        let home = |below: &str| Ok(variable("HOME").ok_or(InstallError::NoHome)?.join(below));
        match self {
            Self::Codex => match variable("CODEX_HOME") {
                Some(folder) => Ok(folder.join("config.toml")),
                None => home(".codex/config.toml"),
            },
            Self::Gemini => home(".gemini/settings.json"),
            Self::ClaudeCode => Ok(PathBuf::from(".mcp.json")),
            Self::Vscode => Ok(PathBuf::from(".vscode/mcp.json")),
            Self::Cursor => home(".cursor/mcp.json"),
            Self::Windsurf => home(".codeium/windsurf/mcp_config.json"),
            Self::ClaudeDesktop if cfg!(target_os = "macos") => {
                home("Library/Application Support/Claude/claude_desktop_config.json")
            }
            Self::ClaudeDesktop => home(".config/Claude/claude_desktop_config.json"),
        }
    }

    /// The member of the configuration that holds the servers.
    fn key(self) -> &'static str {
        match self {
            Self::Vscode => "servers",
            Self::Codex => "mcp_servers",
            Self::ClaudeDesktop
            | Self::ClaudeCode
            | Self::Cursor
            | Self::Windsurf
            | Self::Gemini => "mcpServers",
        }
    }

    /// What the person has to do then.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "quit Claude Desktop and start it again",
            Self::ClaudeCode => "start `claude` in this folder and approve the server",
            Self::Cursor => "enable the server under Settings, Tools & MCP",
            Self::Vscode => "start the server with `MCP: List Servers` in the command palette",
            Self::Windsurf => "refresh the servers under Settings, Cascade",
            Self::Codex => "start `codex` anew and look at `/mcp`",
            Self::Gemini => "start `gemini` anew and look at `/mcp`",
        }
    }
}

impl Entry {
    /// As JSON for a client, its lines indented by `indent` but for the first.
    fn json(&self, client: Client, indent: &str) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let mut members = Vec::new();
        if client == Client::Vscode {
            members.push(r#""type": "stdio""#.to_owned());
        }
        members.push(format!(r#""command": {}"#, text(&self.command)));
        let arguments: Vec<String> = self.arguments.iter().map(|one| text(one)).collect();
        members.push(format!(r#""args": [{}]"#, arguments.join(", ")));
        let inner = format!(",\n{indent}  ");
        format!("{{\n{indent}  {}\n{indent}}}", members.join(&inner))
    }

    /// The text with the entry in its place; all else stays as it is, byte for byte.
    fn put_into(&self, text: &str, client: Client) -> Result<String, EditError> {
        let json = |indent: &str| self.json(client, indent);
        match client {
            Client::Codex => table::insert(text, client.key(), self),
            _ => edit::insert(text, client.key(), &self.name, &json),
        }
    }

    /// The whole of a configuration that holds nothing else.
    pub(crate) fn document(&self, client: Client) -> String {
        self.put_into("", client).unwrap_or_default()
    }
}

impl Plan {
    /// Reads a configuration and puts the entry in its place.
    pub(crate) fn make(path: PathBuf, client: Client, entry: &Entry) -> Result<Self, InstallError> {
        // What a link leads to is changed, not the link.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let before = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(InstallError::Read { path, source }),
        };
        let text = before.as_deref().unwrap_or_default();
        match entry.put_into(text, client) {
            Ok(after) => Ok(Self {
                path,
                before,
                after,
            }),
            Err(source) => Err(InstallError::Edit { path, source }),
        }
    }

    /// Whether everything is there already.
    pub(crate) fn is_done(&self) -> bool {
        self.before.as_deref() == Some(&self.after)
    }

    /// What changes, line by line.
    pub(crate) fn diff(&self) -> String {
        let before: Vec<&str> = self.before.as_deref().unwrap_or_default().lines().collect();
        let after: Vec<&str> = self.after.lines().collect();
        let same = before
            .iter()
            .zip(&after)
            .take_while(|(a, b)| a == b)
            .count();
        let shorter = before.len().min(after.len()) - same;
        let (tail_before, tail_after) = (before.iter().rev(), after.iter().rev());
        let same_end = tail_before
            .zip(tail_after)
            .take(shorter)
            .take_while(|(a, b)| a == b)
            .count();
        let shown = self.path.display();
        let mut text = format!("--- {shown}\n+++ {shown}\n");
        let mut lines = |sign: char, lines: &[&str], from: usize, to: usize| {
            for line in lines.get(from..to).unwrap_or_default() {
                text.push_str(&format!("{sign}{line}\n"));
            }
        };
        lines(' ', &before, same.saturating_sub(CONTEXT), same);
        lines('-', &before, same, before.len() - same_end);
        lines('+', &after, same, after.len() - same_end);
        let end = after.len() - same_end;
        lines(' ', &after, end, after.len().min(end + CONTEXT));
        text
    }

    /// Writes it, whole or not at all, and keeps what was there beside it: where that is.
    pub(crate) fn write(&self) -> Result<Option<PathBuf>, InstallError> {
        let failed = |source| InstallError::Write {
            path: self.path.clone(),
            source,
        };
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let aside = beside(&self.path, "new");
        let mut backup = None;
        if self.before.is_some() {
            // Copies may be read by nobody who could not read the file: there may be keys in it.
            let kept = beside(&self.path, &format!("backup-{}", Timestamp::now().secs()));
            fs::copy(&self.path, &kept).map_err(failed)?;
            fs::copy(&self.path, &aside).map_err(failed)?;
            backup = Some(kept);
        }
        fs::write(&aside, &self.after).map_err(failed)?;
        fs::rename(&aside, &self.path).map_err(failed)?;
        Ok(backup)
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{end}"));
    path.with_file_name(name)
}

/// Unchanged lines shown around a change.
const CONTEXT: usize = 2;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry() -> Entry {
        Entry {
            name: "payments".to_owned(),
            command: "/usr/bin/agentca-sidecar".to_owned(),
            arguments: vec!["connect".to_owned(), "--stdio".to_owned()],
        }
    }

    #[test]
    fn what_was_there_stays_and_is_kept_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mcp.json");
        let before = "{ \"z\": 1.50,\n  \"mcpServers\": {\n    \"other\": {\"command\":\"x\"}\n  },\n  \"a\": [ ]\n}\n";
        fs::write(&path, before).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let plan = Plan::make(path.clone(), Client::Cursor, &entry()).unwrap();
        assert!(!plan.is_done());
        let backup = plan.write().unwrap().unwrap();
        for file in [&path, &backup] {
            let mode = fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        assert_eq!(fs::read_to_string(backup).unwrap(), before);
        let after = fs::read_to_string(&path).unwrap();
        assert!(after.starts_with(
            "{ \"z\": 1.50,\n  \"mcpServers\": {\n    \"other\": {\"command\":\"x\"},\n"
        ));
        assert!(after.ends_with("\n  },\n  \"a\": [ ]\n}\n"), "{after}");
        let read: Value = serde_json::from_str(&after).unwrap();
        assert_eq!(read["mcpServers"]["payments"]["args"][1], "--stdio");
        let again = Plan::make(path, Client::Cursor, &entry()).unwrap();
        assert!(again.is_done());
    }

    #[test]
    fn a_new_file_is_made_in_the_clients_own_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".vscode/mcp.json");
        let plan = Plan::make(path.clone(), Client::Vscode, &entry()).unwrap();
        assert_eq!(plan.write().unwrap(), None);
        let read: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(read["servers"]["payments"]["type"], "stdio");
        let document: Value = serde_json::from_str(&entry().document(Client::Cursor)).unwrap();
        assert_eq!(document["mcpServers"]["payments"].get("type"), None);
    }

    #[test]
    fn a_diff_shows_what_changes_and_little_else() {
        let plan = Plan {
            path: PathBuf::from("f"),
            before: Some("1\n2\n3\n4\n5\n".to_owned()),
            after: "1\n2\n3\nnew\n4\n5\n".to_owned(),
        };
        assert_eq!(plan.diff(), "--- f\n+++ f\n 2\n 3\n+new\n 4\n 5\n");
    }

    #[test]
    fn a_file_that_is_not_understood_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mcp.json");
        for (client, text) in [
            (Client::Cursor, "{\n 'mcpServers': {}\n}"),
            (Client::Codex, "{\"mcp_servers\": {}}"),
        ] {
            fs::write(&path, text).unwrap();
            let refused = Plan::make(path.clone(), client, &entry()).unwrap_err();
            let refused = refused.to_string();
            assert!(
                refused.contains("left alone") && refused.contains("--print"),
                "{refused}"
            );
        }
    }

    #[test]
    fn codex_may_be_told_where_it_lives() {
        let only = |known: &'static str| {
            Client::Codex.path(move |name| (name == known).then(|| PathBuf::from("/x")))
        };
        assert_eq!(only("HOME").unwrap(), Path::new("/x/.codex/config.toml"));
        assert_eq!(only("CODEX_HOME").unwrap(), Path::new("/x/config.toml"));
        only("").unwrap_err();
    }
}
