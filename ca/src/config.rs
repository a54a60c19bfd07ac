//! `agentca.toml`: what an operator may set.
//!
//! [`RawConfig`] is the file as written, unknown keys refused; [`Config`] is the same after every
//! value was checked. Whatever is wrong stops the start and names the key.

mod written;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentca_identity::name::{DnsName, TrustDomain};
use agentca_identity::profile::lifetime;
use serde::Deserialize;

pub(crate) use self::written::new_file;

/// The file's name in the data directory.
pub const FILE: &str = "agentca.toml";
/// Where gRPC is served unless set.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7443";
/// Where plain HTTP is served unless set.
pub const DEFAULT_HTTP_LISTEN: &str = "127.0.0.1:7080";

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The tenant this authority speaks for.
    pub trust_domain: TrustDomain,
    /// Where gRPC over mTLS is served.
    pub listen: SocketAddr,
    /// Where plain HTTP (CRL, root, checkpoint, tiles, health, metrics) is served.
    pub http_listen: SocketAddr,
    /// The URL certificates name for their CRL, without a final slash; unset means `http_listen`.
    pub public_url: Option<String>,
    /// DNS names in the authority's own certificate.
    pub dns: Vec<DnsName>,
    /// Over how many CRL shards new certificates are spread; 1 to 1024.
    pub crl_shards: u16,
    /// Lifetimes of what is issued.
    pub lifetimes: Lifetimes,
    /// Bounds on what peers may cost.
    pub limits: Limits,
}

/// Lifetimes of what the authority issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Agents, unless the request says otherwise.
    pub agent: Duration,
    /// People.
    pub person: Duration,
    /// Enforcers and the authority's own TLS certificate.
    pub enforcer: Duration,
    /// Log, witness and response signers.
    pub signer: Duration,
    /// How long a CRL is good for; it is re-signed at half of that.
    pub crl: Duration,
}

