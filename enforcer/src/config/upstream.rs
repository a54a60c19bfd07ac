//! What an upstream may have besides its URL: `[upstream.tls]` and `[upstream.credentials]`.
//!
//! Values are never shown, not even when they stand where their source was meant to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, Uri};
use rustls::pki_types::ServerName;
use toml::Value;

use super::errors::{Errors, blame, note};
use super::section::Section;

/// How the server behind an `https://` URL is known, and this enforcer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The only CAs that count; without it those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The name in its certificate, when that is not the URL's host.
    pub server_name: Option<String>,
    /// This enforcer's certificate towards it, and its key.
    pub client: Option<ClientFiles>,
    /// SHA-256 of the one public key that its certificate may have.
    pub pin: Option<[u8; 32]>,
    /// Whether its certificate is verified.
    pub verify: Verify,
}

/// Whether an upstream's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Against CAs and name.
    #[default]
    Full,
    /// Not at all: in environment `dev` alone.
    DangerouslyOff,
}

/// For mutual TLS, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's key.
    pub key: PathBuf,
}

/// What this enforcer shows an upstream, which agents never see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialOptions {
    /// For every agent without one of its own; when absent those are denied.
    pub all: Option<CredentialKind>,
    /// By an agent's name.
    pub agents: BTreeMap<String, CredentialKind>,
    /// How often files are read and commands run again.
    pub refresh: Duration,
}

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// A header field.
    Header {
        /// Its name.
        name: HeaderName,
        /// Its whole value.
        value: SecretSource,
    },
    /// `Authorization: Basic`.
    Basic {
        /// In clear.
        user: String,
        /// Its password.
        password: SecretSource,
    },
    /// `Authorization: Bearer`.
    Bearer(SecretSource),
    /// `Authorization: Bearer`, the token by OAuth client credentials (RFC 6749 section 4.4).
    OAuth(Box<OAuthOptions>),
}

/// How tokens are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthOptions {
    /// The endpoint.
    pub token_url: TokenUrl,
    /// The only CAs that count for it; without it those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Who asks.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretSource,
    /// What is asked for.
    pub scope: Option<String>,
    /// Whom the token is for.
    pub audience: Option<String>,
    /// Where id and secret are put.
    pub auth: ClientAuth,
}

/// A token endpoint: `https://…`, or `http://` on this very machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUrl {
    /// Whether over TLS.
    pub tls: bool,
    /// Name or address to connect to, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `host:port` as it is sent in `Host`.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// Where a client puts id and secret (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Into `Authorization: Basic`.
    Basic,
    /// Into the body.
    Post,
}

/// Where a secret is read from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// What a program prints, which is started without a shell.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            // Arguments may be secret.
            Self::Command { program, .. } => write!(f, "command {program}"),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is written below an upstream.
#[derive(Debug)]
pub(super) struct RawAccess {
    pub(super) tls: Option<TlsOptions>,
    pub(super) credentials: Option<CredentialOptions>,
}

pub(super) fn read(section: &mut Section, base: &Path, errors: &mut Errors) -> RawAccess {
    let tls = section.optional_table(errors, "tls");
    let credentials = section.optional_table(errors, "credentials");
    RawAccess {
        tls: tls.map(|tls| read_tls(tls, base, errors)),
        credentials: credentials.and_then(|table| read_credentials(table, base, errors)),
    }
}

fn read_tls(mut section: Section, base: &Path, errors: &mut Errors) -> TlsOptions {
    let ca = section.text(errors, "ca", "upstream-ca.pem");
    let server_name = section.text(errors, "server_name", "payments.example.org");
    let certificate = section.text(errors, "client_certificate", "client.pem");
    let key = section.text(errors, "client_key", "client.key");
    let pin = section.text(errors, "pin", PIN_EXAMPLE);
    let verify = section.text(errors, "verify", OFF);
    let server_name = server_name.and_then(|name| {
        let checked = ServerName::try_from(name.as_str())
            .map(|_| name.clone())
            .map_err(|_| format!("`{name}` is neither a DNS name nor an address"));
        note(errors, &section.key("server_name"), checked)
    });
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientFiles {
            certificate: base.join(certificate),
            key: base.join(key),
        }),
        (None, None) => None,
        (certificate, _) => {
            let (there, missing) = match certificate {
                Some(_) => ("client_certificate", "client_key"),
                None => ("client_key", "client_certificate"),
            };
            let message = format!("is missing: `{there}` is of no use without it");
            blame(errors, section.key(missing), message);
            None
        }
    };
    let pin = pin.and_then(|pin| note(errors, &section.key("pin"), parse_pin(&pin)));
    let verify = match verify.as_deref() {
        None => Verify::Full,
        Some(OFF) => Verify::DangerouslyOff,
        Some(other) => {
            let message = format!("`{other}` is not `{OFF}`; without the key it is verified");
            blame(errors, section.key("verify"), message);
            Verify::Full
        }
    };
    section.finish(errors, &[]);
    TlsOptions {
        ca: ca.map(|ca| base.join(ca)),
        server_name,
        client,
        pin,
        verify,
    }
}

