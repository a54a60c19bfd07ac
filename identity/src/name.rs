//! Names: trust domains, environments, agents, enforcers, people, and owners.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::text::serde_as_text;

/// A text that keeps the grammar of its kind; cheap to clone.
macro_rules! name_type {
    ($(#[$doc:meta])* $kind:ident, $error:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $kind(Arc<str>);

        impl $kind {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $kind {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $kind {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if $check(text) { Ok(Self(text.into())) } else { Err(NameError::$error) }
            }
        }

        serde_as_text!($kind);
    };
}

name_type! {
    /// The tenant, e.g. `example.org`; nothing crosses it. `[a-z0-9][a-z0-9._-]{0,63}`: narrower
    /// than SPIFFE (255 characters), because it is also an X.520 organisation name.
    TrustDomain, TrustDomain, is_plain
}

name_type! {
    /// Where an agent works, e.g. `prod`. `[a-z0-9][a-z0-9._-]{0,63}`, but neither `ca` nor
    /// `person`, which would make identities of one kind look like those of another.
    Environment, Environment, is_environment
}

name_type! {
    /// The name of an agent, an enforcer or a person: `[a-z0-9][a-z0-9._-]{0,63}`.
    Name, Name, is_plain
}

name_type! {
    /// The accountable person or team: 1 to 255 characters, no control characters, no space at
    /// either end.
    Owner, Owner, is_owner
}

name_type! {
    /// A DNS name that a server is reached under: lower-case labels of `a-z 0-9 -` joined by dots,
    /// at most 253 characters, no wildcard, not an IP address.
    DnsName, DnsName, is_dns
}

/// A text breaks the grammar of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not a trust domain.
    #[error("not a trust domain, use 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit")]
    TrustDomain,
    /// Not an environment.
    #[error(
        "not an environment, use 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit, but \
         neither `ca` nor `person`"
    )]
    Environment,
    /// Not a name.
    #[error("not a name, use 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit")]
    Name,
    /// Not an owner.
    #[error("not an owner, use 1 to 255 visible characters")]
    Owner,
    /// Not a DNS name.
    #[error("not a DNS name, use lower-case labels of a-z 0-9 - joined by dots, without wildcard")]
    DnsName,
}

/// `[a-z0-9][a-z0-9._-]{0,63}`: never a dot segment, never empty.
pub(crate) fn is_plain(text: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 64
        && text.as_bytes().first().is_some_and(is_alphanumeric)
        && text
            .bytes()
            .all(|byte| is_alphanumeric(&byte) || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_environment(text: &str) -> bool {
    is_plain(text) && text != "ca" && text != "person"
}

/// Besides control characters this refuses what makes a text read differently from its bytes:
/// line and paragraph separators and the bidirectional overrides.
fn is_owner(text: &str) -> bool {
    let deceives = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    !text.is_empty()
        && text.chars().take(256).count() <= 255
        && text.trim() == text
        && !text.chars().any(deceives)
}

/// RFC 1123 section 2.1; the last label is not all digits, so that no IPv4 address is a name.
fn is_dns(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253
        && text.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for good in ["a", "support-01", "0", "a.b_c-d", &"x".repeat(64)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
            good.parse::<TrustDomain>().unwrap();
            good.parse::<Environment>().unwrap();
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            "A",
            "a/b",
            "a b",
            "é",
            "a:b",
            "a\n",
            &"x".repeat(65),
        ] {
            assert_eq!(bad.parse::<Name>(), Err(NameError::Name), "{bad:?}");
            assert_eq!(
                bad.parse::<TrustDomain>(),
                Err(NameError::TrustDomain),
                "{bad:?}"
            );
            assert_eq!(
                bad.parse::<Environment>(),
                Err(NameError::Environment),
                "{bad:?}"
            );
        }
        assert!("ca".parse::<Name>().is_ok());
        assert!("ca".parse::<Environment>().is_err() && "person".parse::<Environment>().is_err());
    }

    #[test]
    fn owners() {
        for good in ["alice@example.org", "Plattform Zürich", &"é".repeat(255)] {
            assert_eq!(good.parse::<Owner>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            " ",
            " a",
            "a ",
            "a\nb",
            "a\0",
            "a\u{202e}b",
            &"é".repeat(256),
        ] {
            assert_eq!(bad.parse::<Owner>(), Err(NameError::Owner), "{bad:?}");
        }
    }

    #[test]
    fn dns_names() {
        for good in ["localhost", "edge-1.example.org", "1.example", "a.b"] {
            assert_eq!(good.parse::<DnsName>().unwrap().as_str(), good);
        }
        let long = format!("{}.org", "a".repeat(64));
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "*.a",
            "A",
            "-a",
            "a-",
            "a_b",
            "127.0.0.1",
            "::1",
            &long,
        ] {
            assert_eq!(bad.parse::<DnsName>(), Err(NameError::DnsName), "{bad:?}");
        }
    }
}
