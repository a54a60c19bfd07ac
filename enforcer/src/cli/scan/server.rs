//! Which server is asked, and as whom.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::spiffe::SpiffeId;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::ScanArgs;
use crate::cli::output::Failure;
use crate::config::{self, CommandLine, Config, TlsOptions, Transport, Upstream};
use crate::mcp_client::{ClientLimits, HttpEndpoint, McpClient};
use crate::stdio::{Stdio, StdioLimits};
use crate::upstream::Target;

/// A client of the server, with its process when it is a program.
pub(super) struct Asked {
    pub(super) client: McpClient,
    pub(super) processes: Option<Arc<Stdio>>,
    pub(super) place: Place,
}

/// Who is asked, for people.
#[derive(Debug)]
pub(super) enum Place {
    /// A URL of the command line.
    Given(String),
    /// A URL of a configuration.
    Configured(String),
    /// The command line of a program.
    Program(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(url) | Self::Configured(url) => f.write_str(url),
            Self::Program(line) => write!(f, "`{line}`"),
        }
    }
}

impl Asked {
    fn http(endpoint: HttpEndpoint, place: Place) -> Self {
        Self {
            client: McpClient::http(endpoint, ClientLimits::default()),
            processes: None,
            place,
        }
    }

    fn program(upstream: &str, command: CommandLine) -> Self {
        let words = std::iter::once(&command.program).chain(&command.arguments);
        let words: Vec<&str> = words.map(String::as_str).collect();
        let place = Place::Program(words.join(" "));
        let handle = tokio::runtime::Handle::current();
        let processes = Stdio::new(upstream, command, StdioLimits::default(), handle);
        Self {
            client: McpClient::program(Arc::clone(&processes), ClientLimits::default()),
            processes: Some(processes),
            place,
        }
    }
}

/// An upstream of a configuration.
#[derive(Debug)]
pub(super) struct InConfig {
    path: PathBuf,
    config: Config,
    upstream: Upstream,
}

impl InConfig {
    fn open(path: &Path, name: &str) -> Result<Self, Failure> {
        let config = Config::load_before_scan(path).map_err(Failure::usage)?;
        let found = config.upstreams.iter().find(|other| other.name == name);
        let wrong = |what: &str| Failure::usage(format!("{}: {what}", path.display()));
        let upstream = found
            .ok_or_else(|| wrong(&format!("no `[[upstream]]` is named `{name}`")))?
            .clone();
        if upstream.mcp.is_none() {
            let what = format!("the upstream `{name}` is not of `kind = \"mcp\"`");
            return Err(wrong(&what));
        }
        Ok(Self {
            path: path.to_owned(),
            config,
            upstream,
        })
    }

    /// The file that has the server's tools already, else the first that the configuration names.
    pub(super) fn catalogue(&self) -> PathBuf {
        let parts = self.config.catalogue_parts.as_ref();
        let mut declared = parts.into_iter().flat_map(|parts| parts.declared());
        let of_server = declared.find(|(decl, _)| decl.upstream == self.upstream.name);
        let beside = || self.path.with_file_name("catalogue.toml");
        match of_server {
            Some((_, Some(file))) => file.to_owned(),
            Some((_, None)) => self.path.clone(),
            None => {
                let mut named = self.config.catalogue_tables();
                named.next().map_or_else(beside, Path::to_owned)
            }
        }
    }

    /// Whether the configuration reads a file of the catalogue.
    pub(super) fn names(&self, file: &Path) -> bool {
        file == self.path || self.config.catalogue_tables().any(|named| named == file)
    }

    pub(super) fn how_to_name(&self, file: &Path) -> String {
        let name = file.file_name().unwrap_or(file.as_os_str());
        let name = Path::new(name).display();
        format!(
            "the configuration does not name it yet: write `catalogue = [\"{name}\"]` at the top of {}",
            self.path.display()
        )
    }

    /// As the enforcer asks it, with what it shows every agent's requests.
    pub(super) fn asked(&self) -> Result<Asked, Failure> {
        let upstream = &self.upstream;
        if let Transport::Command(command) = &upstream.transport {
            return Ok(Asked::program(&upstream.name, command.clone()));
        }
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("upstream `{}`: {error}", upstream.name))
        };
        let target = Target::of(upstream).ok_or_else(|| wrong(&"it has no URL"))?;
        let target = Arc::new(target.map_err(|error| wrong(&error))?);
        // No agent's: what is shown for one of them alone is not shown for a scan.
        let own: SpiffeId = "spiffe://scan/ca".parse().map_err(|error| wrong(&error))?;
        let place = Place::Configured(target.to_string());
        Ok(Asked::http(HttpEndpoint::shown_to(target, own), place))
    }
}

