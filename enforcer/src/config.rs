//! The configuration file: `RawConfig` is what is written, [`Config`] what was checked.
//!
//! Unknown keys are refused, every limit has a default, paths are relative to the file, and all
//! errors are listed at once with the key they are about.

mod limits;
mod raw;
mod units;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use agentca_identity::name::{Environment, Name};
use agentca_policy::{Catalogue, UpstreamDecl};
use http::Uri;

pub use self::limits::Limits;
use self::raw::RawConfig;
use self::units::parse_duration;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The environment whose agents may call.
    pub environment: Environment,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The folder that `agentca enforcer add` wrote.
    pub identity_dir: PathBuf,
    /// The folder of what this enforcer writes.
    pub data_dir: PathBuf,
    /// How old the newest heartbeat may be.
    pub stale_after: Duration,
    /// Where revocation is learnt from.
    pub revocation: RevocationMode,
    /// The servers behind.
    pub upstreams: Vec<Upstream>,
    /// What may be called.
    pub catalogue: Arc<Catalogue>,
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
            .map_err(|error| ConfigErrors::one(&path.display().to_string(), error))?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base)
    }

    /// Checks a file's text; relative paths begin at `base`. No I/O.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn parse(text: &str, base: &Path) -> Result<Self, ConfigErrors> {
        let raw: RawConfig =
            toml::from_str(text).map_err(|error| ConfigErrors::one("file", error))?;
        let mut errors = Vec::new();
        let config = check(raw, base, &mut errors);
        match config {
            Some(config) if errors.is_empty() => Ok(config),
            _ => Err(ConfigErrors(errors)),
        }
    }

    /// The enforcer's log.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.data_dir.join("log")
    }

    /// The first key that differs and cannot change while the enforcer runs.
    #[must_use]
    pub fn fixed_key_changed(&self, other: &Self) -> Option<&'static str> {
        // Every field is named, so that a new one has to be decided upon.
        let Self {
            environment,
            listen,
            identity_dir,
            data_dir,
            stale_after,
            revocation,
            upstreams: _,
            catalogue: _,
            limits: _,
            threads,
        } = self;
        let fixed = [
            ("environment", *environment == other.environment),
            ("listen", *listen == other.listen),
            ("identity_dir", *identity_dir == other.identity_dir),
            ("data_dir", *data_dir == other.data_dir),
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

/// Where revocation is learnt from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationMode {
    /// The authority's status feed.
    Feed {
        /// The authority.
        authority: AuthorityUrl,
    },
    /// Certificate revocation lists alone: weaker.
    Crl {
        /// One per shard.
        sources: Vec<CrlSource>,
        /// How often they are fetched again at least.
        refresh: Duration,
    },
}

/// Where a CRL is fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrlSource {
    /// Plain HTTP.
    Url(Uri),
    /// A DER file.
    File(PathBuf),
}

impl fmt::Display for CrlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(uri) => write!(f, "{uri}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The authority's address: `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityUrl {
    /// The whole URL.
    pub uri: Uri,
    /// Name or address to connect to, IPv6 without brackets.
    pub host: String,
    /// 443 unless given.
    pub port: u16,
}

/// A server behind the enforcer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// What routes call it.
    pub name: String,
    /// Name or address to connect to, IPv6 without brackets.
    pub host: String,
    /// 80 unless given.
    pub port: u16,
    /// `host:port` as it is sent in `Host`.
    pub authority: String,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    fn one(key: &str, error: impl fmt::Display) -> Self {
        Self(vec![ConfigError {
            key: key.to_owned(),
            message: error.to_string(),
        }])
    }

    /// The errors in the order of the file's keys.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigError {
    /// The key as in the file, tables with dots, list members by their place from 1.
    pub key: String,
    /// What is wrong and what to write.
    pub message: String,
}

/// Collects errors while values are taken one by one.
type Errors = Vec<ConfigError>;

fn note<T>(errors: &mut Errors, key: &str, value: Result<T, impl fmt::Display>) -> Option<T> {
    match value {
        Ok(value) => Some(value),
        Err(error) => {
            errors.push(ConfigError {
                key: key.to_owned(),
                message: error.to_string(),
            });
            None
        }
    }
}

fn check(raw: RawConfig, base: &Path, errors: &mut Errors) -> Option<Config> {
    let RawConfig {
        environment,
        listen,
        authority,
        identity_dir,
        data_dir,
        stale_after,
        revocation,
        crl,
        crl_refresh,
        threads,
        upstream,
        route,
        limits,
    } = raw;
    let environment = note(errors, "environment", Environment::from_str(&environment));
    let listen = listen
        .parse::<SocketAddr>()
        .map_err(|_| format!("`{listen}` is not an address with a port, like 127.0.0.1:8443"));
    let listen = note(errors, "listen", listen);
    let stale_after = duration(
        errors,
        "stale_after",
        stale_after.as_deref(),
        DEFAULT_STALE_AFTER,
        1,
        3600,
    );
    let refresh = duration(
        errors,
        "crl_refresh",
        crl_refresh.as_deref(),
        DEFAULT_CRL_REFRESH,
        1,
        86_400,
    );
    let revocation = check_revocation(
        errors,
        revocation.as_deref(),
        authority.as_deref(),
        &crl,
        refresh,
        base,
    );
    let upstreams = check_upstreams(errors, &upstream);
    let decls: Vec<UpstreamDecl> = upstream
        .iter()
        .map(|one| UpstreamDecl {
            name: one.name.clone(),
        })
        .collect();
    let catalogue = match Catalogue::compile(&decls, &route) {
        Ok(catalogue) => Some(Arc::new(catalogue)),
        Err(faults) => {
            errors.extend(faults.iter().map(|fault| ConfigError {
                key: format!("route.{}", fault.index + 1),
                message: format!("`{}`: {}", fault.template, fault.fault),
            }));
            None
        }
    };
    let limits = limits::check(errors, limits.unwrap_or_default());
    let threads = note(errors, "threads", check_threads(threads));
    Some(Config {
        environment: environment?,
        listen: listen?,
        identity_dir: base.join(identity_dir),
        data_dir: base.join(data_dir),
        stale_after: stale_after?,
        revocation: revocation?,
        upstreams: upstreams?,
        catalogue: catalogue?,
        limits: limits?,
        threads: threads?,
    })
}

