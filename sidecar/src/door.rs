//! Who may use the loopback forwarder: the local user, who knows its secret, and no web page.
//!
//! `Host` and `Origin` are checked first, so that a page whose name leads to this machine learns nothing;
//! then the secret, in the path or as a bearer token, in constant time.

use std::net::SocketAddr;
use std::path::Path;

use agentca_identity::crypto;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use http::{HeaderMap, StatusCode, Uri};
use zeroize::Zeroizing;

/// Lets in whoever knows the secret.
#[derive(Debug)]
pub(crate) struct Door {
    secret: Zeroizing<String>,
    port: u16,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) detail: &'static str,
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("could not read {0}: {1}")]
    Read(String, std::io::Error),
    #[error(
        "{0} holds no secret: write one line of 22 to 128 letters, digits, `-` and `_`, for example by \
         `openssl rand -hex 16 > {0}`"
    )]
    Form(String),
}

/// A fresh secret of 128 random bits.
pub(crate) fn fresh_secret() -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(crypto::random::<16>()))
}

/// The secret in a file.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| SecretError::Read(shown.clone(), e))?;
    let text = Zeroizing::new(text);
    let secret = text.trim_end();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (22..=128).contains(&secret.len()) && secret.bytes().all(plain) {
        Ok(Zeroizing::new(secret.to_owned()))
    } else {
        Err(SecretError::Form(shown))
    }
}

impl Door {
    /// For the port that is listened on.
    pub(crate) fn new(secret: Zeroizing<String>, port: u16) -> Self {
        Self { secret, port }
    }

    /// What to give to a client.
    pub(crate) fn url(&self, address: SocketAddr) -> Zeroizing<String> {
        Zeroizing::new(format!("http://{address}/{}/", self.secret.as_str()))
    }

