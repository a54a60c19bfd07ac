//! Session ids that only the agent they were given to can use.
//!
//! An upstream's id is handed out sealed: with a code over it, the upstream, the revision that was
//! negotiated and the agent with its grant. So a session survives the renewal of its agent's certificate
//! and a restart of the enforcer, ends when the agent's grant changes, and is nobody else's: an id
//! whose code does not fit is unknown (404).

use agentca_identity::crypto::MacKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;

use super::revision::Revision;

/// Seals and opens session ids.
#[derive(Debug)]
pub(crate) struct Sessions {
    key: MacKey,
}

/// Whose session it is, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder<'a> {
    pub(crate) upstream: &'a str,
    /// The agent's URI.
    pub(crate) agent: &'a str,
    /// The index of its grant.
    pub(crate) grant: u64,
}

/// A session that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// As the upstream knows it.
    pub(crate) id: String,
    pub(crate) revision: Revision,
}

impl Sessions {
    pub(crate) fn new(key: MacKey) -> Self {
        Self { key }
    }

    /// What the client is given; `None` for an id that cannot be one.
    pub(crate) fn seal(
        &self,
        holder: Holder<'_>,
        revision: Revision,
        id: &str,
    ) -> Option<HeaderValue> {
        if !is_id(id) {
            return None;
        }
        let code = self.code(holder, revision, id);
        HeaderValue::try_from(format!("{code}.{}.{id}", revision.as_str())).ok()
    }

    /// The session that a client names, if it is this holder's.
    pub(crate) fn open(&self, holder: Holder<'_>, value: &HeaderValue) -> Option<Opened> {
        let text = value.to_str().ok()?;
        let (code, rest) = text.split_once('.')?;
        let (revision, id) = rest.split_once('.')?;
        let revision = Revision::parse(revision)?;
        let code: [u8; 32] = URL_SAFE_NO_PAD.decode(code).ok()?.try_into().ok()?;
        let text = bound(holder, revision, id);
        (is_id(id) && self.key.matches(text.as_bytes(), &code)).then(|| Opened {
            id: id.to_owned(),
            revision,
        })
    }

    fn code(&self, holder: Holder<'_>, revision: Revision, id: &str) -> String {
        let code = self.key.code(bound(holder, revision, id).as_bytes());
        URL_SAFE_NO_PAD.encode(code)
    }
}

/// An id for a session that begins here.
pub(super) fn fresh_id(random: &[u8]) -> String {
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// None of the parts but the last can hold a line end.
fn bound(holder: Holder<'_>, revision: Revision, id: &str) -> String {
    let Holder {
        upstream,
        agent,
        grant,
    } = holder;
    format!("{upstream}\n{agent}\n{grant}\n{}\n{id}", revision.as_str())
}

/// MCP 2025-11-25, Session Management: visible ASCII.
fn is_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

const MAX_ID: usize = 1024;

#[cfg(test)]
mod tests {
    use agentca_identity::crypto::{KeyKind, PrivateKey};

    use super::*;

    fn sessions() -> Sessions {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        Sessions::new(MacKey::derive(&key, "test").unwrap())
    }

    const HOLDER: Holder<'static> = Holder {
        upstream: "payments",
        agent: "spiffe://example.org/prod/agent/a",
        grant: 7,
    };

    #[test]
    fn a_session_is_its_holders_alone() {
        let sessions = sessions();
        let sealed = sessions.seal(HOLDER, Revision::V20251125, "s.1").unwrap();
        let opened = sessions.open(HOLDER, &sealed).unwrap();
        assert_eq!(
            (opened.id.as_str(), opened.revision),
            ("s.1", Revision::V20251125)
        );
        for holder in [
            Holder {
                agent: "spiffe://example.org/prod/agent/b",
                ..HOLDER
            },
            Holder {
                upstream: "mail",
                ..HOLDER
            },
            Holder { grant: 8, ..HOLDER },
        ] {
            assert_eq!(sessions.open(holder, &sealed), None);
        }
        assert_eq!(super::tests::sessions().open(HOLDER, &sealed), None);
        for (from, to) in [("s.1", "s.2"), ("11-25", "06-18"), (".2025", ".2026")] {
            let changed = sealed.to_str().unwrap().replace(from, to);
            let changed = HeaderValue::try_from(changed).unwrap();
            assert_eq!(sessions.open(HOLDER, &changed), None);
        }
        let bare = HeaderValue::from_static("s.1");
        assert_eq!(sessions.open(HOLDER, &bare), None);
    }

    #[test]
    fn an_id_that_is_none_is_not_sealed() {
        for id in ["", "a b", "\u{e9}", "a\nb"] {
            assert!(sessions().seal(HOLDER, Revision::V20251125, id).is_none());
        }
    }
}
