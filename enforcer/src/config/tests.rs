use super::*;

const DOCUMENTED: &str = r#"
environment = "prod"
listen = "127.0.0.1:8443"
authority = "https://127.0.0.1:7443"
identity_dir = "edge-1"         # written by `agentca enforcer add`
data_dir = "edge-1-data"        # its log is edge-1-data/log
stale_after = "30s"             # then every request is denied until the feed is back
[[upstream]]
name = "payments"
url = "http://127.0.0.1:9000"
[[route]]
upstream = "payments"
methods = ["GET"]
path = "/v1/accounts/{id}"
scope = "payments:read"
min_trust = "L2"
risk = "read"
"#;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("/etc/agentca"))
}

fn keys(text: &str) -> Vec<String> {
    parse(text)
        .unwrap_err()
        .iter()
        .map(|error| error.key.clone())
        .collect()
}

#[test]
fn the_documented_file_works_as_it_stands() {
    let config = parse(DOCUMENTED).unwrap();
    assert_eq!(config.log_dir(), Path::new("/etc/agentca/edge-1-data/log"));
    assert_eq!(config.identity_dir, Path::new("/etc/agentca/edge-1"));
    assert_eq!(config.stale_after, Duration::from_secs(30));
    assert_eq!(config.limits, Limits::default());
    assert!(config.threads >= 1);
    let RevocationMode::Feed { authority } = &config.revocation else {
        panic!("no feed")
    };
    assert_eq!(
        (authority.host.as_str(), authority.port),
        ("127.0.0.1", 7443)
    );
    let upstream = config.upstreams.first().unwrap();
    let place = upstream.place().unwrap();
    assert_eq!((place.host.as_str(), place.port), ("127.0.0.1", 9000));
    assert_eq!(place.authority, "127.0.0.1:9000");
    assert!(upstream.mcp.is_none());
    assert_eq!(config.catalogue.routes().len(), 1);
}

#[test]
fn unknown_keys_are_refused_everywhere() {
    for (at, key) in [
        ("environment = \"prod\"", "enviroment2 = 1"),
        ("name = \"payments\"", "weight = 1"),
        ("risk = \"read\"", "quota = 1"),
        ("risk = \"read\"", "[limits]\nrequest_maximum = 1"),
    ] {
        let text = DOCUMENTED.replace(at, &format!("{at}\n{key}"));
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains("is not a key here"), "{key}: {said}");
    }
}

#[test]
fn unknown_keys_are_told_what_was_meant_or_where_they_belong() {
    for (at, key, says) in [
        (
            "environment = \"prod\"",
            "stale-after = \"3s\"",
            "stale-after: is not a key here; did you mean `stale_after`?",
        ),
        (
            "environment = \"prod\"",
            "head_max = 9000",
            "head_max: is not a key here; it belongs below `[limits]`",
        ),
        (
            "risk = \"read\"",
            "threads = 2",
            "route[1].threads: is not a key here; it belongs at the top of the file",
        ),
        (
            "name = \"payments\"",
            "weight = 1",
            "upstream[1].weight: is not a key here; the keys here are name, kind, url, tls, credentials",
        ),
    ] {
        let said = parse(&DOCUMENTED.replace(at, &format!("{at}\n{key}")))
            .unwrap_err()
            .to_string();
        assert!(said.starts_with(says), "{said}");
    }
}

#[test]
fn every_error_is_listed_with_its_key() {
    let text = r#"
        environment = "PROD"
        listen = "localhost"
        authority = "http://127.0.0.1:7443"
        identity_dir = "a"
        data_dir = "b"
        stale_after = "30"
        threads = 0
        [[upstream]]
        name = "a"
        url = "ftp://x"
        [[upstream]]
        name = "a"
        url = "http://x/path"
        [[route]]
        upstream = "b"
        methods = ["GET"]
        path = "/"
        scope = "a"
        min_trust = "L2"
        risk = "read"
        [limits]
        request_max = "2GiB"
        idle_timeout = "0s"
        issued_wait = "1s"
        h2_max_streams = 0
    "#;
    let expected = [
        "stale_after",
        "threads",
        "limits.idle_timeout",
        "limits.issued_wait",
        "limits.request_max",
        "limits.h2_max_streams",
        "environment",
        "listen",
        "authority",
        "upstream[1].url",
        "upstream[2].name",
        "upstream[2].url",
        "route[1].upstream",
    ];
    assert_eq!(keys(text), expected);
}

