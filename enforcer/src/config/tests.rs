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
    assert_eq!((upstream.host.as_str(), upstream.port), ("127.0.0.1", 9000));
    assert_eq!(upstream.authority, "127.0.0.1:9000");
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
        assert!(
            parse(&text)
                .unwrap_err()
                .to_string()
                .contains("unknown field"),
            "{key}"
        );
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
        url = "https://x"
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
        "environment",
        "listen",
        "stale_after",
        "authority",
        "upstream.1.url",
        "upstream.2.name",
        "upstream.2.url",
        "route.1",
        "limits.idle_timeout",
        "limits.issued_wait",
        "limits.request_max",
        "limits.h2_max_streams",
        "threads",
    ];
    assert_eq!(keys(text), expected);
}

#[test]
fn limits_are_read() {
    let limits = "[limits]\nrequest_max = 10\nhead_max = \"8KiB\"\ndrain_timeout = \"3s\"";
    let config = parse(&format!("{DOCUMENTED}\n{limits}")).unwrap();
    assert_eq!(config.limits.request_max, 10);
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
        ["crl.1"]
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
    assert_eq!(keys(&format!("{DOCUMENTED}[[route]]{route}")), ["route.2"]);
}
