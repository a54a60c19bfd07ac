//! `agentca.toml` as `init` writes it: every key, those that nobody set commented out with their
//! defaults.

use agentca_identity::name::TrustDomain;

use super::{DEFAULT_HTTP_LISTEN, DEFAULT_LISTEN};

/// The file of a new authority.
pub(crate) fn new_file(
    trust_domain: &TrustDomain,
    dns: &[String],
    public_url: Option<&str>,
) -> String {
    let quoted = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let names: Vec<String> = dns.iter().map(|name| quoted(name)).collect();
    let line = |key: &str, value: Option<String>, unset: &str| match value {
        Some(value) => format!("{key} = {value}"),
        None => format!("# {key} = {unset}"),
    };
    TEMPLATE
        .replace("{trust_domain}", &quoted(trust_domain.as_str()))
        .replace("{listen}", &quoted(DEFAULT_LISTEN))
        .replace("{http_listen}", &quoted(DEFAULT_HTTP_LISTEN))
        .replace(
            "{public_url line}",
            &line(
                "public_url",
                public_url.map(quoted),
                "\"http://127.0.0.1:7080\"",
            ),
        )
        .replace(
            "{dns line}",
            &line(
                "dns",
                (!dns.is_empty()).then(|| format!("[{}]", names.join(", "))),
                "[]",
            ),
        )
}

const TEMPLATE: &str = r#"# What `agentca serve` reads at its start.
#
# A key behind `# ` stands here with its default; without the `# ` it would say the same. A span of time is text: a
# whole number and s, m, h or d. An unknown key is refused.

# The tenant. It is in every certificate and in the log: it stays what it is.
trust_domain = {trust_domain}

# Where gRPC over mutual TLS is served; `--listen` goes before it.
listen = {listen}

# Where the root, CRLs, checkpoint, tiles, /healthz and /metrics are served, in plain HTTP; `--http-listen` goes before it.
http_listen = {http_listen}

# The URL by which others reach that, as certificates name it for their CRL. Its default is the address in force.
{public_url line}

# DNS names for the authority's own certificate, besides localhost and the loopback addresses.
{dns line}

# Over how many CRLs new certificates are spread. 1 to 1024.
# crl_shards = 1

# How long what is issued lives; a key needs `[lifetimes]` without its `# `, too.
# [lifetimes]

# Agents, unless the request says otherwise. 1m to 30d.
# agent = "1h"

# People. 1m to 90d.
# person = "30d"

# Enforcers, and the authority's own TLS certificate. 1m to 90d.
# enforcer = "30d"

# Signers of logs and answers, and the witness. 1h to 180d.
# signer = "90d"

# CRLs, which are signed again at half of it. 10s to 7d.
# crl = "1d"

# What peers may take; a key needs `[limits]` without its `# `, too.
# [limits]

# Connections at once, on each of the two addresses; fewer where the limit on open files asks for it.
# max_connections = 4096

# A TLS handshake, or the head of an HTTP request. 1s to 60s.
# handshake_timeout = "10s"

# Requests at once on one gRPC connection.
# requests_per_connection = 256

# The largest gRPC message that is taken, in bytes. 65536 to 67108864.
# message_max = 4194304

# How long a record may take to be on disk before the caller is told that the log cannot grow. 1s to 60s.
# durable_timeout = "10s"

# How long running requests are waited for at the end. 0s to 5m.
# drain_timeout = "10s"

# Renewals that one agent, person or enforcer may ask for at once. Issuing on a person's word has no such bound.
# renewals_at_once = 16

# Renewals a minute of each, in the long run.
# renewals_per_minute = 60

# Certificates in force that each may have and still renew; people who may issue have no such bound.
# certificates_each = 64

# Bytes of the disk that are kept for revocations: while less is free, nothing is issued, renewed or granted. 0 keeps none.
# disk_reserve = 67108864
"#;

#[cfg(test)]
mod tests {
    use super::super::{Config, FILE, RawConfig};
    use super::*;

    fn written(dns: &[String], public_url: Option<&str>) -> String {
        new_file(&"example.org".parse().unwrap(), dns, public_url)
    }

    fn load(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        Config::load(dir.path()).unwrap()
    }

    /// Every key and table without its `# `.
    fn uncommented(text: &str) -> String {
        let lines = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(bare) if bare.starts_with('[') || is_key(bare) => bare,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn is_key(line: &str) -> bool {
        let key = line.split(" = ").next().unwrap_or_default();
        key != line && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    }

    #[test]
    fn what_is_given_is_set() {
        let dns = ["ca.example.org".to_owned()];
        let config = load(&written(&dns, Some("http://ca.example.org")));
        assert_eq!(config.public_url.as_deref(), Some("http://ca.example.org"));
        assert_eq!(config.dns.len(), 1);
        assert_eq!(load(&written(&[], None)).public_url, None);
    }

    #[test]
    fn what_is_commented_out_is_the_default() {
        let text = written(&[], None);
        let (as_it_is, set) = (load(&text), load(&uncommented(&text)));
        let bare = load("trust_domain = \"example.org\"");
        for config in [as_it_is, set] {
            // Every field is named, so that a new one has to be written.
            let Config {
                trust_domain,
                listen,
                http_listen,
                public_url,
                dns,
                crl_shards,
                lifetimes,
                limits,
            } = config;
            assert_eq!(trust_domain, bare.trust_domain);
            assert_eq!((listen, http_listen), (bare.listen, bare.http_listen));
            assert!(public_url.is_none_or(|url| url == format!("http://{http_listen}")));
            assert_eq!(dns, bare.dns);
            assert_eq!(crl_shards, bare.crl_shards);
            assert_eq!((lifetimes, limits), (bare.lifetimes, bare.limits));
        }
    }

    #[test]
    fn no_key_is_missing_and_none_is_unexplained() {
        let text = written(&[], None);
        let all: toml::Table = uncommented(&text).parse().unwrap();
        for place in ["", "lifetimes", "limits"] {
            let table = match place {
                "" => &all,
                place => all.get(place).unwrap().as_table().unwrap(),
            };
            let mut keys: Vec<&str> = table.keys().map(String::as_str).collect();
            keys.sort_unstable();
            assert_eq!(keys, known(place), "{place}");
        }
        let mut before = "";
        for line in text.lines() {
            if is_key(line.trim_start_matches("# ")) {
                let explained = before.starts_with("# ") && !is_key(&before[2..]);
                assert!(explained, "nothing is said about {line}");
            }
            before = line;
        }
    }

    /// Asks the reader itself: an unknown key is answered with those there are.
    fn known(place: &str) -> Vec<String> {
        let table = match place {
            "" => String::new(),
            place => format!("[{place}]\n"),
        };
        let refused = toml::from_str::<RawConfig>(&format!("{table}unknown = 1")).unwrap_err();
        let said = refused.message().to_owned();
        let (_, keys) = said.split_once("expected one of ").unwrap();
        let mut keys: Vec<String> = keys
            .split(", ")
            .map(|key| key.trim_matches('`').to_owned())
            .collect();
        keys.sort_unstable();
        keys
    }
}