#[test]
fn wrong_types_are_listed_with_an_example_of_the_right_one() {
    let text = r#"
        environment = 1
        listen = "127.0.0.1:8443"
        authority = 7443
        stale_after = 30
        threads = "two"
        crl_refresh = 1.5
        crl = ["a", 2]
        [[upstream]]
        name = "payments"
        url = "http://127.0.0.1:9000"
        [[route]]
        upstream = "payments"
        methods = "GET"
        path = "/"
        scope = "a"
        min_trust = 2
        risk = "none"
        stream_request = "yes"
        [[route]]
        upstream = "payments"
        methods = ["GET"]
        path = "/a/"
        scope = "a:*"
        min_trust = "L2"
        risk = "read"
        [limits]
        issued_wait = 250
        head_max = true
        request_max = "1MB"
        headers_max = -1
    "#;
    let expected = [
        (
            "environment",
            "the number 1: write text in quotes, like `environment = \"prod\"`",
        ),
        ("authority", "like `authority = \"https://127.0.0.1:7443\"`"),
        (
            "identity_dir",
            "is missing: write it like `identity_dir = \"edge-1\"`",
        ),
        ("data_dir", "is missing"),
        (
            "stale_after",
            "is the number 30: write text with a unit, like `stale_after = \"30s\"`",
        ),
        ("crl[2]", "is the number 2: write a list of text"),
        ("crl_refresh", "like `crl_refresh = \"1m\"`"),
        (
            "threads",
            "is the text \"two\": write a whole number without quotes",
        ),
        ("limits.issued_wait", "like `issued_wait = \"250ms\"`"),
        ("limits.head_max", "like `head_max = \"16KiB\"`"),
        (
            "limits.request_max",
            "KiB, MiB or GiB, like `request_max = \"1MiB\"`",
        ),
        ("limits.headers_max", "-1 is not within 8 and 1000"),
        (
            "route[1].methods",
            "write a list of text, like `methods = [\"GET\"]`",
        ),
        ("route[1].min_trust", "like `min_trust = \"L2\"`"),
        ("route[1].risk", "`none` is no risk"),
        ("route[1].stream_request", "`stream_request = true` or"),
        ("route[2].scope", "`a:*`"),
        ("route[2].path", "empty segment"),
    ];
    let errors = parse(text).unwrap_err();
    let found: Vec<_> = errors.iter().collect();
    assert_eq!(found.len(), expected.len(), "{errors}");
    for (error, (key, says)) in found.into_iter().zip(expected) {
        assert_eq!(error.key, key, "{errors}");
        assert!(error.message.contains(says), "{error}");
    }
}

#[test]
fn a_table_in_single_brackets_is_told_apart() {
    let said = parse(&DOCUMENTED.replace("[[route]]", "[route]"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        said,
        "route: is a table: write `[[route]]`, with two brackets, before each"
    );
}

#[test]
fn a_file_s_errors_begin_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enforcer.toml");
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap_err().to_string()
    };
    let said = refused(
        &DOCUMENTED
            .replace("payments:read", "payments:*")
            .replace("prod", "PROD"),
    );
    let lines: Vec<&str> = said.lines().collect();
    let [environment, route] = lines.as_slice() else {
        panic!("{said}")
    };
    let begins = |key: &str| format!("{}: {key}: ", path.display());
    assert!(environment.starts_with(&begins("environment")), "{said}");
    assert!(route.starts_with(&begins("route[1].scope")), "{said}");
    assert!(
        route.ends_with("in the route `/v1/accounts/{id}`"),
        "{said}"
    );
    let said = refused("environment = \"prod\"\nlisten = 127.0.0.1:8443\n");
    let shown = "`listen = 127.0.0.1:8443` is no TOML: ";
    assert!(said.starts_with(&(begins("line 2") + shown)), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    std::fs::remove_file(&path).unwrap();
    let said = Config::load(&path).unwrap_err().to_string();
    assert!(said.starts_with(&begins("cannot be read")), "{said}");
    assert!(said.contains("--config"), "{said}");
}

#[test]
fn limits_are_read() {
    let limits = "[limits]\nrequest_max = 10\nhead_max = \"8KiB\"\ndrain_timeout = \"3s\"";
    let config = parse(&format!("{DOCUMENTED}\n{limits}")).unwrap();
    assert_eq!(config.limits.request_max, 10);
    let more = format!("{DOCUMENTED}\n[limits]\nrequest_max = \"200MiB\"");
    let error = parse(&more).unwrap_err().to_string();
    assert!(error.contains("limits.buffered_max"), "{error}");
    let room = format!("{more}\nbuffered_max = \"400MiB\"");
    assert_eq!(parse(&room).unwrap().limits.buffered_max, 400 << 20);
    assert_eq!(config.limits.head_max, 8192);
    assert_eq!(config.limits.drain_timeout, Duration::from_secs(3));
}