fn parse_pin(text: &str) -> Result<[u8; 32], String> {
    text.strip_prefix("sha256/")
        .and_then(|text| STANDARD.decode(text).ok())
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("`{text}` is no pin: write it like `{PIN_EXAMPLE}`"))
}

fn read_credentials(
    mut section: Section,
    base: &Path,
    errors: &mut Errors,
) -> Option<CredentialOptions> {
    let at = section.key("agent");
    let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
    let refresh = section.duration(errors, "refresh", REFRESH, second..=day);
    let mut agents = BTreeMap::new();
    let tables = section.tables_by_name(errors, "agent");
    let only_agents = !tables.is_empty();
    for (name, mut table) in tables {
        if let Err(error) = name.parse::<agentca_identity::name::Name>() {
            blame(errors, format!("{at}.\"{name}\""), error);
        }
        let kind = read_kind(&mut table, base, errors, Missing::Wrong);
        table.finish(errors, &[]);
        if let Some(kind) = kind {
            agents.insert(name, kind);
        }
    }
    let missing = match only_agents {
        true => Missing::Fine,
        false => Missing::Wrong,
    };
    let all = read_kind(&mut section, base, errors, missing);
    section.finish(errors, &[]);
    (all.is_some() || !agents.is_empty()).then_some(CredentialOptions {
        all,
        agents,
        refresh,
    })
}

/// What it means when there is no credential.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Fine,
    Wrong,
}

fn read_kind(
    section: &mut Section,
    base: &Path,
    errors: &mut Errors,
    missing: Missing,
) -> Option<CredentialKind> {
    let header = section.optional_table(errors, "header");
    let basic = section.optional_table(errors, "basic");
    let bearer = section.value("bearer_from");
    let oauth = section.optional_table(errors, "oauth");
    let there = [
        header.is_some(),
        basic.is_some(),
        bearer.is_some(),
        oauth.is_some(),
    ];
    match there.into_iter().filter(|there| *there).count() {
        1 => {}
        0 if missing == Missing::Fine => return None,
        _ => {
            let place = section.key("header");
            let place = place.trim_end_matches(".header").to_owned();
            let message = "wants exactly one of header, basic, bearer_from and oauth";
            blame(errors, place, message);
            return None;
        }
    }
    if let Some(value) = bearer {
        let source = parse_source(&value, base);
        let source = note(errors, &section.key("bearer_from"), source);
        return source.map(CredentialKind::Bearer);
    }
    if let Some(table) = header {
        return read_header(table, base, errors);
    }
    if let Some(table) = basic {
        return read_basic(table, base, errors);
    }
    oauth.and_then(|table| read_oauth(table, base, errors))
}

fn read_header(mut section: Section, base: &Path, errors: &mut Errors) -> Option<CredentialKind> {
    let name = section.required(errors, "name", "X-Api-Key");
    let value = source(&mut section, "value_from", base, errors);
    let name = name.and_then(|name| note(errors, &section.key("name"), parse_field(&name)));
    section.finish(errors, &[]);
    Some(CredentialKind::Header {
        name: name?,
        value: value?,
    })
}

