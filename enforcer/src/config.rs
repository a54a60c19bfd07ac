//! The configuration file: `RawConfig` is what is written, [`Config`] what was checked.
//!
//! Unknown keys are refused, every limit has a default, paths are relative to the file, and all
//! errors are listed at once with the key they are about. `enforcer.example.toml`, beside the
//! sources, has every key; a test holds it to that.

mod catalogue;
mod disclosures;
mod errors;
mod limits;
mod mcp;
mod place;
mod raw;
mod revocation;
mod routes;
mod section;
mod units;
mod upstream;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::crypto::sha256;
use agentca_identity::name::{Environment, Name};
use agentca_policy::{Catalogue, McpCatalogue, Stated};

pub use self::catalogue::pins_path;
use self::catalogue::{CatalogueParts, CompiledCatalogue};
pub(crate) use self::catalogue::{MAX_CATALOGUES, pins_errors};
pub use self::disclosures::{DisclosedValues, DisclosureOptions};
pub use self::errors::{ConfigError, ConfigErrors};
use self::errors::{Errors, blame, note};
pub use self::limits::Limits;
pub use self::mcp::{CommandLine, DenyAs, McpOptions};
pub use self::place::HttpPlace;
pub(crate) use self::place::mcp_place;
use self::place::parse_place;
use self::raw::{FilePlace, RawConfig, RawUpstream};
pub use self::revocation::{AuthorityUrl, CrlSource, RevocationMode};
use self::revocation::{check_crl, check_feed};
use self::routes::{check_not_empty, check_routes, upstream_decls};
pub use self::upstream::{
    ClientAuth, ClientFiles, CredentialKind, CredentialOptions, OAuthOptions, SecretSource,
    TlsOptions, TokenUrl, Verify,
};

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The environment whose agents may call.
    pub environment: Environment,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators find metrics and health, if anywhere.
    pub ops_listen: Option<SocketAddr>,
    /// The folder that `agentca enforcer add` wrote.
    pub identity_dir: PathBuf,
    /// The folder of what this enforcer writes.
    pub data_dir: PathBuf,
    /// What becomes of the values that tools are called with.
    pub disclosures: DisclosureOptions,
    /// How old the newest heartbeat may be.
    pub stale_after: Duration,
    /// Where revocation is learnt from.
    pub revocation: RevocationMode,
    /// The servers behind.
    pub upstreams: Vec<Upstream>,
    /// What may be called.
    pub catalogue: Arc<Catalogue>,
    /// What may be called of MCP servers. What people signed counts once [`crate::approvals::admit`]
    /// verified it.
    pub mcp_catalogue: Arc<McpCatalogue>,
    /// The files besides this one that were read, or would have been had they been there.
    pub catalogue_files: Vec<PathBuf>,
    /// What [`crate::approvals::admit`] compiles again; none once it did.
    pub(crate) catalogue_parts: Option<Arc<CatalogueParts>>,
    /// Every file that was read, this one first, with the SHA-256 of its text.
    pub(crate) read: Arc<[(PathBuf, [u8; 32])]>,
    /// What was said about tools and counts; nothing before [`crate::approvals::admit`].
    pub(crate) stated: Arc<[Stated]>,
    /// Limits and timers.
    pub limits: Limits,
    /// Serving threads.
    pub threads: usize,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigErrors`], also when the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigErrors::unreadable(path, &error))?;
        let files = RefCell::new(vec![(path.to_owned(), sha256(text.as_bytes()))]);
        let place = FilePlace {
            file: Some(path),
            base: path.parent().unwrap_or(Path::new("")),
            read: &|path| {
                let text = std::fs::read_to_string(path)?;
                let digest = sha256(text.as_bytes());
                files.borrow_mut().push((path.to_owned(), digest));
                Ok(text)
            },
        };
        let config = Self::parse_at(&text, &place).map_err(|errors| errors.in_file(path))?;
        Ok(Self {
            read: files.take().into(),
            ..config
        })
    }

    /// Reads and checks a file; what it names as its catalogue may still have to be written.
    pub(crate) fn load_before_scan(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigErrors::unreadable(path, &error))?;
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && path
                        .extension()
                        .is_some_and(|extension| extension == "toml") =>
            {
                Ok(String::new())
            }
            read => read,
        };
        let place = FilePlace {
            file: Some(path),
            base: path.parent().unwrap_or(Path::new("")),
            read: &read,
        };
        Self::parse_at(&text, &place).map_err(|errors| errors.in_file(path))
    }

    /// Checks a file's text; relative paths begin at `base`. No I/O: files that it names are taken
    /// for absent.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn parse(text: &str, base: &Path) -> Result<Self, ConfigErrors> {
        let place = FilePlace {
            file: None,
            base,
            read: &|_| Err(std::io::ErrorKind::NotFound.into()),
        };
        Self::parse_at(text, &place)
    }

    fn parse_at(text: &str, place: &FilePlace<'_>) -> Result<Self, ConfigErrors> {
        let table = toml::from_str(text).map_err(|error| ConfigErrors::syntax(text, &error))?;
        let mut errors = Errors::new();
        let raw = RawConfig::read(table, place, &mut errors);
        match check(raw, place, &mut errors) {
            Some(config) if errors.is_empty() => Ok(config),
            _ => Err(ConfigErrors::of(errors)),
        }
    }

    /// The enforcer's log.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.data_dir.join("log")
    }

    /// The files named by `catalogue`.
    pub(crate) fn catalogue_tables(&self) -> impl Iterator<Item = &Path> {
        let files = self.catalogue_files.iter().map(PathBuf::as_path);
        files.filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "toml")
        })
    }

    /// Where the pin of a tool belongs: beside the file that declares it. `own` is this
    /// configuration's file. None when no file does, or [`crate::approvals::admit`] is done.
    #[must_use]
    pub fn pins_file_of(&self, own: &Path, upstream: &str, tool: &str) -> Option<PathBuf> {
        let parts = self.catalogue_parts.as_ref()?;
        let file = parts.tool_file(upstream, tool)?;
        Some(pins_path(file.unwrap_or(own)))
    }

    /// The first key that differs and cannot change while the enforcer runs.
    #[must_use]
    pub fn fixed_key_changed(&self, other: &Self) -> Option<&'static str> {
        // Every field is named, so that a new one has to be decided upon.
        let Self {
            environment,
            listen,
            ops_listen,
            identity_dir,
            data_dir,
            disclosures,
            stale_after,
            revocation,
            upstreams: _,
            catalogue: _,
            mcp_catalogue: _,
            catalogue_files: _,
            catalogue_parts: _,
            read: _,
            stated: _,
            limits: _,
            threads,
        } = self;
        let fixed = [
            ("environment", *environment == other.environment),
            ("listen", *listen == other.listen),
            ("ops_listen", *ops_listen == other.ops_listen),
            ("identity_dir", *identity_dir == other.identity_dir),
            ("data_dir", *data_dir == other.data_dir),
            ("disclosures", *disclosures == other.disclosures),
            ("stale_after", *stale_after == other.stale_after),
            ("revocation", *revocation == other.revocation),
            ("threads", *threads == other.threads),
        ];
        fixed
            .into_iter()
            .find(|(_, same)| !same)
            .map(|(key, _)| key)
    }
}

/// A server behind the enforcer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// What routes and tools call it.
    pub name: String,
    /// How it is reached.
    pub transport: Transport,
    /// Set when it speaks MCP; else plain HTTP.
    pub mcp: Option<McpOptions>,
    /// What this enforcer shows it.
    pub credentials: Option<CredentialOptions>,
}

/// How an upstream is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over HTTP/1.1.
    Http(HttpPlace),
    /// A program that speaks MCP over its standard input and output.
    Command(CommandLine),
}

impl Upstream {
    /// Where it listens, unless it is a program.
    #[must_use]
    pub fn place(&self) -> Option<&HttpPlace> {
        match &self.transport {
            Transport::Http(place) => Some(place),
            Transport::Command(_) => None,
        }
    }
}

/// Whoever gives none has noted why.
fn check(raw: RawConfig, place: &FilePlace<'_>, errors: &mut Errors) -> Option<Config> {
    let base = place.base;
    let RawConfig {
        environment,
        listen,
        ops_listen,
        authority,
        identity_dir,
        data_dir,
        disclosures,
        disclosures_max_age,
        stale_after,
        revocation,
        crl,
        crl_refresh,
        threads,
        upstreams: raw_upstreams,
        catalogue: raw_catalogue,
        limits,
    } = raw;
    let environment = environment.and_then(|text| {
        let parsed = Environment::from_str(&text).map_err(|error| format!("`{text}` is {error}"));
        note(errors, "environment", parsed)
    });
    let listen = listen.and_then(|text| note(errors, "listen", parse_address(&text, 8443)));
    let ops_listen =
        ops_listen.and_then(|text| note(errors, "ops_listen", parse_address(&text, 9464)));
    let disclosures = disclosures::check(errors, disclosures.as_deref(), disclosures_max_age);
    let revocation = match revocation.as_deref().unwrap_or("feed") {
        "feed" => check_feed(errors, authority.as_deref(), crl),
        "crl" => check_crl(errors, authority.as_deref(), crl, crl_refresh, base),
        other => {
            let message = format!("`{other}` is neither `feed` nor `crl`");
            blame(errors, "revocation", message);
            None
        }
    };
    check_not_empty(errors, &raw_upstreams, &raw_catalogue);
    let upstreams = check_upstreams(errors, &raw_upstreams);
    refuse_unverified(errors, &raw_upstreams, environment.as_ref());
    let catalogue = check_routes(errors, &raw_upstreams, &raw_catalogue);
    let mcp = environment.as_ref().and_then(|environment| {
        let servers = upstream_decls(&raw_upstreams, |upstream| upstream.mcp.is_some());
        raw_catalogue.compile(servers, environment, place.read, errors)
    });
    let CompiledCatalogue {
        catalogue: mcp_catalogue,
        parts,
        files,
    } = mcp?;
    Some(Config {
        environment: environment?,
        listen: listen?,
        ops_listen,
        identity_dir: base.join(identity_dir?),
        data_dir: base.join(data_dir?),
        disclosures: disclosures?,
        stale_after,
        revocation: revocation?,
        upstreams: upstreams?,
        catalogue: Arc::new(catalogue?),
        mcp_catalogue: Arc::new(mcp_catalogue),
        catalogue_files: files,
        catalogue_parts: Some(Arc::new(parts)),
        read: Arc::default(),
        stated: Arc::default(),
        limits,
        threads,
    })
}

fn check_upstreams(errors: &mut Errors, raw: &[RawUpstream]) -> Option<Vec<Upstream>> {
    let mut names = std::collections::BTreeSet::new();
    let checked: Vec<Option<Upstream>> = raw
        .iter()
        .map(|upstream| {
            let RawUpstream {
                at,
                name,
                url,
                mcp,
                access,
            } = upstream;
            let name = name.as_deref().and_then(|name| {
                let key = format!("{at}.name");
                if !names.insert(name) {
                    blame(errors, key.clone(), format!("`{name}` appears twice"));
                }
                let parsed = Name::from_str(name).map_err(|error| format!("`{name}` is {error}"));
                note(errors, &key, parsed)
            });
            let transport = match url {
                Some(url) => {
                    let parsed = parse_place(url, mcp.is_some(), access.tls.as_ref());
                    Transport::Http(note(errors, &format!("{at}.url"), parsed)?)
                }
                None => Transport::Command(mcp.as_ref()?.command.clone()?),
            };
            Some(Upstream {
                name: name?.to_string(),
                transport,
                mcp: mcp.as_ref().map(|mcp| mcp.options.clone()),
                credentials: access.credentials.clone(),
            })
        })
        .collect();
    checked.into_iter().collect()
}

/// Where it would matter, every upstream is verified.
fn refuse_unverified(errors: &mut Errors, raw: &[RawUpstream], environment: Option<&Environment>) {
    for RawUpstream { at, access, .. } in raw {
        let off = access
            .tls
            .as_ref()
            .is_some_and(|tls| tls.verify == Verify::DangerouslyOff);
        if off && environment.is_some_and(|environment| environment.as_str() != "dev") {
            let message = "`dangerously-off` is for `environment = \"dev\"` alone: remove it, and \
                           name the upstream's CA with `ca`";
            blame(errors, format!("{at}.tls.verify"), message);
        }
    }
}

fn parse_address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let wrong = |_| format!("`{text}` is not an address with a port, like 127.0.0.1:{port}");
    text.parse().map_err(wrong)
}

#[cfg(test)]
mod tests;
