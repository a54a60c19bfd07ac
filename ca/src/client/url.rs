//! Where the authority is: `https://host[:port]`, nothing behind it.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use rustls::pki_types::{InvalidDnsNameError, ServerName};

/// The authority's gRPC address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AuthorityUrl {
    host: String,
    port: u16,
}

impl AuthorityUrl {
    /// A DNS name or an address, without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn server_name(&self) -> Result<ServerName<'static>, InvalidDnsNameError> {
        ServerName::try_from(self.host.clone())
    }
}

impl FromStr for AuthorityUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not like https://127.0.0.1:7443, where `agentca serve` listens")
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let bare = uri.path_and_query().is_none_or(|p| p.as_str() == "/");
        if uri.scheme_str() != Some("https") || !bare || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => 443,
            Some(port) => port
                .strip_prefix(':')
                .and_then(|p| p.parse().ok())
                .ok_or_else(wrong)?,
            None => return Err(wrong()),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for AuthorityUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "https://[{host}]:{port}")
        } else {
            write!(f, "https://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let written = [
            (
                "https://127.0.0.1:7443",
                "127.0.0.1",
                "https://127.0.0.1:7443",
            ),
            ("https://[::1]:7443/", "::1", "https://[::1]:7443"),
            (
                "https://ca.example.org",
                "ca.example.org",
                "https://ca.example.org:443",
            ),
        ];
        for (text, host, shown) in written {
            let url: AuthorityUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.to_string().as_str()), (host, shown));
            assert!(url.server_name().is_ok());
        }
        for text in [
            "",
            "127.0.0.1:7443",
            "http://a",
            "https://a/b",
            "https://u@a",
            "https://a:x",
        ] {
            assert!(text.parse::<AuthorityUrl>().is_err(), "{text}");
        }
    }
}
