use super::*;
use crate::testing::Pki;

const HOUR: Duration = Duration::from_secs(3_600);

const TEXT: &str = r#"environment = "prod"
listen = "127.0.0.1:0"
authority = "https://127.0.0.1:1"
identity_dir = "."
data_dir = "data"
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

struct Bench {
    pki: Pki,
    dir: tempfile::TempDir,
    now: Setting,
}

impl Bench {
    fn new() -> Self {
        let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
        pki.write(dir.path(), HOUR);
        let config = Config::parse(TEXT, dir.path()).unwrap();
        let credentials =
            Credentials::load(dir.path(), &config.environment, Timestamp::now()).unwrap();
        let now = Setting {
            config: Arc::new(config),
            credentials: Arc::new(credentials),
        };
        Self { pki, dir, now }
    }

    fn check(&self, text: &str) -> Result<Setting, ReloadError> {
        let path = self.dir.path().join("enforcer.toml");
        std::fs::write(&path, text).unwrap();
        check(&path, &self.now)
    }
}

#[test]
fn routes_limits_and_certificates_may_change() {
    let bench = Bench::new();
    bench.pki.write_tls(bench.dir.path(), HOUR * 2);
    let setting = bench
        .check(&format!("{TEXT}[limits]\nrequest_max = 5\n"))
        .unwrap();
    assert_eq!(setting.config.limits.request_max, 5);
    let (old, new) = (
        &bench.now.credentials.certificate,
        &setting.credentials.certificate,
    );
    assert!(new.not_after() > old.not_after());
}

#[test]
fn what_is_wrong_is_refused_whole() {
    let bench = Bench::new();
    assert!(matches!(
        bench.check("environment = 1"),
        Err(ReloadError::Config(_))
    ));
    let moved = TEXT.replace("127.0.0.1:0", "127.0.0.1:2");
    assert!(matches!(
        bench.check(&moved),
        Err(ReloadError::Fixed("listen"))
    ));
    std::fs::remove_file(bench.dir.path().join("response.key")).unwrap();
    assert!(matches!(
        bench.check(TEXT),
        Err(ReloadError::Credentials(_))
    ));
}

#[test]
fn another_root_needs_a_restart() {
    let bench = Bench::new();
    Pki::new().write(bench.dir.path(), HOUR);
    assert!(matches!(bench.check(TEXT), Err(ReloadError::Root)));
}

#[test]
fn every_change_shows() {
    let bench = Bench::new();
    let path = bench.dir.path().join("enforcer.toml");
    let before = marks(&path, &bench.now.config);
    assert_eq!(before, marks(&path, &bench.now.config));
    std::fs::write(&path, TEXT).unwrap();
    let with_file = marks(&path, &bench.now.config);
    assert_ne!(before, with_file);
    std::fs::write(bench.dir.path().join("response.crt"), "x").unwrap();
    assert_ne!(with_file, marks(&path, &bench.now.config));
}

const SERVER: &str =
    "[[upstream]]\nname = \"tools\"\nkind = \"mcp\"\nurl = \"http://127.0.0.1:9001/mcp\"\n";
const TOOL: &str =
    "[[tool]]\nupstream = \"tools\"\nname = \"refund\"\nmin_trust = \"L2\"\nrisk = \"write\"\n";

/// The configuration with a catalogue in a file of its own.
fn with_catalogue() -> String {
    format!("catalogue = [\"catalogue.toml\"]\n{TEXT}{SERVER}")
}

#[test]
fn a_catalogue_s_files_and_pins_are_watched() {
    let mut bench = Bench::new();
    let path = |name: &str| bench.dir.path().join(name);
    let catalogue = path("catalogue.toml");
    let watched = [
        "catalogue.toml",
        "catalogue.pins.json",
        "enforcer.pins.json",
    ]
    .map(path);
    std::fs::write(&catalogue, TOOL).unwrap();
    bench.now = bench.check(&with_catalogue()).unwrap();
    let config = bench.dir.path().join("enforcer.toml");
    for file in watched {
        let before = marks(&config, &bench.now.config);
        std::fs::write(&file, "x").unwrap();
        assert_ne!(
            before,
            marks(&config, &bench.now.config),
            "{}",
            file.display()
        );
    }
}

#[test]
fn what_is_wrong_in_a_catalogue_may_pass() {
    let bench = Bench::new();
    let catalogue = bench.dir.path().join("catalogue.toml");
    let missing = bench.check(&with_catalogue()).unwrap_err();
    assert!(missing.may_pass() && missing.to_string().contains("catalogue.toml"));
    std::fs::write(&catalogue, TOOL).unwrap();
    let setting = bench.check(&with_catalogue()).unwrap();
    assert_eq!(setting.config.mcp_catalogue.len(), 1);
    assert!(!bench.check("environment = 1").unwrap_err().may_pass());
}

/// Refuses once.
#[derive(Default)]
struct Reluctant(Vec<usize>);

impl Apply for Reluctant {
    async fn apply(&mut self, setting: Setting) -> Result<(), String> {
        self.0.push(setting.config.limits.request_max);
        match self.0.len() {
            1 => Err("the disk is full".to_owned()),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn what_was_refused_for_a_passing_reason_is_tried_again() {
    let bench = Bench::new();
    let path = bench.dir.path().join("enforcer.toml");
    std::fs::write(&path, TEXT).unwrap();
    let settings = Settings::new(bench.now);
    let mut watcher = Watcher::new(path.clone(), settings, Reluctant::default());
    watcher.look(false).await;
    assert!(watcher.apply.0.is_empty(), "nothing changed");
    std::fs::write(&path, format!("{TEXT}[limits]\nrequest_max = 5\n")).unwrap();
    watcher.look(false).await;
    watcher.look(false).await;
    assert_eq!(watcher.apply.0, [5], "refused, and left alone for a while");
    watcher.again = Some(Instant::now());
    watcher.look(false).await;
    watcher.look(false).await;
    assert_eq!(watcher.apply.0, [5, 5], "tried again until it is in force");
    std::fs::write(&path, "environment = 1").unwrap();
    watcher.look(false).await;
    assert_eq!(watcher.again, None, "that does not pass by itself");
}

#[test]
fn a_certificate_that_ends_soon_is_told() {
    let bench = Bench::new();
    let credentials = &bench.now.credentials;
    let ends = credentials.certificate.not_after();
    assert_eq!(credentials.ends_soon(ends - HOUR / 2), None);
    assert_eq!(
        credentials.ends_soon(ends - HOUR / 5),
        Some(("tls.crt", ends))
    );
}
