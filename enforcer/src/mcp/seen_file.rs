//! What was seen of an MCP server, in `tools/<upstream>.json` of `data_dir`: for
//! `agentca-enforcer catalogue`, and for the enforcer itself when it starts again.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use agentca_identity::time::Timestamp;
use agentca_policy::{ToolDefinition, digest_text, parse_digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::seen::{UNKNOWN, UNREADABLE};
use crate::mcp_client::ListedTool;

/// What the watcher saw of a server, and what agents were shown otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenFile {
    /// The list as the watcher saw it last.
    pub(crate) tools: Vec<ListedTool>,
    /// By tool.
    pub(crate) shown: Vec<Shown>,
}

/// That agents were shown another definition of a tool than the one that was pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) tool: String,
    /// Of what they were shown.
    pub(crate) digest: [u8; 32],
    /// What was pinned then, and when it was approved: another approval is a person's word on the tool.
    approval: Option<Approval>,
}

/// What was approved, and when.
pub(crate) type Approval = ([u8; 32], Timestamp);

impl Shown {
    pub(super) fn of(tool: &str, digest: [u8; 32], approval: Option<Approval>) -> Self {
        Self {
            tool: tool.to_owned(),
            digest,
            approval,
        }
    }

    /// What was approved when they were.
    pub(super) fn approval(&self) -> Option<Approval> {
        self.approval
    }

    /// Whether the tool is withheld for it: nobody decided about it since. `pinned` is what is pinned now.
    pub(crate) fn counts(&self, pinned: Option<Approval>) -> bool {
        self.approval == pinned && pinned.is_some_and(|(digest, _)| digest != self.digest)
    }

    /// The same for people.
    pub(crate) fn told(&self) -> String {
        match self.digest {
            UNREADABLE => "agents were shown a definition that cannot be read".to_owned(),
            UNKNOWN => "it is not known any more what agents were shown".to_owned(),
            digest => {
                let digest = digest_text(&digest);
                format!("agents were shown another definition ({digest}) than this enforcer")
            }
        }
    }
}

impl SeenFile {
    /// What was written, if anything was.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::read(&text).map(|(file, _since)| Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Reads the file's text, and since when it is so.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(text: &str) -> Result<(Self, String), String> {
        let document: Document<'_> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let tools = document.tools.into_iter().map(|tool| ListedTool {
            name: tool.name.into_owned(),
            definition: tool.definition.get().to_owned(),
        });
        let shown = document.shown.into_iter().map(ShownTool::read);
        let shown = shown.collect::<Option<_>>();
        let file = Self {
            tools: tools.collect(),
            shown: shown.ok_or("a digest or a time of `shown` cannot be read")?,
        };
        Ok((file, document.seen))
    }

    /// The file's text.
    pub(super) fn text(&self, upstream: &str) -> Result<String, serde_json::Error> {
        let tools = self.tools.iter().map(|tool| {
            let digest = ToolDefinition::parse(&tool.definition);
            Ok(SeenTool {
                name: tool.name.as_str().into(),
                digest: digest.ok().map(|read| digest_text(&read.digest())),
                definition: serde_json::from_str(&tool.definition)?,
            })
        });
        let document = Document {
            upstream: upstream.into(),
            seen: Timestamp::now().to_string(),
            tools: tools.collect::<Result<_, serde_json::Error>>()?,
            shown: self.shown.iter().map(ShownTool::of).collect(),
        };
        serde_json::to_string_pretty(&document)
    }
}

/// All of it or nothing, also when the power fails: it is read by others at any time. It keeps its time.
pub(super) fn put(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let (path, beside) = (dir.join(name), dir.join(format!("{name}.new")));
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    if let Ok(looked) = std::fs::metadata(&path).and_then(|old| old.modified()) {
        file.set_modified(looked)?;
    }
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(dir)?.sync_all()
}

/// The file's own time says when the server was last looked at.
pub(super) fn touch(path: &Path) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_modified(std::time::SystemTime::now())
}

#[derive(Serialize, Deserialize)]
struct Document<'a> {
    upstream: Cow<'a, str>,
    seen: String,
    #[serde(borrow)]
    tools: Vec<SeenTool<'a>>,
    /// Absent when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shown: Vec<ShownTool>,
}

#[derive(Serialize, Deserialize)]
struct SeenTool<'a> {
    name: Cow<'a, str>,
    digest: Option<String>,
    #[serde(borrow)]
    definition: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct ShownTool {
    tool: String,
    digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approved_at: Option<String>,
}

impl ShownTool {
    fn of(shown: &Shown) -> Self {
        Self {
            tool: shown.tool.clone(),
            digest: digest_text(&shown.digest),
            pinned: shown.approval.map(|(digest, _)| digest_text(&digest)),
            approved_at: shown.approval.map(|(_, at)| at.rfc3339()),
        }
    }

    fn read(self) -> Option<Shown> {
        let approval = match (self.pinned, self.approved_at) {
            (Some(digest), Some(at)) => {
                Some((parse_digest(&digest)?, Timestamp::parse_rfc3339(&at).ok()?))
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return None,
        };
        Some(Shown {
            digest: parse_digest(&self.digest)?,
            tool: self.tool,
            approval,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(digest: u8, approval: Option<Approval>) -> Shown {
        Shown {
            tool: "pay".to_owned(),
            digest: [digest; 32],
            approval,
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let approval = Some(([1; 32], Timestamp::from_millis(1_700_000_000_123)));
        let tool = ListedTool {
            name: "pay \"b\\ack\"".to_owned(),
            definition: "{ \"name\" :\"pay\\u0020\\\"b\\\\ack\\\"\",\n\"x\":1.0}".to_owned(),
        };
        let file = SeenFile {
            tools: vec![tool],
            shown: vec![shown(7, approval), shown(0, None)],
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tools/bank.json");
        assert_eq!(SeenFile::load(&path), Ok(None));
        put(
            &dir.path().join("tools"),
            "bank.json",
            &file.text("bank").unwrap(),
        )
        .unwrap();
        assert_eq!(SeenFile::load(&path), Ok(Some(file)));
    }

    #[test]
    fn what_is_damaged_is_no_file() {
        let whole = SeenFile {
            tools: Vec::new(),
            shown: vec![shown(7, Some(([1; 32], Timestamp::from_secs(1))))],
        };
        let whole = whole.text("bank").unwrap();
        assert!(SeenFile::read(&whole).is_ok());
        for damaged in [
            String::new(),
            whole[..whole.len() / 2].to_owned(),
            whole.replace("sha256:0707", "sha256:07"),
            whole.replace("1970-01-01", "yesterday"),
            whole.replace("\"approved_at\"", "\"approved\""),
        ] {
            assert!(SeenFile::read(&damaged).is_err(), "{damaged}");
        }
    }

    #[test]
    fn another_approval_ends_it() {
        let (then, later) = (Timestamp::from_secs(1), Timestamp::from_secs(2));
        let seen = shown(7, Some(([1; 32], then)));
        assert!(seen.counts(Some(([1; 32], then))));
        assert!(!seen.counts(Some(([1; 32], later))), "approved again");
        assert!(!seen.counts(Some(([2; 32], then))), "pinned anew");
        assert!(!seen.counts(None), "not pinned any more, and so denied");
        let own = shown(1, Some(([1; 32], then)));
        assert!(!own.counts(Some(([1; 32], then))), "it is the pinned one");
    }
}