#[test]
fn crl_mode_takes_urls_and_files() {
    let authority = "authority = \"https://127.0.0.1:7443\"";
    let crl = "revocation = \"crl\"\ncrl = [\"http://ca/crl/0.crl\", \"1.crl\"]";
    let config = parse(&DOCUMENTED.replace(authority, crl)).unwrap();
    let RevocationMode::Crl { sources, refresh } = config.revocation else {
        panic!("no crl")
    };
    assert_eq!(refresh, Duration::from_secs(60));
    assert_eq!(
        sources.get(1),
        Some(&CrlSource::File(PathBuf::from("/etc/agentca/1.crl")))
    );
    assert_eq!(sources.first().unwrap().to_string(), "http://ca/crl/0.crl");
}

#[test]
fn revocation_modes_do_not_mix() {
    let authority = "authority = \"https://127.0.0.1:7443\"";
    let with = |text: &str| keys(&DOCUMENTED.replace(authority, text));
    assert_eq!(with(""), ["authority"]);
    assert_eq!(with("revocation = \"crl\""), ["crl"]);
    assert_eq!(with("revocation = \"none\""), ["revocation"]);
    assert_eq!(with(&format!("{authority}\ncrl = [\"a\"]")), ["crl"]);
    let both = format!("{authority}\nrevocation = \"crl\"\ncrl = [\"a\"]");
    assert_eq!(with(&both), ["authority"]);
    assert_eq!(
        with("revocation = \"crl\"\ncrl = [\"https://x/y\"]"),
        ["crl[1]"]
    );
}

#[test]
fn some_keys_need_a_restart() {
    let config = parse(DOCUMENTED).unwrap();
    let other = parse(&DOCUMENTED.replace("8443", "8444")).unwrap();
    assert_eq!(config.fixed_key_changed(&other), Some("listen"));
    let other = parse(&DOCUMENTED.replace("payments:read", "payments:x")).unwrap();
    assert_eq!(config.fixed_key_changed(&other), None);
}

#[test]
fn nothing_listed_twice_reaches_the_catalogue() {
    let route = DOCUMENTED.split("[[route]]").nth(1).unwrap();
    assert_eq!(
        keys(&format!("{DOCUMENTED}[[route]]{route}")),
        ["route[2].methods"]
    );
}

#[test]
fn routes_keep_their_places_when_one_cannot_be_read() {
    let text = DOCUMENTED.replace("[[route]]", "[[route]]\n[[route]]");
    let text = text.replace("payments:read", "*");
    let keys = keys(&text);
    assert_eq!(keys.first().map(String::as_str), Some("route[1].upstream"));
    assert_eq!(keys.last().map(String::as_str), Some("route[2].scope"));
}

/// `enforcer.example.toml`, as it is and with every commented key uncommented.
mod example {
    use toml::{Table, Value};

    use super::*;

    const EXAMPLE: &str = include_str!("../../enforcer.example.toml");
    /// Keys that stand in the example with a value of no meaning, since they have no fixed default.
    const WITHOUT_DEFAULT: [&str; 7] = [
        "threads",
        "ops_listen",
        "tls",
        "credentials",
        "classification",
        "publisher",
        "version",
    ];

    /// `key` of `key = value`, and whether it is commented out.
    fn key_of(line: &str) -> Option<(&str, bool)> {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let (key, _) = bare.split_once(" = ")?;
        let is_key = key
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        is_key.then_some((key, bare.len() < line.len()))
    }

    /// Whether the line begins a table that is commented out; none when it begins none.
    fn optional_table(line: &str) -> Option<bool> {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        (bare.starts_with('[') && bare.ends_with(']')).then_some(bare.len() < line.len())
    }

