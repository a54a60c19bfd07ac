use std::os::unix::fs::PermissionsExt;

use agentca_auditlog::disclosure::{ArgumentSalts, Discloser};
use agentca_identity::time::Timestamp;

use super::*;
use crate::config::DisclosedValues;

fn config(dir: &tempfile::TempDir) -> Config {
    let text = format!(
        "environment = \"prod\"\nlisten = \"127.0.0.1:0\"\nidentity_dir = \".\"\ndata_dir = \".\"\n\
         authority = \"https://127.0.0.1:1\"\n{}",
        crate::testing::ROUTES
    );
    let mut config = Config::parse(&text, dir.path()).unwrap();
    config.disclosures = DisclosureOptions {
        values: DisclosedValues::Keep,
        max_age: Duration::from_secs(2 * 24 * 3_600),
    };
    config
}

fn disclosures(keys: &[&str]) -> Vec<String> {
    let salts = ArgumentSalts::of(&[1; 16]);
    let mut discloser = Discloser::default();
    keys.iter()
        .map(|key| {
            discloser
                .argument(&salts.argument(key), key, "1")
                .to_owned()
        })
        .collect()
}

fn counted(counts: &DisclosureCounts) -> (u64, u64) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    (read(&counts.kept), read(&counts.dropped))
}

#[test]
fn what_is_kept_is_found_and_erased() {
    let temp = tempfile::tempdir().unwrap();
    let (config, counts) = (config(&temp), Arc::<DisclosureCounts>::default());
    let (now, place) = (Timestamp::now(), dir(&config));
    for _start in 0..2 {
        let writer = Disclosures::start(&config, Arc::clone(&counts)).unwrap();
        writer.keep(7, disclosures(&["a", "b"]));
        writer.keep(70, disclosures(&["a"]));
        writer.close();
    }
    assert_eq!(counted(&counts), (6, 0));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    let file = std::fs::read_dir(&place).unwrap().next().unwrap().unwrap();
    assert_eq!(mode(&place) & 0o777, 0o700);
    assert_eq!(mode(&file.path()) & 0o777, 0o600);
    let found = |index| find(&place, index, now).unwrap();
    assert_eq!(found(7).len(), 4);
    assert_eq!(
        found(70),
        [disclosures(&["a"]), disclosures(&["a"])].concat()
    );
    assert!(found(0).is_empty());
    // One argument, then all; the file is appended to meanwhile.
    let size = file.metadata().unwrap().len();
    assert_eq!(erase(&place, 7, Some("a")).unwrap(), 2);
    assert_eq!(
        found(7),
        [disclosures(&["b"]), disclosures(&["b"])].concat()
    );
    assert_eq!(erase(&place, 7, None).unwrap(), 2);
    assert_eq!(erase(&place, 7, None).unwrap(), 0);
    assert!(found(7).is_empty());
    assert_eq!(found(70).len(), 2, "others stay");
    assert_eq!(file.metadata().unwrap().len(), size);
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert!(!text.contains(&disclosures(&["b"])[0]), "{text}");
}

#[test]
fn a_line_that_was_cut_off_spoils_no_other() {
    let temp = tempfile::tempdir().unwrap();
    let (config, counts) = (config(&temp), Arc::<DisclosureCounts>::default());
    let place = dir(&config);
    let keep = |index| {
        let writer = Disclosures::start(&config, Arc::clone(&counts)).unwrap();
        writer.keep(index, disclosures(&["a"]));
        writer.close();
    };
    keep(1);
    let file = std::fs::read_dir(&place).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    std::fs::write(file.path(), &text[..text.len() - 4]).unwrap();
    keep(2);
    assert!(find(&place, 1, Timestamp::now()).unwrap().is_empty());
    assert_eq!(find(&place, 2, Timestamp::now()).unwrap().len(), 1);
}

#[test]
fn old_files_are_deleted_and_foreign_ones_stay() {
    let temp = tempfile::tempdir().unwrap();
    let (config, counts) = (config(&temp), Arc::<DisclosureCounts>::default());
    let place = dir(&config);
    std::fs::create_dir(&place).unwrap();
    let day = |days: u64| {
        let at = Timestamp::now() - Duration::from_secs(days * 24 * 3_600);
        format!("{}.jsonl", &at.rfc3339()[..10])
    };
    let (fresh, old) = (day(1), day(4));
    for name in [&*fresh, &*old, "notes.txt", "2020-01-01.txt"] {
        std::fs::write(place.join(name), "").unwrap();
    }
    Disclosures::start(&config, counts).unwrap().close();
    let mut left: Vec<String> = std::fs::read_dir(&place)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["2020-01-01.txt", &*fresh, "notes.txt"]);
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let temp = tempfile::tempdir().unwrap();
    let (config, counts) = (config(&temp), Arc::<DisclosureCounts>::default());
    // A file where the folder should be: the disk takes nothing.
    std::fs::write(dir(&config), "").unwrap();
    let writer = Disclosures::start(&config, Arc::clone(&counts)).unwrap();
    writer.keep(1, disclosures(&["a", "b"]));
    writer.keep(2, vec!["x".repeat(MOST_WAITING + 1)]);
    writer.close();
    writer.keep(3, disclosures(&["a"]));
    assert_eq!(counted(&counts), (0, 4));
}
