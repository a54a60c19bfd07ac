use std::path::PathBuf;

use agentca_auditlog::record::Opening;
use agentca_identity::time::Timestamp;
use serde_json::Value;

use super::*;

fn stated(number: u16) -> Stated {
    Stated {
        action: "approve",
        upstream: Some("payments".into()),
        tool: format!("tool{number}"),
        definition: Some([7; 32]),
        by: "spiffe://example.org/person/alice".into(),
        reason: "r".repeat(900),
        at: Some(Timestamp::from_secs(1)),
        ends: None,
        statement: statement(number),
    }
}

fn statement(number: u16) -> Hash {
    let mut statement = [7; 32];
    statement[..2].copy_from_slice(&number.to_be_bytes());
    statement
}

struct Bench {
    log: Arc<Log>,
    config: Config,
    /// Outlive the log, which ends the process when it cannot write.
    _dirs: [tempfile::TempDir; 2],
}

impl Bench {
    fn new() -> Self {
        let (dir, log) = crate::testing::log(&Opening::default());
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path();
        let text = format!(
            "environment = \"prod\"\nlisten = \"127.0.0.1:0\"\nidentity_dir = \".\"\ndata_dir = \".\"\n\
             authority = \"https://127.0.0.1:1\"\n{}",
            crate::testing::ROUTES
        );
        std::fs::write(data.join("enforcer.toml"), text).unwrap();
        let config = Config::load(&data.join("enforcer.toml")).unwrap();
        Self {
            log,
            config,
            _dirs: [dir, temp],
        }
    }

    fn states(&mut self, numbers: impl IntoIterator<Item = u16>) {
        self.config.stated = numbers.into_iter().map(stated).collect();
    }

    fn open(&self) -> CatalogueLog {
        CatalogueLog::open(&self.config, &self.log)
    }

    /// What was recorded since there were `from` records: actions and statements.
    fn since(&self, from: u64) -> Vec<(String, u16)> {
        let records = self.log.scan(from).map(|item| item.unwrap().1);
        let records = records.map(|record| serde_json::from_slice::<Value>(&record).unwrap());
        let mut changes = Vec::new();
        for record in records.filter(|record| record["kind"] == "catalogue-loaded") {
            for change in record["changes"].as_array().into_iter().flatten() {
                let digest = change["statement"].as_str().unwrap();
                let digest =
                    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, digest);
                let action = change["action"].as_str().unwrap().to_owned();
                let digest = digest.unwrap();
                changes.push((action, u16::from_be_bytes([digest[0], digest[1]])));
            }
        }
        changes
    }
}

fn approved(numbers: impl IntoIterator<Item = u16>) -> Vec<(String, u16)> {
    let one = |number| ("approve".to_owned(), number);
    numbers.into_iter().map(one).collect()
}

#[tokio::test]
async fn what_is_new_is_recorded_once() {
    let mut bench = Bench::new();
    bench.states([1, 2]);
    let mut catalogue = bench.open();
    catalogue.record(&bench.config).await.unwrap();
    assert_eq!(bench.since(0), approved([1, 2]));
    let size = bench.log.durable();
    catalogue.record(&bench.config).await.unwrap();
    assert_eq!(bench.log.durable(), size, "nothing changed");
    // One goes, one comes; then a restart, which has nothing new to say but that it loaded the same.
    bench.states([2, 3]);
    catalogue.record(&bench.config).await.unwrap();
    let expected = [approved([3]), vec![("withdraw".to_owned(), 1)]].concat();
    assert_eq!(bench.since(size), expected);
    let size = bench.log.durable();
    bench.open().record(&bench.config).await.unwrap();
    assert_eq!((bench.since(size), bench.log.durable()), (vec![], size + 1));
    // What was withdrawn and is back counts as new.
    bench.states([1, 2, 3]);
    let size = bench.log.durable();
    bench.open().record(&bench.config).await.unwrap();
    assert_eq!(bench.since(size), approved([1]));
}

#[tokio::test]
async fn files_are_named_with_their_digests() {
    let bench = Bench::new();
    bench.open().record(&bench.config).await.unwrap();
    let record = bench.log.record(bench.log.durable() - 1).unwrap().unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let files = record["files"].as_array().unwrap();
    let names: Vec<&Value> = files.iter().map(|file| &file["name"]).collect();
    assert_eq!(names, ["enforcer.toml"], "{record}");
    assert!(record["changes"].is_null(), "{record}");
}

#[tokio::test]
async fn without_its_hint_everything_is_recorded_again() {
    let mut bench = Bench::new();
    bench.states([1]);
    bench.open().record(&bench.config).await.unwrap();
    let hint = bench.config.data_dir.join(HINT);
    for text in ["", "0", "99999", "nonsense"] {
        std::fs::write(&hint, text).unwrap();
        let size = bench.log.durable();
        bench.open().record(&bench.config).await.unwrap();
        assert_eq!(bench.since(size), approved([1]), "{text}");
    }
}

#[tokio::test]
async fn many_changes_take_as_many_records_as_they_need() {
    let mut bench = Bench::new();
    for count in [256, 12_000] {
        bench.states(0..count);
        let (size, known) = (bench.log.durable(), bench.open().known.len());
        bench.open().record(&bench.config).await.unwrap();
        let new = u16::try_from(known).unwrap()..count;
        assert_eq!(bench.since(size), approved(new), "none is left out");
        let records = bench.log.durable() - size;
        let least = u64::from(count) / 50;
        assert!((least..least * 8).contains(&records), "{records}");
        let size = bench.log.durable();
        bench.open().record(&bench.config).await.unwrap();
        assert!(bench.since(size).is_empty());
    }
}

#[test]
fn as_many_files_as_there_may_be_are_all_named() {
    let mut bench = Bench::new();
    let long = "f".repeat(255);
    let named = |number: usize| (PathBuf::from(format!("/{number}{long}")), [9; 32]);
    bench.config.read = (0..FILES).map(named).collect();
    bench.states(0..300);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut catalogue = bench.open();
    runtime.block_on(catalogue.record(&bench.config)).unwrap();
    let record = bench.log.record(bench.log.durable() - 1).unwrap().unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["files"].as_array().unwrap().len(), FILES);
}
