//! The configuration that a command is about, and what the enforcer saw.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use agentca_identity::chain::TrustAnchor;
use agentca_identity::time::Timestamp;
use agentca_policy::{Permissions, Rejection, Tool, ToolDefinition, is_segment};

use crate::approvals;
use crate::cli::output::{Failure, printable, shell_word, told};
use crate::config::Config;
use crate::mcp::{Approval, SeenFile, Shown};
use crate::mcp_client::ListedTool;
use crate::reload::{Refused, last_refused};

/// A configuration that was read.
#[derive(Debug)]
pub(super) struct Opened {
    path: PathBuf,
    pub(super) config: Config,
    /// What the enforcer that runs with it refused last, unless it took more since.
    pub(super) refused: Option<Refused>,
}

/// A tool of a server: `payments:refund`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToolName {
    pub(super) upstream: String,
    pub(super) tool: String,
}

impl Opened {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let config = Config::load(path).map_err(Failure::usage)?;
        let refused = last_refused(&config.data_dir);
        refused.iter().for_each(told);
        Ok(Self {
            path: path.to_owned(),
            config,
            refused,
        })
    }

    /// The configuration's file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The digest of a tool's pin.
    pub(super) fn pinned(&self, name: &ToolName) -> Option<[u8; 32]> {
        let parts = self.config.catalogue_parts.as_ref()?;
        let mut files = parts.pins.iter();
        let pin = files.find_map(|(_, file)| file.pin(&name.upstream, &name.tool))?;
        Some(pin.definition.digest())
    }

    /// The names of the servers that speak MCP.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &str> {
        let upstreams = self.config.upstreams.iter();
        upstreams
            .filter(|upstream| upstream.mcp.is_some())
            .map(|upstream| upstream.name.as_str())
    }

    /// The root that people's statements hang from.
    pub(super) fn anchor(&self) -> Result<TrustAnchor, Failure> {
        let path = self.config.identity_dir.join("ca.crt");
        let wrong =
            |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
        TrustAnchor::from_pem(&text).map_err(|error| wrong(&error))
    }

    /// The configuration with everything that people signed in force.
    pub(super) fn admitted(&self) -> Result<Config, Failure> {
        approvals::admit(self.config.clone(), &self.anchor()?).map_err(Failure::usage)
    }

    /// What was seen of a server, if anything.
    pub(super) fn seen(&self, upstream: &str) -> Result<Option<Seen>, Failure> {
        let path = self.seen_path(upstream);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::failed(format!("{}: {error}", path.display()))),
        };
        let looked = std::fs::metadata(&path).and_then(|file| file.modified());
        let seen = Seen::read(&text, looked.ok());
        seen.map(Some)
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
    }

    pub(super) fn seen_path(&self, upstream: &str) -> PathBuf {
        let name = format!("{upstream}.json");
        self.config.data_dir.join("tools").join(name)
    }

    /// The server of a tool that is written as `server:tool`, or as `tool` where that is enough.
    pub(super) fn find(&self, written: &str) -> Result<ToolName, Failure> {
        if let Some((upstream, tool)) = written.split_once(':') {
            return if self.upstreams().any(|name| name == upstream) {
                Ok(ToolName {
                    upstream: upstream.to_owned(),
                    tool: tool.to_owned(),
                })
            } else {
                let message =
                    format!("no `[[upstream]]` of `kind = \"mcp\"` is named `{upstream}`");
                Err(Failure::usage(message))
            };
        }
        let mut with_it = Vec::new();
        for upstream in self.upstreams() {
            let seen = self.seen(upstream)?;
            if seen.is_some_and(|seen| seen.tool(written).is_some()) {
                with_it.push(upstream.to_owned());
            }
        }
        match with_it.as_slice() {
            [upstream] => Ok(ToolName {
                upstream: upstream.clone(),
                tool: written.to_owned(),
            }),
            [] => Err(Failure::failed(format!(
                "no server was seen to have a tool `{written}`"
            ))),
            several => Err(Failure::usage(format!(
                "`{written}` is a tool of {}: write it like `{}:{written}`",
                several.join(" and "),
                several.first().map_or("", String::as_str),
            ))),
        }
    }

    /// The file with the table of a tool; of one without, where it belongs.
    pub(super) fn file_of(&self, name: &ToolName) -> PathBuf {
        let ToolName { upstream, tool } = name;
        let parts = self.config.catalogue_parts.as_ref();
        let declared = || parts.into_iter().flat_map(|parts| parts.declared());
        let own = declared().find(|(decl, _)| decl.upstream == *upstream && decl.name == *tool);
        let of_server = || declared().find(|(decl, _)| decl.upstream == *upstream);
        match own.or_else(of_server) {
            Some((_, file)) => file.unwrap_or(&self.path).to_owned(),
            None => {
                let mut named = self.config.catalogue_tables();
                named.next().unwrap_or(&self.path).to_owned()
            }
        }
    }

    /// Whether a tool has a table.
    pub(super) fn declares(&self, name: &ToolName) -> bool {
        let parts = self.config.catalogue_parts.as_ref();
        let mut declared = parts.into_iter().flat_map(|parts| parts.declared());
        declared.any(|(decl, _)| decl.upstream == name.upstream && decl.name == name.tool)
    }

    /// What a tool's table declares that it may reach, if it has one.
    pub(super) fn permissions(&self, upstream: &str, tool: &str) -> Option<Permissions> {
        let server = self.config.mcp_catalogue.server(upstream)?;
        Some(server.tool(tool)?.permissions)
    }

    /// What a person has to write to approve a tool. The name is its server's to choose, so there is nothing to
    /// write but for one that could be called.
    pub(super) fn command(&self, upstream: &str, tool: &str, digest: &str) -> Option<String> {
        is_segment(tool).then(|| {
            let name = shell_word(&format!("{upstream}:{tool}"));
            let config = self.shell_path();
            format!(
                "agentca-enforcer catalogue approve {name} --config {config} --digest {digest} --reason \"…\""
            )
        })
    }

    /// The configuration's file, for a command that is to be copied.
    pub(super) fn shell_path(&self) -> String {
        shell_word(&self.path.display().to_string())
    }

    /// The rejection of a definition, if a person rejected it.
    pub(super) fn rejection(&self, upstream: &str, tool: &str, digest: &str) -> Option<&Rejection> {
        let parts = self.config.catalogue_parts.as_ref()?;
        let mut all = parts.pins.iter().flat_map(|(_, file)| &file.rejections);
        all.find(|old| old.upstream == upstream && old.tool == tool && old.digest == digest)
    }
}