/// Bounds on what peers may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, on each of the two listeners.
    pub max_connections: usize,
    /// How long a TLS handshake or an HTTP head may take.
    pub handshake_timeout: Duration,
    /// Requests at once on one gRPC connection.
    pub requests_per_connection: u32,
    /// Largest gRPC message taken, bytes.
    pub message_max: usize,
    /// How long a durable write is waited for before the caller is told that the log cannot grow.
    pub durable_timeout: Duration,
    /// How long running requests are waited for at the end.
    pub drain_timeout: Duration,
    /// Renewals that one identity may ask for at once.
    pub renewals_at_once: u32,
    /// Renewals a minute of one identity, in the long run.
    pub renewals_per_minute: u32,
    /// Certificates in force that one identity may have and still renew.
    pub certificates_each: usize,
    /// Bytes of the log's file system that are kept for revocations.
    pub disk_reserve: u64,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{path}`: {source}; run `agentca init` first")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, or a key that does not exist, or a value of the wrong type.
    #[error("`{path}` is refused: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value out of its range.
    #[error("`{key}` in {FILE} is refused: {why}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong with it, and what would be right.
        why: String,
    },
}

impl Default for Lifetimes {
    /// As the profile has them.
    fn default() -> Self {
        Self {
            agent: lifetime::AGENT,
            person: lifetime::PERSON,
            enforcer: lifetime::ENFORCER,
            signer: lifetime::SIGNER,
            crl: Duration::from_secs(DAY),
        }
    }
}

impl Config {
    /// What every certificate's CRL URI begins with: `public_url`, else where plain HTTP is served.
    pub fn crl_base(&self, http: impl std::fmt::Display) -> String {
        let public = self.public_url.clone();
        public.unwrap_or_else(|| format!("http://{http}"))
    }

    /// Reads and validates `<data>/agentca.toml`.
    pub fn load(data: &Path) -> Result<Self, ConfigError> {
        let path = data.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        let raw: RawConfig = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path,
            source: Box::new(source),
        })?;
        raw.validate()
    }
}

/// The file as an operator writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    trust_domain: String,
    listen: Option<String>,
    http_listen: Option<String>,
    public_url: Option<String>,
    #[serde(default)]
    dns: Vec<String>,
    crl_shards: Option<u16>,
    #[serde(default)]
    lifetimes: RawLifetimes,
    #[serde(default)]
    limits: RawLimits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLifetimes {
    agent: Option<String>,
    person: Option<String>,
    enforcer: Option<String>,
    signer: Option<String>,
    crl: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    max_connections: Option<usize>,
    handshake_timeout: Option<String>,
    requests_per_connection: Option<u32>,
    message_max: Option<usize>,
    durable_timeout: Option<String>,
    drain_timeout: Option<String>,
    renewals_at_once: Option<u32>,
    renewals_per_minute: Option<u32>,
    certificates_each: Option<usize>,
    disk_reserve: Option<u64>,
}

impl RawConfig {
    fn validate(self) -> Result<Config, ConfigError> {
        let Self {
            trust_domain,
            listen,
            http_listen,
            public_url,
            dns,
            crl_shards,
            lifetimes,
            limits,
        } = self;
        let crl_shards = crl_shards.unwrap_or(1);
        if !(1..=1024).contains(&crl_shards) {
            return Err(value("crl_shards", "must be 1 to 1024"));
        }
        Ok(Config {
            trust_domain: trust_domain.parse().map_err(|e| value("trust_domain", e))?,
            listen: address("listen", listen.as_deref().unwrap_or(DEFAULT_LISTEN))?,
            http_listen: address(
                "http_listen",
                http_listen.as_deref().unwrap_or(DEFAULT_HTTP_LISTEN),
            )?,
            public_url: public_url.map(|url| check_public_url(&url)).transpose()?,
            dns: dns
                .iter()
                .map(|name| name.parse().map_err(|e| value("dns", e)))
                .collect::<Result<_, _>>()?,
            crl_shards,
            lifetimes: lifetimes.validate()?,
            limits: limits.validate()?,
        })
    }
}

impl RawLifetimes {
    fn validate(self) -> Result<Lifetimes, ConfigError> {
        let Self {
            agent,
            person,
            enforcer,
            signer,
            crl,
        } = self;
        let default = Lifetimes::default();
        Ok(Lifetimes {
            agent: span("lifetimes.agent", agent, default.agent, MINUTE..=30 * DAY)?,
            person: span(
                "lifetimes.person",
                person,
                default.person,
                MINUTE..=90 * DAY,
            )?,
            enforcer: span(
                "lifetimes.enforcer",
                enforcer,
                default.enforcer,
                MINUTE..=90 * DAY,
            )?,
            signer: span("lifetimes.signer", signer, default.signer, HOUR..=180 * DAY)?,
            crl: span("lifetimes.crl", crl, default.crl, 10..=7 * DAY)?,
        })
    }
}

impl RawLimits {
    fn validate(self) -> Result<Limits, ConfigError> {
        let Self {
            max_connections,
            handshake_timeout,
            requests_per_connection,
            message_max,
            durable_timeout,
            drain_timeout,
            renewals_at_once,
            renewals_per_minute,
            certificates_each,
            disk_reserve,
        } = self;
        let message_max = message_max.unwrap_or(4 << 20);
        if !(64 << 10..=64 << 20).contains(&message_max) {
            return Err(value(
                "limits.message_max",
                "must be 65536 to 67108864 bytes",
            ));
        }
        Ok(Limits {
            max_connections: max_connections.unwrap_or(4096).max(1),
            handshake_timeout: span("limits.handshake_timeout", handshake_timeout, TEN, 1..=60)?,
            requests_per_connection: requests_per_connection.unwrap_or(256).max(1),
            message_max,
            durable_timeout: span("limits.durable_timeout", durable_timeout, TEN, 1..=60)?,
            drain_timeout: span("limits.drain_timeout", drain_timeout, TEN, 0..=300)?,
            renewals_at_once: some("limits.renewals_at_once", renewals_at_once.unwrap_or(16))?,
            renewals_per_minute: some(
                "limits.renewals_per_minute",
                renewals_per_minute.unwrap_or(60),
            )?,
            certificates_each: some("limits.certificates_each", certificates_each.unwrap_or(64))?,
            disk_reserve: disk_reserve.unwrap_or(64 << 20),
        })
    }
}

/// A span of time as `90s`, `15m`, `1h` or `30d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no span of time; write it like 90s, 15m, 1h or 30d");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "s" => 1,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// A CRL base URL: `http` or `https`, an authority, no query, no final slash.
pub fn check_public_url(text: &str) -> Result<String, ConfigError> {
    let url: http::Uri = text.parse().map_err(|e| value("public_url", e))?;
    let plain = matches!(url.scheme_str(), Some("http" | "https"))
        && url.authority().is_some()
        && url.query().is_none();
    if !plain {
        return Err(value(
            "public_url",
            "must be like `http://ca.example.org:7080`",
        ));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn address(key: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse()
        .map_err(|_| value(key, format!("`{text}` is no address like 127.0.0.1:7443")))
}

fn span(
    key: &'static str,
    text: Option<String>,
    default: Duration,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Duration, ConfigError> {
    let Some(text) = text else {
        return Ok(default);
    };
    let span = parse_duration(&text).map_err(|e| value(key, e))?;
    if !range.contains(&span.as_secs()) {
        let why = format!(
            "must be {} to {}",
            written(*range.start()),
            written(*range.end())
        );
        return Err(value(key, why));
    }
    Ok(span)
}

/// Seconds as an operator writes them.
fn written(seconds: u64) -> String {
    match seconds {
        0 => "0s".to_owned(),
        it if it.is_multiple_of(DAY) => format!("{}d", it / DAY),
        it if it.is_multiple_of(HOUR) => format!("{}h", it / HOUR),
        it if it.is_multiple_of(MINUTE) => format!("{}m", it / MINUTE),
        it => format!("{it}s"),
    }
}

/// Anything but none at all.
fn some<T: Default + PartialEq>(key: &'static str, number: T) -> Result<T, ConfigError> {
    if number == T::default() {
        return Err(value(key, "must be 1 or more"));
    }
    Ok(number)
}

fn value(key: &'static str, why: impl ToString) -> ConfigError {
    ConfigError::Value {
        key,
        why: why.to_string(),
    }
}

const TEN: Duration = Duration::from_secs(10);
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        Config::load(dir.path())
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = load("trust_domain = \"example.org\"\n").unwrap();
        assert_eq!(config.listen.to_string(), DEFAULT_LISTEN);
        assert_eq!(config.http_listen.to_string(), DEFAULT_HTTP_LISTEN);
        assert_eq!(config.crl_shards, 1);
        assert_eq!(config.lifetimes.agent, Duration::from_secs(3600));
        assert_eq!(config.lifetimes.crl, Duration::from_secs(86_400));
    }

    #[test]
    fn unknown_and_wrong_values_are_refused_by_name() {
        let base = "trust_domain = \"example.org\"\n";
        for (more, says) in [
            ("lissten = \"x\"", "lissten"),
            ("[limits]\nmax = 1", "max"),
            ("listen = \"localhost\"", "listen"),
            ("crl_shards = 0", "crl_shards"),
            ("public_url = \"ftp://x\"", "public_url"),
            ("[lifetimes]\nagent = \"1 hour\"", "lifetimes.agent"),
            ("[lifetimes]\nagent = \"9999d\"", "lifetimes.agent"),
            ("[limits]\nrenewals_at_once = 0", "limits.renewals_at_once"),
            (
                "[limits]\nrenewals_per_minute = 0",
                "limits.renewals_per_minute",
            ),
            (
                "[limits]\ncertificates_each = 0",
                "limits.certificates_each",
            ),
            ("[limits]\ndisk_reserve = -1", "disk_reserve"),
        ] {
            let error = load(&format!("{base}{more}\n")).unwrap_err().to_string();
            assert!(error.contains(says), "{more}: {error}");
        }
        let far = load(&format!("{base}[lifetimes]\nperson = \"100d\"")).unwrap_err();
        let said = "`lifetimes.person` in agentca.toml is refused: must be 1m to 90d";
        assert_eq!(far.to_string(), said);
        assert!(load("trust_domain = \"Example.org\"").is_err());
    }

    #[test]
    fn spans() {
        assert_eq!(parse_duration("90s").unwrap().as_secs(), 90);
        assert_eq!(parse_duration("15m").unwrap().as_secs(), 900);
        assert_eq!(parse_duration("30d").unwrap().as_secs(), 30 * DAY);
        for wrong in ["", "h", "1", "1w", "-1s", "1.5h", "99999999999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
