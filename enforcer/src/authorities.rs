//! Who this enforcer is to its clients: the DNS and IP names of its own certificate, any port.

use std::net::IpAddr;

use agentca_identity::certificate::EnforcerIdentity;
use http::uri::Authority;

/// The names an enforcer answers for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Authorities {
    /// Lower case.
    dns: Vec<String>,
    ip: Vec<IpAddr>,
}

impl Authorities {
    pub(crate) fn of(identity: &EnforcerIdentity) -> Self {
        let dns: Vec<&str> = identity.dns.iter().map(|name| name.as_str()).collect();
        Self::new(&dns, &identity.ip)
    }

    pub(crate) fn new(dns: &[&str], ip: &[IpAddr]) -> Self {
        Self {
            dns: dns.iter().map(|name| name.to_ascii_lowercase()).collect(),
            ip: ip.to_vec(),
        }
    }

    /// Whether a request for `authority` on a connection opened with `sni` is for us: the name is
    /// ours, and no other than the handshake's.
    pub(crate) fn answers_for(&self, authority: &Authority, sni: Option<&str>) -> bool {
        let host = authority.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return sni.is_none() && self.ip.contains(&ip);
        }
        self.dns.iter().any(|name| name.eq_ignore_ascii_case(host))
            && sni.is_none_or(|sni| sni.eq_ignore_ascii_case(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(authority: &str, sni: Option<&str>, ours: bool) {
        let authorities = Authorities::new(
            &["Edge.example.org", "localhost"],
            &["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        );
        let answered = authorities.answers_for(&authority.parse().unwrap(), sni);
        assert_eq!(answered, ours, "{authority} with {sni:?}");
    }

    #[test]
    fn any_port_of_our_names_is_ours() {
        check("edge.example.org", Some("edge.example.org"), true);
        check("EDGE.example.org:8443", Some("edge.example.org"), true);
        check("localhost:1", None, true);
        check("127.0.0.1:8443", None, true);
        check("[::1]:8443", None, true);
    }

    #[test]
    fn other_names_are_not() {
        check("example.org", None, false);
        check("edge.example.org.evil", None, false);
        check("127.0.0.2", None, false);
        check("localhost", Some("edge.example.org"), false);
        check("127.0.0.1", Some("localhost"), false);
    }
}