impl ScanArgs {
    pub(super) fn configured(&self) -> Result<Option<InConfig>, Failure> {
        let open = |path: &PathBuf| InConfig::open(path, self.upstream.as_str());
        self.config.as_ref().map(open).transpose()
    }

    /// The server that the command line names.
    pub(super) fn asked(&self) -> Result<Asked, Failure> {
        match named(self.mcp.as_deref(), self.command.as_deref())? {
            Named::Url(url) if self.environment.is_empty() => {
                let place = Place::Given(url.to_owned());
                Ok(Asked::http(self.endpoint(url)?, place))
            }
            Named::Url(_) => Err(Failure::usage("--env is for a server that is a command")),
            Named::Command(_) if self.ca.is_some() || self.bearer_file.is_some() => Err(
                Failure::usage("--ca and --bearer-file are for a server that is a URL"),
            ),
            Named::Command(mut words) => Ok(Asked::program(
                self.upstream.as_str(),
                CommandLine {
                    program: words.remove(0),
                    arguments: words,
                    environment: environment(&self.environment)?,
                    secrets: BTreeMap::new(),
                    max_processes: 1,
                    idle: Duration::from_secs(300),
                },
            )),
        }
    }

    fn endpoint(&self, url: &str) -> Result<HttpEndpoint, Failure> {
        let tls = self.ca.as_ref().map(|ca| TlsOptions {
            ca: Some(ca.clone()),
            ..TlsOptions::default()
        });
        let place = config::mcp_place(url, tls.as_ref());
        let place = place.map_err(|error| Failure::usage(format!("--mcp {error}")))?;
        let upstream = Upstream {
            name: self.upstream.to_string(),
            transport: Transport::Http(place),
            mcp: None,
            credentials: None,
        };
        let target = Target::of(&upstream).ok_or_else(|| Failure::usage("--mcp is no URL"))?;
        let target = target.map_err(|error| Failure::usage(format!("--mcp `{url}`: {error}")))?;
        let shown = bearer(self.bearer_file.as_deref())?;
        Ok(HttpEndpoint::of(
            Arc::new(target),
            Box::new(move || Ok(shown.clone())),
        ))
    }
}

/// How a server is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named<'a> {
    Url(&'a str),
    /// Not empty.
    Command(Vec<String>),
}

pub(super) fn named<'a>(
    mcp: Option<&'a str>,
    command: Option<&'a str>,
) -> Result<Named<'a>, Failure> {
    let (option, line) = match (mcp, command) {
        (Some(url), _) if is_url(url) => return Ok(Named::Url(url)),
        (Some(line), _) => ("--mcp", line),
        (None, line) => ("--command", line.unwrap_or_default()),
    };
    let words = words(line).map_err(|error| Failure::usage(format!("{option}: {error}")))?;
    match words.as_slice() {
        [] => Err(Failure::usage(format!("{option} names no program"))),
        // `localhost:9000/mcp` is hardly a program.
        [one] if option == "--mcp" && one.contains(':') => Err(Failure::usage(format!(
            "--mcp `{one}` is neither a command nor a URL: write it like `http://127.0.0.1:9000/mcp`"
        ))),
        _ => Ok(Named::Command(words)),
    }
}

fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    })
}

/// The fields that show a token.
fn bearer(file: Option<&Path>) -> Result<HeaderMap, Failure> {
    let mut shown = HeaderMap::new();
    if let Some(file) = file {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("--bearer-file {}: {error}", file.display()))
        };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
        let text = Zeroizing::new(text);
        let value = Zeroizing::new(format!("Bearer {}", text.trim_end()));
        let mut value = HeaderValue::from_str(&value).map_err(|error| wrong(&error))?;
        value.set_sensitive(true);
        shown.insert(AUTHORIZATION, value);
    }
    Ok(shown)
}

pub(super) fn environment(given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pairs = given.iter().map(|pair| {
        let split = pair.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = split
            .ok_or_else(|| Failure::usage(format!("--env `{pair}`: write it like `NAME=VALUE`")))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

/// The words of a command line: spaces part them, quotes keep them together, a backslash takes the
/// next character as it is.
pub(super) fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = letters.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}
