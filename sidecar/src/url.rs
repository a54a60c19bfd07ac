//! Where an enforcer, or the authority, is: `https://host[:port]/path`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use rustls::pki_types::ServerName;

/// A place on the network that is reached over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// A DNS name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host and port as they were written: what `Host` says.
    pub(crate) authority: String,
    /// For TLS.
    pub(crate) server_name: ServerName<'static>,
}

impl Place {
    fn of(uri: &Uri) -> Option<Self> {
        let authority = uri.authority()?;
        if uri.scheme_str() != Some("https") || authority.as_str().contains('@') {
            return None;
        }
        let written = authority.host();
        let port = match authority.as_str().strip_prefix(written)? {
            "" => 443,
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        let bare = written.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(written).to_ascii_lowercase();
        Some(Self {
            server_name: ServerName::try_from(host.clone()).ok()?,
            host,
            port,
            authority: authority.as_str().to_owned(),
        })
    }

    /// The host when it is an address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// An MCP endpoint of an enforcer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnforcerUrl {
    pub(crate) place: Place,
    /// Path and query.
    pub(crate) path: String,
}

impl EnforcerUrl {
    /// The full address of a path there.
    pub(crate) fn target(&self, path: &str) -> String {
        format!("https://{}{path}", self.place.authority)
    }
}

impl FromStr for EnforcerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not like https://localhost:8443/mcp/payments, an enforcer's endpoint"
            )
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if text.contains('#') {
            return Err(wrong());
        }
        Ok(Self {
            place: Place::of(&uri).ok_or_else(wrong)?,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for EnforcerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target(&self.path))
    }
}

/// The authority's gRPC address; nothing stands behind the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthorityUrl {
    pub(crate) place: Place,
}

impl FromStr for AuthorityUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is not like https://127.0.0.1:7443, where `agentca serve` listens")
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        if uri
            .path_and_query()
            .is_some_and(|path| path.as_str() != "/")
        {
            return Err(wrong());
        }
        let place = Place::of(&uri).ok_or_else(wrong)?;
        Ok(Self { place })
    }
}

impl fmt::Display for AuthorityUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.place.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_keeps_its_authority_as_it_was_written() {
        for (text, host, port, target) in [
            (
                "https://localhost:8443/mcp/a",
                "localhost",
                8443,
                "https://localhost:8443/mcp/a",
            ),
            (
                "https://Edge.example.org/mcp",
                "edge.example.org",
                443,
                "https://Edge.example.org/mcp",
            ),
            (
                "https://[::1]:8443/mcp?x=1",
                "::1",
                8443,
                "https://[::1]:8443/mcp?x=1",
            ),
            (
                "https://127.0.0.1:8443",
                "127.0.0.1",
                8443,
                "https://127.0.0.1:8443/",
            ),
        ] {
            let url: EnforcerUrl = text.parse().unwrap();
            assert_eq!((url.place.host.as_str(), url.place.port), (host, port));
            assert_eq!(url.to_string(), target);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "localhost:8443",
            "http://a/mcp",
            "https://u@a/mcp",
            "https://a:x/",
            "https://a/#b",
        ] {
            assert!(text.parse::<EnforcerUrl>().is_err(), "{text}");
        }
        for text in ["http://a", "https://a/b", "https://u@a"] {
            assert!(text.parse::<AuthorityUrl>().is_err(), "{text}");
        }
        let url: AuthorityUrl = "https://127.0.0.1:7443/".parse().unwrap();
        assert_eq!(url.to_string(), "https://127.0.0.1:7443");
    }
}