    /// Without the `# ` of keys in tables that are there anyway.
    fn uncommented(keep: impl Fn(&str) -> bool) -> String {
        uncommented_with(keep, Tables::Commented)
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Tables {
        Commented,
        Uncommented,
    }

    fn uncommented_with(keep: impl Fn(&str) -> bool, tables: Tables) -> String {
        let mut optional = false;
        let lines = EXAMPLE.lines().map(|line| {
            optional = optional_table(line).unwrap_or(optional);
            let is_kept = match key_of(line) {
                Some((key, true)) => optional || keep(key),
                Some((_, false)) => false,
                None => optional_table(line) == Some(true),
            };
            if is_kept && (!optional || tables == Tables::Uncommented) {
                line.trim_start_matches("# ")
            } else {
                line
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// With the files that it names.
    fn parse_everything(text: &str) -> Result<Config, ConfigErrors> {
        let key = agentca_identity::crypto::PrivateKey::generate(
            agentca_identity::crypto::KeyKind::Ed25519,
        );
        let der = key.unwrap().public_key().spki_der().to_vec();
        let pem = agentca_identity::pem::encode("PUBLIC KEY", &der);
        let place = FilePlace {
            file: None,
            base: Path::new("/etc/agentca"),
            read: &|path| {
                let is_key = path.ends_with("acme-labs.pem");
                let missing = || std::io::ErrorKind::NotFound.into();
                is_key.then(|| pem.clone()).ok_or_else(missing)
            },
        };
        Config::parse_at(text, &place)
    }

    #[test]
    fn it_is_the_documented_file() {
        let (example, documented) = (parse(EXAMPLE).unwrap(), parse(DOCUMENTED).unwrap());
        assert_same(&example, &documented);
        assert!(
            EXAMPLE.lines().all(|line| line.len() <= 160),
            "too wide to read"
        );
    }

    #[test]
    fn what_is_commented_out_is_the_default() {
        let (as_it_is, set) = (
            parse(EXAMPLE).unwrap(),
            parse(&uncommented(|key| !WITHOUT_DEFAULT.contains(&key))).unwrap(),
        );
        assert_same(&as_it_is, &set);
        assert_eq!(as_it_is.limits, Limits::default());
        // What counts in the other mode alone.
        let crl = uncommented(|key| key == "crl_refresh").replace(
            "authority = ",
            "revocation = \"crl\"\ncrl = [\"a.crl\"]\n# authority = ",
        );
        let default = crl.replace("\ncrl_refresh = ", "\n# crl_refresh = ");
        assert_ne!(crl, default);
        assert_same(&parse(&crl).unwrap(), &parse(&default).unwrap());
    }

    #[test]
    fn no_key_is_missing_and_none_is_unexplained() {
        let everything = uncommented_with(|_| true, Tables::Uncommented);
        // `tls` has no meaning with a plain URL.
        parse_everything(&everything.replace("http://", "https://")).unwrap();
        let all: Table = everything.parse().unwrap();
        let mut places = std::collections::BTreeMap::new();
        collect_keys("", &all, &mut places);
        assert!(places.len() >= 10, "{places:?}");
        for (place, written) in places {
            if matches!(&*place, "upstream.env" | "upstream.env_from") {
                // Its keys are whatever a program wants.
                continue;
            }
            let known = known_keys(&place);
            if ONE_OF_SEVERAL.contains(&&*place) {
                // Of some that exclude each other one stands there; the lines above name the rest.
                for key in known {
                    assert!(EXAMPLE.contains(&format!("`{key}")), "{place}.{key}");
                }
                continue;
            }
            let written: Vec<&str> = written.iter().map(String::as_str).collect();
            assert_eq!(sorted(&written), known, "{place}");
        }
        let mut before = "";
        for line in EXAMPLE.lines() {
            if let Some((key, _)) = key_of(line) {
                let explained = before.starts_with("# ") && key_of(before).is_none();
                assert!(explained, "{key} has no line that says what it is for");
            }
            before = line;
        }
    }

    /// The keys of every kind of table, over all tables of the kind.
    const ONE_OF_SEVERAL: [&str; 2] = ["upstream.tls", "upstream.credentials"];

    fn collect_keys(
        place: &str,
        table: &Table,
        places: &mut std::collections::BTreeMap<String, std::collections::BTreeSet<String>>,
    ) {
        let keys = places.entry(place.to_owned()).or_default();
        keys.extend(table.keys().cloned());
        for (key, value) in table {
            let inner = if place.is_empty() {
                key.clone()
            } else {
                format!("{place}.{key}")
            };
            match value {
                Value::Table(table) => collect_keys(&inner, table, places),
                Value::Array(members) => {
                    for table in members.iter().filter_map(Value::as_table) {
                        collect_keys(&inner, table, places);
                    }
                }
                _ => {}
            }
        }
    }

    /// Asks the reader itself: an unknown key is answered with those there are.
    fn known_keys(place: &str) -> Vec<String> {
        let (outer, inner) = place.split_once('.').unwrap_or((place, ""));
        let (begin, at) = match outer {
            "" => (String::new(), String::new()),
            "limits" | "ceiling" => (format!("[{outer}]\n"), format!("{outer}.")),
            // Which has the keys of the other kind, too.
            "upstream" => (
                "[[upstream]]\nkind = \"mcp\"\n".to_owned(),
                "upstream[1].".to_owned(),
            ),
            outer => (format!("[[{outer}]]\n"), format!("{outer}[1].")),
        };
        let (begin, at) = if inner.is_empty() {
            (begin, at)
        } else {
            (format!("{begin}[{place}]\n"), format!("{at}{inner}."))
        };
        let unknown = format!("{at}nothing_like_any_key");
        let errors = parse(&format!("{begin}nothing_like_any_key = 1")).unwrap_err();
        let error = errors.iter().find(|error| error.key == unknown).unwrap();
        let (_, keys) = error.message.split_once("the keys here are ").unwrap();
        sorted(&keys.split(", ").collect::<Vec<_>>())
    }

    fn sorted(keys: &[&str]) -> Vec<String> {
        let mut keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        keys.sort_unstable();
        keys
    }

    fn assert_same(one: &Config, other: &Config) {
        assert_eq!(one.fixed_key_changed(other), None);
        assert_eq!(one.limits, other.limits);
        assert_eq!(one.upstreams, other.upstreams);
        assert_eq!(one.catalogue.routes(), other.catalogue.routes());
    }
}

#[test]
fn what_would_deny_every_call_is_refused() {
    let bare = DOCUMENTED.split("[[upstream]]").next().unwrap();
    assert_eq!(keys(bare), ["upstream", "route"]);
    for (written, meant) in [
        ("/v1/accounts/*", "`*`"),
        ("/v1/:id", "`:id`"),
        ("/v1/x*y", "`x*y`"),
    ] {
        let error = parse(&DOCUMENTED.replace("/v1/accounts/{id}", written)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("route[1].path") && error.contains(meant),
            "{error}"
        );
        assert!(error.contains("write {name} for one segment"), "{error}");
    }
}

#[test]
fn a_program_has_its_environment_and_limits() {
    let with = |more: &str| {
        let upstream = "[[upstream]]\nname = \"files\"\nkind = \"mcp\"";
        let command = "command = [\"files-server\", \"--root\"]";
        parse(&format!("{DOCUMENTED}\n{upstream}\n{command}\n{more}"))
    };
    let read = |config: &Config| match &config.upstreams.last().unwrap().transport {
        Transport::Command(line) => line.clone(),
        Transport::Http(place) => panic!("{place:?}"),
    };
    let line = read(&with("").unwrap());
    assert_eq!((line.max_processes, line.idle.as_secs()), (64, 300));
    assert!(line.environment.is_empty());
    let line = read(&with("env = { A = \"1\" }\nmax_processes = 2\nidle = \"1m\"").unwrap());
    assert_eq!((line.max_processes, line.idle.as_secs()), (2, 60));
    assert_eq!(line.environment.get("A").unwrap(), "1");
    assert_eq!(line.program, "files-server", "looked for in PATH");
    let line = read(&with("env = { A = \"hush\" }\nenv_from = { B = \"file:b.key\" }").unwrap());
    let secret = line.secrets.get("B").unwrap().to_string();
    assert!(secret.ends_with("/b.key"), "{secret}");
    assert!(!format!("{line:?}").contains("hush"), "{line:?}");
    for (wrong, key) in [
        ("env = { A = 1 }", "upstream[2].env.A: is the number 1"),
        (
            "env = { \"A=B\" = \"1\" }",
            "upstream[2].env.A=B: cannot be",
        ),
        ("env = [\"A\"]", "upstream[2].env: is a list"),
        (
            "env_from = { A = \"secret\" }",
            "upstream[2].env_from.A: is no place",
        ),
        (
            "env_from = \"file:a\"",
            "upstream[2].env_from: must be a table",
        ),
        (
            "env = { A = \"1\" }\nenv_from = { A = \"file:a\" }",
            "upstream[2].env_from.A: is in `env` too",
        ),
        ("max_processes = 0", "upstream[2].max_processes"),
        ("idle = \"1ms\"", "upstream[2].idle"),
    ] {
        let said = with(wrong).unwrap_err().to_string();
        assert!(said.contains(key), "{said}");
    }
}
