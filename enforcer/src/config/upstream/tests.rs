use super::*;
use crate::config::Config;

const BEFORE: &str = r#"
environment = "prod"
listen = "127.0.0.1:8443"
authority = "https://127.0.0.1:7443"
identity_dir = "edge-1"
data_dir = "edge-1-data"
[[upstream]]
name = "payments"
"#;
const ROUTE: &str = r#"
[[route]]
upstream = "payments"
methods = ["GET"]
path = "/v1/accounts/{id}"
scope = "payments:read"
min_trust = "L2"
risk = "read"
"#;

fn parse(upstream: &str) -> Result<Config, String> {
    let text = format!("{BEFORE}{upstream}{ROUTE}");
    Config::parse(&text, Path::new("/etc/agentca")).map_err(|errors| errors.to_string())
}

fn credentials(table: &str) -> CredentialOptions {
    let table = format!("url = \"http://127.0.0.1:1\"\n[upstream.credentials]\n{table}");
    let config = parse(&table).unwrap();
    config.upstreams[0].credentials.clone().unwrap()
}

#[track_caller]
fn refused(upstream: &str, key: &str, says: &str) -> String {
    let said = parse(upstream).unwrap_err();
    let line = said
        .lines()
        .find(|line| line.starts_with(&format!("{key}: ")));
    assert!(line.is_some_and(|line| line.contains(says)), "{said}");
    said
}

#[test]
fn https_is_verified_by_the_system_s_cas_unless_told_otherwise() {
    let config = parse("url = \"https://api.example.org\"").unwrap();
    let place = config.upstreams[0].place().unwrap();
    assert_eq!((place.host.as_str(), place.port), ("api.example.org", 443));
    assert_eq!(place.tls, Some(TlsOptions::default()));
    let config = parse(
        r#"
url = "https://10.0.0.1:9443"
[upstream.tls]
ca = "ca.pem"
server_name = "api.example.org"
client_certificate = "client.pem"
client_key = "client.key"
pin = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
"#,
    );
    let wanted = TlsOptions {
        ca: Some("/etc/agentca/ca.pem".into()),
        server_name: Some("api.example.org".into()),
        client: Some(ClientFiles {
            certificate: "/etc/agentca/client.pem".into(),
            key: "/etc/agentca/client.key".into(),
        }),
        pin: Some([0; 32]),
        verify: Verify::Full,
    };
    let config = config.unwrap();
    assert_eq!(config.upstreams[0].place().unwrap().tls, Some(wanted));
}

#[test]
fn what_weakens_tls_is_refused() {
    let with = |table: &str| format!("url = \"https://x\"\n[upstream.tls]\n{table}");
    let off = "verify = \"dangerously-off\"";
    refused(
        &with(off),
        "upstream[1].tls.verify",
        "`environment = \"dev\"` alone",
    );
    refused(
        &with("verify = \"off\""),
        "upstream[1].tls.verify",
        "`off` is not",
    );
    refused(
        &with("pin = \"sha256/AAAA\""),
        "upstream[1].tls.pin",
        "is no pin",
    );
    refused(
        &with("client_key = \"a\""),
        "upstream[1].tls.client_certificate",
        "is missing",
    );
    refused(
        &with("server_name = \"a b\""),
        "upstream[1].tls.server_name",
        "neither a DNS name",
    );
    refused(
        &with("insecure = true"),
        "upstream[1].tls.insecure",
        "is not a key here",
    );
    let plain = "url = \"http://x\"\n[upstream.tls]\nca = \"a\"";
    refused(plain, "upstream[1].url", "write https://");
    let text = format!("{BEFORE}{}{ROUTE}", with(off)).replace("\"prod\"", "\"dev\"");
    let config = Config::parse(&text, Path::new("")).unwrap();
    let tls = config.upstreams[0].place().unwrap().tls.clone();
    assert_eq!(tls.unwrap().verify, Verify::DangerouslyOff);
}

