//! Where revocation is learnt from: the authority's feed, or lists alone.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use http::Uri;

use super::errors::{Errors, blame, is_blamed, note};
use super::place::parse_url;
use super::raw::AUTHORITY_EXAMPLE;

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

pub(super) fn check_feed(
    errors: &mut Errors,
    authority: Option<&str>,
    crl: Option<Vec<String>>,
) -> Option<RevocationMode> {
    if crl.is_some_and(|crl| !crl.is_empty()) {
        let message = "is for `revocation = \"crl\"` only: remove it, or set that";
        blame(errors, "crl", message);
    }
    let Some(authority) = authority else {
        if !is_blamed(errors, "authority") {
            let message =
                format!("is missing: write it like `authority = \"{AUTHORITY_EXAMPLE}\"`");
            blame(errors, "authority", message);
        }
        return None;
    };
    let authority = note(errors, "authority", parse_authority(authority))?;
    Some(RevocationMode::Feed { authority })
}

pub(super) fn check_crl(
    errors: &mut Errors,
    authority: Option<&str>,
    crl: Option<Vec<String>>,
    refresh: Duration,
    base: &Path,
) -> Option<RevocationMode> {
    if authority.is_some() {
        let message = "is not asked with `revocation = \"crl\"`: remove it";
        blame(errors, "authority", message);
    }
    let crl = crl?;
    if crl.is_empty() {
        blame(errors, "crl", "is empty: list every shard's URL or file");
    }
    let sources: Vec<Option<CrlSource>> = (1..)
        .zip(&crl)
        .map(|(number, text): (u32, _)| {
            let key = format!("crl[{number}]");
            note(errors, &key, parse_crl_source(text, base))
        })
        .collect();
    let sources = sources.into_iter().collect::<Option<_>>()?;
    Some(RevocationMode::Crl { sources, refresh })
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