/// A field that says nothing of the message, and that nobody else here says.
fn parse_field(text: &str) -> Result<HeaderName, String> {
    let wrong = |why: &str| format!("`{text}` {why}");
    let name = HeaderName::try_from(text).map_err(|_| wrong("is no name of a header field"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !name.as_str().bytes().all(plain) {
        return Err(wrong("has more than letters, digits and hyphens"));
    }
    let starts = |prefix: &&str| name.as_str().starts_with(prefix);
    if NOT_OURS.contains(&name.as_str()) || NOT_OURS_ABOVE.iter().any(starts) {
        return Err(wrong("is no field for a credential"));
    }
    Ok(name)
}

fn read_basic(mut section: Section, base: &Path, errors: &mut Errors) -> Option<CredentialKind> {
    let user = section.required(errors, "user", "edge-1");
    let password = source(&mut section, "password_from", base, errors);
    let user = user.and_then(|user| {
        let checked = match user.contains(|c: char| c == ':' || c.is_control()) {
            true => Err("may have neither `:` nor control characters"),
            false => Ok(user),
        };
        note(errors, &section.key("user"), checked)
    });
    section.finish(errors, &[]);
    Some(CredentialKind::Basic {
        user: user?,
        password: password?,
    })
}

fn read_oauth(mut section: Section, base: &Path, errors: &mut Errors) -> Option<CredentialKind> {
    let token_url = section.required(errors, "token_url", "https://login.example.org/token");
    let ca = section.text(errors, "ca", "login-ca.pem");
    let client_id = section.required(errors, "client_id", "edge-1");
    let client_secret = source(&mut section, "client_secret_from", base, errors);
    let scope = section.text(errors, "scope", "payments.read");
    let audience = section.text(errors, "audience", "https://payments.example.org");
    let auth = section.text(errors, "auth", "post");
    let token_url =
        token_url.and_then(|url| note(errors, &section.key("token_url"), parse_token_url(&url)));
    let auth = match auth.as_deref().unwrap_or("basic") {
        "basic" => ClientAuth::Basic,
        "post" => ClientAuth::Post,
        other => {
            let message = format!("`{other}` is neither `basic` nor `post`");
            blame(errors, section.key("auth"), message);
            ClientAuth::Basic
        }
    };
    section.finish(errors, &[]);
    Some(CredentialKind::OAuth(Box::new(OAuthOptions {
        token_url: token_url?,
        ca: ca.map(|ca| base.join(ca)),
        client_id: client_id?,
        client_secret: client_secret?,
        scope,
        audience,
        auth,
    })))
}

fn parse_token_url(text: &str) -> Result<TokenUrl, String> {
    let form = || format!("`{text}`: write https://host:port/path");
    let uri: Uri = text.parse().map_err(|error| format!("`{text}`: {error}"))?;
    let authority = uri.authority().ok_or_else(form)?;
    if authority.as_str().contains('@') || authority.as_str().ends_with(':') {
        return Err(form());
    }
    let host = authority.host();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if is_here => false,
        Some("http") => {
            return Err(format!(
                "`{text}`: a secret is sent there, so write https:// (http:// on 127.0.0.1 alone)"
            ));
        }
        _ => return Err(form()),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(TokenUrl {
        tls,
        host: host.to_owned(),
        port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        authority: authority.to_string(),
        path: path.to_owned(),
    })
}

fn source(
    section: &mut Section,
    name: &'static str,
    base: &Path,
    errors: &mut Errors,
) -> Option<SecretSource> {
    match section.value(name) {
        Some(value) => note(errors, &section.key(name), parse_source(&value, base)),
        None => {
            section.missing(errors, name, "\"file:PATH\"");
            None
        }
    }
}

/// What stands there may be the secret itself: it is not shown.
pub(super) fn parse_source(value: &Value, base: &Path) -> Result<SecretSource, &'static str> {
    match value {
        Value::String(text) => match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(SecretSource::File(base.join(path))),
            Some(("env", name)) if is_variable(name) => {
                Ok(SecretSource::Environment(name.to_owned()))
            }
            _ => Err(SOURCE_FORM),
        },
        Value::Table(table) => match (table.len(), table.get("command")) {
            (1, Some(Value::Array(words))) => {
                let words = words.iter().map(|word| word.as_str().map(str::to_owned));
                let words: Option<Vec<String>> = words.collect();
                let (program, arguments) = words
                    .as_deref()
                    .and_then(<[String]>::split_first)
                    .ok_or(SOURCE_FORM)?;
                Ok(SecretSource::Command {
                    program: program.clone(),
                    arguments: arguments.to_vec(),
                })
            }
            _ => Err(SOURCE_FORM),
        },
        _ => Err(SOURCE_FORM),
    }
}

fn is_variable(name: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(part)
}

const SOURCE_FORM: &str = "is no place of a secret (which itself has no business here): write \
                           \"file:PATH\", \"env:NAME\" or { command = [\"PROGRAM\", \"ARGUMENT\"] }";
const PIN_EXAMPLE: &str = "sha256/9Vp3nQk7oyYdKjcQ1tnLr1yHkBvFSqGfGz1xO7d2n1E=";
const OFF: &str = "dangerously-off";
const REFRESH: Duration = Duration::from_secs(300);

/// Fields that frame or describe a message, or are the enforcer's to say.
const NOT_OURS: [&str; 20] = [
    "accept",
    "accept-encoding",
    "allow",
    "connection",
    "content-digest",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "traceparent",
    "tracestate",
];
const NOT_OURS_ABOVE: [&str; 3] = ["agent-", "mcp-", "x-http-method"];

#[cfg(test)]
mod tests;