#[test]
fn every_kind_of_credential_is_read() {
    let file = |path: &str| SecretSource::File(Path::new("/etc/agentca").join(path));
    let read = credentials("bearer_from = \"file:token\"\nrefresh = \"1s\"");
    assert_eq!(read.all, Some(CredentialKind::Bearer(file("token"))));
    assert_eq!(read.refresh, Duration::from_secs(1));
    let read = credentials("header = { name = \"X-Api-Key\", value_from = \"env:KEY_1\" }");
    let header = CredentialKind::Header {
        name: HeaderName::from_static("x-api-key"),
        value: SecretSource::Environment("KEY_1".into()),
    };
    assert_eq!(read.all, Some(header));
    assert_eq!(read.refresh, Duration::from_secs(300));
    let command = "{ command = [\"vault\", \"read\", \"s3cr3t\"] }";
    let read = credentials(&format!(
        "basic = {{ user = \"a\", password_from = {command} }}"
    ));
    let Some(CredentialKind::Basic { user, password }) = read.all else {
        panic!("{read:?}")
    };
    assert_eq!(user, "a");
    let shown = format!("{password:?} {password}");
    assert!(
        shown.contains("vault") && !shown.contains("s3cr3t"),
        "{shown}"
    );
    let read = credentials(
        "[upstream.credentials.oauth]\ntoken_url = \"https://login.example.org/t?x=1\"\n\
         client_id = \"a\"\nclient_secret_from = \"file:/s\"\nauth = \"post\"\n\
         [upstream.credentials.agent.\"support-01\"]\nbearer_from = \"file:own\"\n",
    );
    let Some(CredentialKind::OAuth(oauth)) = read.all else {
        panic!("{read:?}")
    };
    let wanted = TokenUrl {
        tls: true,
        host: "login.example.org".into(),
        port: 443,
        authority: "login.example.org".into(),
        path: "/t?x=1".into(),
    };
    assert_eq!((oauth.token_url, oauth.auth), (wanted, ClientAuth::Post));
    let own = read.agents.get("support-01");
    assert_eq!(own, Some(&CredentialKind::Bearer(file("own"))));
    let read = credentials("[upstream.credentials.agent.a]\nbearer_from = \"file:own\"\n");
    assert_eq!(read.all, None);
}

#[test]
fn wrong_credentials_are_refused_and_never_shown() {
    let with = |table: &str| format!("url = \"http://x\"\n[upstream.credentials]\n{table}\n");
    let at = "upstream[1].credentials";
    refused(&with(""), at, "exactly one of");
    refused(
        &with("bearer_from = \"file:a\"\nbasic = { user = \"a\", password_from = \"file:a\" }"),
        at,
        "exactly one of",
    );
    for value in [
        "\"hunter2\"",
        "\"file:\"",
        "\"env:a-b\"",
        "12345",
        "{ command = [] }",
    ] {
        let said = refused(
            &with(&format!("bearer_from = {value}")),
            "upstream[1].credentials.bearer_from",
            "is no place of a secret",
        );
        assert!(
            !said.contains("hunter2") && !said.contains("12345"),
            "{said}"
        );
    }
    for name in [
        "Host",
        "Agent-Id",
        "Mcp-Name",
        "Content-Length",
        "X_Key",
        "a b",
    ] {
        let table = format!("header = {{ name = \"{name}\", value_from = \"file:a\" }}");
        refused(&with(&table), "upstream[1].credentials.header.name", "`");
    }
    refused(
        &with("basic = { user = \"a:b\", password_from = \"file:a\" }"),
        "upstream[1].credentials.basic.user",
        "`:`",
    );
    let oauth = |url: &str| {
        let rest = "client_id = \"a\", client_secret_from = \"file:a\"";
        with(&format!("oauth = {{ token_url = \"{url}\", {rest} }}"))
    };
    for url in [
        "http://login.example.org/t",
        "ftp://x/t",
        "https://a@b/t",
        "https:///t",
    ] {
        refused(&oauth(url), "upstream[1].credentials.oauth.token_url", "`");
    }
    assert!(parse(&oauth("http://127.0.0.1:1/t")).is_ok());
    refused(
        &with("[upstream.credentials.agent.\"Support*\"]\nbearer_from = \"file:a\""),
        "upstream[1].credentials.agent.\"Support*\"",
        "",
    );
    refused(
        &with("bearer_from = \"file:a\"\n[upstream.credentials.agent.a]\n"),
        "upstream[1].credentials.agent.\"a\"",
        "exactly one of",
    );
}