fn check_revocation(
    errors: &mut Errors,
    mode: Option<&str>,
    authority: Option<&str>,
    crl: &[String],
    refresh: Option<Duration>,
    base: &Path,
) -> Option<RevocationMode> {
    match mode.unwrap_or("feed") {
        "feed" => {
            if !crl.is_empty() {
                let message = "is for `revocation = \"crl\"` only: remove it";
                note::<()>(errors, "crl", Err(message));
            }
            let authority = authority.ok_or("is missing: write https://host:port");
            let authority = note(errors, "authority", authority)?;
            let authority = note(errors, "authority", parse_authority(authority))?;
            Some(RevocationMode::Feed { authority })
        }
        "crl" => {
            if authority.is_some() {
                let message = "is not asked with `revocation = \"crl\"`: remove it";
                note::<()>(errors, "authority", Err(message));
            }
            if crl.is_empty() {
                note::<()>(
                    errors,
                    "crl",
                    Err("is empty: list every shard's URL or file"),
                );
            }
            let sources = crl
                .iter()
                .enumerate()
                .map(|(index, text)| {
                    let key = format!("crl.{}", index + 1);
                    note(errors, &key, parse_crl_source(text, base))
                })
                .collect::<Option<Vec<_>>>()?;
            Some(RevocationMode::Crl {
                sources,
                refresh: refresh?,
            })
        }
        other => {
            let message = format!("`{other}` is neither `feed` nor `crl`");
            note::<()>(errors, "revocation", Err(message));
            None
        }
    }
}

fn check_upstreams(errors: &mut Errors, raw: &[raw::RawUpstream]) -> Option<Vec<Upstream>> {
    let mut names = std::collections::BTreeSet::new();
    let checked: Vec<Option<Upstream>> = raw
        .iter()
        .enumerate()
        .map(|(index, one)| {
            let key = format!("upstream.{}", index + 1);
            if !names.insert(one.name.as_str()) {
                let message = format!("`{}` appears twice", one.name);
                note::<()>(errors, &format!("{key}.name"), Err(message));
            }
            let name = note(errors, &format!("{key}.name"), Name::from_str(&one.name));
            let url = note(
                errors,
                &format!("{key}.url"),
                parse_url(&one.url, "http", 80),
            );
            let (uri, host, port) = url?;
            let authority = uri.authority().map(ToString::to_string)?;
            Some(Upstream {
                name: name?.to_string(),
                host,
                port,
                authority,
            })
        })
        .collect();
    checked.into_iter().collect()
}

fn parse_authority(text: &str) -> Result<AuthorityUrl, String> {
    let (uri, host, port) = parse_url(text, "https", 443)?;
    Ok(AuthorityUrl { uri, host, port })
}

fn parse_crl_source(text: &str, base: &Path) -> Result<CrlSource, String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if !text.contains("://") {
        return Ok(CrlSource::File(base.join(text)));
    }
    let uri = Uri::from_str(text).map_err(|error| format!("`{text}`: {error}"))?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err(format!(
            "`{text}`: a CRL is fetched over plain http://, it is signed"
        ));
    }
    Ok(CrlSource::Url(uri))
}

/// A URL of scheme, host and port alone.
fn parse_url(text: &str, scheme: &str, default_port: u16) -> Result<(Uri, String, u16), String> {
    let form = || format!("`{text}`: write {scheme}://host:port and nothing after it");
    let uri = Uri::from_str(text).map_err(|error| format!("`{text}`: {error}"))?;
    let authority = uri.authority().ok_or_else(form)?;
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if uri.scheme_str() != Some(scheme) || !bare || authority.as_str().contains('@') {
        return Err(form());
    }
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str().ends_with(':') => return Err(form()),
        None => default_port,
    };
    if host.is_empty() || port == 0 {
        return Err(form());
    }
    Ok((uri, host, port))
}

fn check_threads(threads: Option<usize>) -> Result<usize, String> {
    match threads {
        None => Ok(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
        Some(count) if (1..=MAX_THREADS).contains(&count) => Ok(count),
        Some(count) => Err(format!("{count} is not within 1 and {MAX_THREADS}")),
    }
}

fn duration(
    errors: &mut Errors,
    key: &str,
    text: Option<&str>,
    default: Duration,
    least_secs: u64,
    most_secs: u64,
) -> Option<Duration> {
    let Some(text) = text else {
        return Some(default);
    };
    let range = Duration::from_secs(least_secs)..=Duration::from_secs(most_secs);
    let value = parse_duration(text).and_then(|value| {
        let bounds = || format!("`{text}` is not within {least_secs}s and {most_secs}s");
        range.contains(&value).then_some(value).ok_or_else(bounds)
    });
    note(errors, key, value)
}

const DEFAULT_STALE_AFTER: Duration = Duration::from_secs(30);
const DEFAULT_CRL_REFRESH: Duration = Duration::from_secs(60);
const MAX_THREADS: usize = 1024;

#[cfg(test)]
mod tests;