    /// Lets a request in, or says why not.
    pub(crate) fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Closed> {
        let host = only(headers, &HOST);
        if !host.is_some_and(|host| self.is_ours(host)) {
            return Err(HOST_REFUSED);
        }
        if headers.contains_key(ORIGIN) {
            let origin = only(headers, &ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
            if !origin.is_some_and(|origin| self.is_ours(origin)) {
                return Err(ORIGIN_REFUSED);
            }
        }
        let path = uri.path().strip_prefix('/').unwrap_or_default();
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() {
            let token = only(headers, &AUTHORIZATION).and_then(bearer);
            return match token {
                Some(token) if self.is_secret(token) => Ok(()),
                _ => Err(NO_SECRET),
            };
        }
        if self.is_secret(path) {
            return Ok(());
        }
        // A longer path that begins with the secret is told that it is too long.
        let first = path.split('/').next().unwrap_or_default();
        Err(if self.is_secret(first) {
            NOTHING_BEHIND
        } else {
            WRONG_SECRET
        })
    }

    /// Whether a field's value holds the secret: it never leaves this machine.
    pub(crate) fn holds_secret(&self, authorization: &str) -> bool {
        bearer(authorization).is_some_and(|token| self.is_secret(token))
    }

    /// `localhost`, `127.0.0.1` or `[::1]` with our port.
    fn is_ours(&self, authority: &str) -> bool {
        let Some((host, port)) = authority.rsplit_once(':') else {
            return false;
        };
        let local = ["localhost", "127.0.0.1", "[::1]"];
        local.iter().any(|name| host.eq_ignore_ascii_case(name)) && port == self.port.to_string()
    }

    /// Digests of both sides are compared, so that neither length nor content shows in the time.
    fn is_secret(&self, given: &str) -> bool {
        let (ours, theirs) = (
            crypto::sha256(self.secret.as_bytes()),
            crypto::sha256(given.as_bytes()),
        );
        let differing = ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.to_str().ok(),
        _ => None,
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

const HOST_REFUSED: Closed = Closed {
    status: StatusCode::FORBIDDEN,
    kind: "host",
    detail: "`Host` is not this forwarder: call it by the URL that `agentca-sidecar connect --http` printed",
};
const ORIGIN_REFUSED: Closed = Closed {
    status: StatusCode::FORBIDDEN,
    kind: "origin",
    detail: "`Origin` is a web page elsewhere, and only programs on this machine may use this forwarder",
};
const NO_SECRET: Closed = Closed {
    status: StatusCode::FORBIDDEN,
    kind: "secret",
    detail: "the secret is missing: call the whole URL that `agentca-sidecar connect --http` printed, or send \
             `Authorization: Bearer SECRET`",
};
const WRONG_SECRET: Closed = Closed {
    status: StatusCode::FORBIDDEN,
    kind: "secret",
    detail: "the secret in the path is wrong: it is made anew at every start, take the URL that \
             `agentca-sidecar connect --http` printed last, or keep one with `--secret-file`",
};
const NOTHING_BEHIND: Closed = Closed {
    status: StatusCode::NOT_FOUND,
    kind: "path",
    detail: "nothing is behind the secret: the one endpoint is the URL as it was printed",
};

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const SECRET: &str = "abcdefghijklmnopqrstuv";

    fn door() -> Door {
        Door::new(Zeroizing::new(SECRET.to_owned()), 7900)
    }

    #[track_caller]
    fn check(path: &str, fields: &[(&'static str, &str)], expected: Result<(), Closed>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let admitted = door().admit(&path.parse().unwrap(), &headers);
        assert_eq!(admitted, expected, "{path} {fields:?}");
    }

    #[test]
    fn the_secret_opens_in_the_path_or_as_a_token() {
        let host = ("host", "127.0.0.1:7900");
        let path = format!("/{SECRET}/");
        check(&path, &[host], Ok(()));
        check(path.trim_end_matches('/'), &[host], Ok(()));
        let token = format!("Bearer {SECRET}");
        check("/", &[host, ("authorization", &token)], Ok(()));
        check("/", &[host], Err(NO_SECRET));
        check("/", &[host, ("authorization", "Bearer x")], Err(NO_SECRET));
        check("/abcdefghijklmnopqrstuw/", &[host], Err(WRONG_SECRET));
        check("/abcdefghijklmnopqrstu", &[host], Err(WRONG_SECRET));
        check(&format!("{path}more"), &[host], Err(NOTHING_BEHIND));
        // A token beside a wrong path is no help.
        check("/x", &[host, ("authorization", &token)], Err(WRONG_SECRET));
    }

    #[test]
    fn only_this_machine_is_a_host_or_an_origin() {
        let path = format!("/{SECRET}/");
        for host in [
            "localhost:7900",
            "LOCALHOST:7900",
            "[::1]:7900",
            "127.0.0.1:7900",
        ] {
            check(
                &path,
                &[("host", host), ("origin", &format!("http://{host}"))],
                Ok(()),
            );
        }
        for host in [
            "evil.example.com",
            "evil.example.com:7900",
            "localhost",
            "localhost:7901",
            "127.0.0.1.evil:7900",
        ] {
            check(&path, &[("host", host)], Err(HOST_REFUSED));
            let origin = format!("http://{host}");
            check(
                &path,
                &[("host", "localhost:7900"), ("origin", &origin)],
                Err(ORIGIN_REFUSED),
            );
        }
        for origin in [
            "null",
            "https://localhost:7900",
            "http://localhost:7900/",
            "",
        ] {
            check(
                &path,
                &[("host", "localhost:7900"), ("origin", origin)],
                Err(ORIGIN_REFUSED),
            );
        }
        check(&path, &[], Err(HOST_REFUSED));
        check(
            &path,
            &[("host", "localhost:7900"), ("host", "localhost:7900")],
            Err(HOST_REFUSED),
        );
    }

    #[test]
    fn secrets_are_long_and_differ() {
        assert_eq!(fresh_secret().len(), 22);
        assert_ne!(fresh_secret(), fresh_secret());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, format!("{SECRET}\n")).unwrap();
        assert_eq!(read_secret(&file).unwrap().as_str(), SECRET);
        for bad in ["", "short\n", "abcdefghijklmnopqrst/v\n"] {
            std::fs::write(&file, bad).unwrap();
            assert!(read_secret(&file).is_err(), "{bad:?}");
        }
    }
}
