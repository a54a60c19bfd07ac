use super::*;
use crate::testing::Pki;

const HOUR: Duration = Duration::from_secs(3_600);

const TEXT: &str = "environment = \"prod\"\nlisten = \"127.0.0.1:0\"\n\
                    authority = \"https://127.0.0.1:1\"\nidentity_dir = \".\"\ndata_dir = \"data\"\n";

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
    let before = marks(&path, bench.dir.path());
    assert_eq!(before, marks(&path, bench.dir.path()));
    std::fs::write(&path, TEXT).unwrap();
    let with_file = marks(&path, bench.dir.path());
    assert_ne!(before, with_file);
    std::fs::write(bench.dir.path().join("response.crt"), "x").unwrap();
    assert_ne!(with_file, marks(&path, bench.dir.path()));
}