/// Why a tool can never be called, if it is for its name.
pub(super) fn uncallable(tool: &str) -> Option<String> {
    (!is_segment(tool)).then(|| {
        let shown: String = tool.chars().take(NAME_SHOWN).collect();
        let more = if shown.len() < tool.len() { "…" } else { "" };
        format!(
            "it can never be called: its name, `{}{more}`, is not 1 to 128 of A-Z, a-z, 0-9, `_`, `-` and `.`",
            printable(&shown)
        )
    })
}

const NAME_SHOWN: usize = 128;

/// What an enforcer saw of a server.
#[derive(Debug)]
pub(super) struct Seen {
    /// Since when it is so.
    pub(super) at: String,
    /// When it was last looked at.
    pub(super) looked: Option<SystemTime>,
    pub(super) tools: Vec<ToolDefinition>,
    /// Tools that cannot be read, with why.
    pub(super) unreadable: Vec<(String, String)>,
    /// Tools that agents were shown otherwise, some of which were decided about since.
    shown: Vec<Shown>,
}

impl Seen {
    fn read(text: &str, looked: Option<SystemTime>) -> Result<Self, String> {
        let (file, at) = SeenFile::read(text)?;
        let (mut tools, mut unreadable) = (Vec::new(), Vec::new());
        for ListedTool { name, definition } in file.tools {
            match ToolDefinition::parse(&definition) {
                Ok(definition) if definition.name() == name => tools.push(definition),
                Ok(_) => unreadable.push((name, "it has another name".to_owned())),
                Err(error) => unreadable.push((name, error.to_string())),
            }
        }
        Ok(Self {
            at,
            looked,
            tools,
            unreadable,
            shown: file.shown,
        })
    }

    /// When it was last looked at.
    pub(super) fn looked_at(&self) -> Option<String> {
        let since = self.looked?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let at = Timestamp::from_millis(i64::try_from(since.as_millis()).ok()?);
        Some(at.to_string())
    }

    /// The same for people.
    pub(super) fn looked(&self) -> String {
        let ago = self
            .looked
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        let looked = self.looked_at().map_or_else(String::new, |at| {
            let ago = ago.unwrap_or_default().as_secs();
            format!("last looked at {at}, {ago} s ago; ")
        });
        format!("{looked}its tools have been as they are since {}", self.at)
    }

    pub(super) fn tool(&self, name: &str) -> Option<&ToolDefinition> {
        self.tools.iter().find(|tool| tool.name() == name)
    }

    pub(super) fn digest(&self, name: &str) -> Option<[u8; 32]> {
        self.tool(name).map(ToolDefinition::digest)
    }

    /// What agents were shown otherwise; `pinned` says what was approved.
    pub(super) fn otherwise(
        &self,
        pinned: impl Fn(&str) -> Option<Approval>,
    ) -> impl Iterator<Item = &Shown> {
        let counts = move |shown: &&Shown| shown.counts(pinned(&shown.tool));
        self.shown.iter().filter(counts)
    }

    /// The digest that calls of a tool are judged by, and what agents were shown of it otherwise.
    pub(super) fn judged(&self, tool: &Tool) -> (Option<[u8; 32]>, Option<&Shown>) {
        let pinned = tool.pinned.as_ref();
        let pinned = pinned.map(|pinned| pinned.approval());
        let mut otherwise = self.otherwise(|_| pinned);
        let shown = otherwise.find(|shown| *shown.tool == *tool.name);
        let digest = shown.map(|shown| shown.digest);
        (digest.or_else(|| self.digest(&tool.name)), shown)
    }
}
