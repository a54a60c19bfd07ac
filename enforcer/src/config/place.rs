//! Where upstreams listen, and the URLs that say so.

use std::str::FromStr;

use http::Uri;

use super::upstream::TlsOptions;

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPlace {
    /// Name or address to connect to, IPv6 without brackets.
    pub host: String,
    /// 80 unless given, 443 over TLS.
    pub port: u16,
    /// `host:port` as it is sent in `Host`.
    pub authority: String,
    /// For MCP, where its endpoint is; else `/`.
    pub path: String,
    /// Set when it is reached over TLS.
    pub tls: Option<TlsOptions>,
}

/// Where the URL of an MCP endpoint leads.
pub(crate) fn mcp_place(text: &str, tls: Option<&TlsOptions>) -> Result<HttpPlace, String> {
    parse_place(text, true, tls)
}

/// A URL of scheme, host and port, and for MCP a path.
pub(super) fn parse_place(
    text: &str,
    with_path: bool,
    tls: Option<&TlsOptions>,
) -> Result<HttpPlace, String> {
    let (path, base) = match text.splitn(4, '/').nth(3).filter(|_| with_path) {
        Some(path) if path.contains(['?', '#']) => {
            return Err(format!("`{text}`: an MCP endpoint has no query"));
        }
        Some(path) => (
            format!("/{path}"),
            text.get(..text.len() - path.len()).unwrap_or(text),
        ),
        None => ("/".to_owned(), text),
    };
    let secured = base.starts_with("https:");
    if !secured && tls.is_some() {
        return Err(format!("`{text}`: with `[upstream.tls]` write https://"));
    }
    let (scheme, default_port) = if secured {
        ("https", 443)
    } else {
        ("http", 80)
    };
    let (uri, host, port) = parse_url(base, scheme, default_port)?;
    let authority = uri.authority().map(ToString::to_string);
    Ok(HttpPlace {
        host,
        port,
        authority: authority.unwrap_or_default(),
        path,
        tls: secured.then(|| tls.cloned().unwrap_or_default()),
    })
}

/// A URL of scheme, host and port alone.
pub(super) fn parse_url(
    text: &str,
    scheme: &str,
    default_port: u16,
) -> Result<(Uri, String, u16), String> {
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
