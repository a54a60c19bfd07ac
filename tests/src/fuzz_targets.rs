//! The readers that meet hostile bytes, one function each, for `tests/fuzz` and for the fixed
//! corpus that runs on stable (`tests/tests/fuzz_corpus.rs`).
//!
//! A target panics when a reader breaks its promise: it reads one form of everything, so whatever
//! it accepts is, byte for byte, what the writer would have written.

mod servers;

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use agentca_auditlog::checkpoint::Checkpoint;
use agentca_auditlog::frame;
use agentca_auditlog::heartbeat::Heartbeat;
use agentca_auditlog::note::{Note, NoteSigner, SignatureType};
use agentca_auditlog::proof::Proof;
use agentca_auditlog::receipt::AgentAudit;
use agentca_auditlog::record::{Head, scan};
use agentca_auditlog::sse::{Event, EventError, EventReader};
use agentca_auditlog::status::{Snapshot, StatusRecord};
use agentca_enforcer::config::Config;
use agentca_identity::certificate::Certificate;
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::profile::crl::Crl;
use agentca_identity::profile::{Issuer, Pen, Template, Validity, create_root, csr as requests};
use agentca_identity::time::Timestamp;
use agentca_policy::json::{self, JsonError, JsonLimits, check};
use agentca_policy::{Admitted, DefinitionScanner, NormalPath, PinsFile, ToolDefinition};
use serde_json::Value;

pub use self::servers::{lines, lines_are_taken, pages, pages_are_read, reply, reply_is_passed_on};

/// A target.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus and of its entry for cargo-fuzz.
pub const TARGETS: [(&str, Target); 20] = [
    ("batch", batch),
    ("catalogue", catalogue),
    ("certificate", certificate),
    ("checkpoint", checkpoint),
    ("crl", crl),
    ("csr", csr),
    ("enforcer_config", enforcer_config),
    ("heartbeat", heartbeat),
    ("json", json),
    ("lines", lines),
    ("pages", pages),
    ("path", path),
    ("proof", proof),
    ("receipt", receipt),
    ("record", record),
    ("reply", reply),
    ("rpc", rpc),
    ("snapshot", snapshot),
    ("sse", sse),
    ("status", status),
];

/// The strict certificate reader.
pub fn certificate(data: &[u8]) {
    if let Ok(certificate) = Certificate::parse(data) {
        assert_eq!(
            certificate.der(),
            data,
            "another reading of the same certificate"
        );
    }
}

/// The reader of certificate requests: at most a public key comes out.
pub fn csr(data: &[u8]) {
    if let Ok(key) = requests::read(data) {
        let again = agentca_identity::crypto::PublicKey::from_spki_der(key.spki_der());
        assert!(
            again.is_ok_and(|again| again == key),
            "a key that does not read back"
        );
    }
}

/// The reader of batch frames.
pub fn batch(data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Ok((header, end)) = frame::read(&mut bytes) {
        assert_eq!(bytes, data, "reading changed the frame");
        assert!(
            data.starts_with(&header.encode()),
            "another reading of the same header"
        );
        let payload = data.get(frame::HEADER_LEN..end).unwrap_or_default();
        let count = u64::try_from(frame::records(payload).count()).unwrap_or(u64::MAX);
        assert_eq!(
            header.first + count,
            header.end(),
            "records that the header does not count"
        );
    }
}

/// The readers of signed notes and of the checkpoints in them.
pub fn checkpoint(data: &[u8]) {
    let Ok(note) = Note::parse(data) else { return };
    let written: String = note.signatures.iter().map(ToString::to_string).collect();
    let whole = format!("{}\n{written}", note.text);
    assert_eq!(whole.as_bytes(), data, "another reading of the same note");
    if let Ok(checkpoint) = Checkpoint::parse_text(note.text) {
        assert_eq!(
            checkpoint.to_string(),
            note.text,
            "another reading of the same checkpoint"
        );
    }
}

/// Who signs the heartbeats that [`heartbeat`] believes.
pub static AUTHORITY: LazyLock<NoteSigner> = LazyLock::new(|| {
    let key = PrivateKey::generate(KeyKind::Ed25519).expect("a key");
    NoteSigner::new("example.org/ca", SignatureType::Ed25519, key).expect("a signer")
});

/// The reader of heartbeats.
pub fn heartbeat(data: &[u8]) {
    if let Ok(heartbeat) = Heartbeat::open(data, AUTHORITY.verifier()) {
        let written = heartbeat.sign(&AUTHORITY);
        assert!(
            written.is_ok_and(|written| written.as_bytes() == data),
            "another reading of the same heartbeat"
        );
    }
}

/// The one pass over a record that tells whether it is canonical, against a reader that builds a tree.
pub fn record(data: &[u8]) {
    let Ok(envelope) = scan(data) else { return };
    let tree: Value = serde_json::from_slice(data).expect("what was scanned is JSON");
    assert_eq!(tree["kind"], envelope.kind);
    assert_eq!(tree["log"], envelope.log);
    assert_eq!(tree["time"], envelope.time_text);
    assert_eq!(tree.get("status").is_some(), envelope.has_status);
    let seq = match &tree["seq"] {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    };
    assert_eq!(seq, Some(envelope.seq));
    // Beyond ASCII our order of members is that of UTF-16, serde's that of UTF-8.
    if data.is_ascii() {
        let written = serde_json::to_vec(&tree).expect("a tree can be written");
        assert_eq!(written, data, "a record with two forms");
    }
}

/// The reader of status records.
pub fn status(data: &[u8]) {
    let Ok(record) = StatusRecord::parse(data) else {
        return;
    };
    let envelope = scan(data).expect("a status record is a record");
    let time = envelope.time().expect("a record has a time");
    let mut written = Vec::new();
    record.encode(&Head::new(envelope.seq, time, envelope.log), &mut written);
    assert_eq!(written, data, "another reading of the same status record");
}

/// The reader of snapshots.
pub fn snapshot(data: &[u8]) {
    if let Ok(snapshot) = Snapshot::read(data) {
        let mut written = Vec::new();
        assert!(snapshot.write(&mut written).is_ok(), "read, yet unwritable");
        assert_eq!(written, data, "another reading of the same snapshot");
    }
}

/// The reader of proof files.
pub fn proof(data: &[u8]) {
    if let Ok(proof) = Proof::parse(data) {
        let written = proof.write();
        assert_eq!(
            written.as_bytes(),
            data,
            "another reading of the same proof"
        );
    }
}

/// The reader of receipts.
pub fn receipt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(audit) = AgentAudit::parse(text) {
        assert_eq!(
            audit.to_string(),
            text,
            "another reading of the same receipt"
        );
    }
}

/// Who signs the lists that [`crl`] believes.
pub static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let keys = [(); 2].map(|()| PrivateKey::generate(KeyKind::P256).expect("a key"));
    let [root, key] = keys;
    let domain = || "example.org".parse().expect("a trust domain");
    let now = Timestamp::now();
    let root = create_root(domain(), Pen::default(), &root, now).expect("a root");
    let validity = Validity::starting(now, Duration::from_secs(3600));
    let template = Template::issuing_ca(domain(), key.public_key(), validity);
    let prepared = root.prepare(template).expect("a certificate");
    let certificate = prepared.sign().expect("a signature");
    Issuer::new(certificate, key, Pen::default()).expect("an issuer")
});

/// The reader of CRLs; it reads entries only under a good signature.
pub fn crl(data: &[u8]) {
    if let Ok(crl) = Crl::parse_verified(data, ISSUER.certificate()) {
        let listed = crl.iter().all(|entry| crl.revoked(&entry.serial).is_some());
        assert!(listed, "a revoked serial that is not found");
    }
}

/// The path normaliser.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(path) = NormalPath::parse(text) else {
        return;
    };
    let again = NormalPath::parse(path.as_str());
    assert!(
        again.as_ref() == Ok(&path),
        "the normal form has another normal form"
    );
    for segment in path.segments() {
        let dots = matches!(segment, "" | "." | "..");
        assert!(
            !dots && !segment.contains(['/', '\\', ';']),
            "a segment with two readings"
        );
    }
}

/// The strict check of JSON, against a reader that builds a tree. A name that it let pass twice would be one
/// value more for it than there are in the tree.
pub fn json(data: &[u8]) {
    const LIMITS: JsonLimits = JsonLimits {
        depth: 64,
        values: 10_000,
    };
    let Ok(text) = check(data, LIMITS) else {
        return;
    };
    assert_eq!(text.as_bytes(), data, "another text than was checked");
    let tree: Value = serde_json::from_slice(data).expect("what was checked is JSON");
    let (depth, values) = measure(&tree);
    let exact = JsonLimits { depth, values };
    assert_eq!(check(data, exact), Ok(text), "more than is in the tree");
    let fewer = JsonLimits {
        values: values - 1,
        ..exact
    };
    assert_eq!(check(data, fewer), Err(JsonError::TooMany(values - 1)));
    if let Some(shallower) = depth.checked_sub(1) {
        let shallower = JsonLimits {
            depth: shallower,
            ..exact
        };
        let refused = check(data, shallower);
        assert_eq!(refused, Err(JsonError::TooDeep(shallower.depth)));
    }
}

/// How deep a tree is, and how many values it has.
fn measure(tree: &Value) -> (usize, usize) {
    let sum = |(depth, values): (usize, usize), inner: &Value| {
        let (inner_depth, inner_values) = measure(inner);
        (depth.max(inner_depth), values + inner_values)
    };
    let (depth, values) = match tree {
        Value::Array(items) => items.iter().fold((0, 0), sum),
        Value::Object(members) => members.values().fold((0, 0), sum),
        _ => return (0, 1),
    };
    (depth + 1, values + 1)
}

/// What the strict reader takes has one reading for any other, and says the same in it.
pub fn rpc(data: &[u8]) {
    let Some(method) = agentca_enforcer::message_method(data) else {
        return;
    };
    let tree: Value = serde_json::from_slice(data).expect("what was read is JSON");
    let members = tree.as_object().expect("what was read is an object");
    let known = ["jsonrpc", "id", "method", "params", "result", "error"];
    assert!(members.keys().all(|name| known.contains(&name.as_str())));
    match members.get("method") {
        Some(told) => assert_eq!(told.as_str(), Some(&*method)),
        None => assert_eq!(method, "response"),
    }
    if let Some(params) = members.get("params") {
        let params = params.as_object().expect("parameters are an object");
        assert!(params.get("arguments").is_none_or(Value::is_object));
        assert!(params.get("name").is_none_or(Value::is_string));
    }
}

/// The reader of server-sent events: the same whatever pieces they come in, and again from their canonical form.
pub fn sse(data: &[u8]) {
    let (events, end) = events_of(data.chunks(data.len().max(1)), LONGEST_EVENT);
    let bytewise = events_of(data.chunks(1), LONGEST_EVENT);
    assert_eq!((&events, &end), (&bytewise.0, &bytewise.1), "pieces matter");
    let mut written = String::new();
    for event in &events {
        event.write(&mut written);
    }
    let again = events_of([written.as_bytes()].into_iter(), usize::MAX / 2);
    assert_eq!(
        again,
        (events, Ok(())),
        "another reading of the same events"
    );
}

fn events_of<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    longest: usize,
) -> (Vec<Event>, Result<(), EventError>) {
    let mut reader = EventReader::new(longest);
    let mut events = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Err(error)),
            }
        }
    }
    let end = reader.finish();
    (events, end)
}

/// Small, so that the corpus reaches it.
pub const LONGEST_EVENT: usize = 400;

/// The enforcer's configuration.
pub fn enforcer_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(errors) = Config::parse(text, Path::new("")) {
        assert!(errors.iter().next().is_some(), "refused without a reason");
    }
}

/// What stands before the tables of a catalogue that [`catalogue`] reads.
pub const BEFORE_CATALOGUE: &str = "environment = \"prod\"\nlisten = \"127.0.0.1:1\"\n\
    authority = \"https://127.0.0.1:2\"\nidentity_dir = \"a\"\ndata_dir = \"b\"\n\
    [[upstream]]\nname = \"tools\"\nkind = \"mcp\"\nurl = \"http://127.0.0.1:3/mcp\"\n";

/// The catalogue's readers: its tables, its pins, and a tool as a server lists it, by itself and in a list.
pub fn catalogue(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(tool) = ToolDefinition::parse(text) {
        let again = ToolDefinition::parse(tool.canonical());
        assert!(
            again.is_ok_and(|again| again == tool),
            "the canonical form has another one"
        );
    }
    for at in 0..text.len().min(8) {
        let Some(scanned) = DefinitionScanner::new(text).read(at) else {
            continue;
        };
        let read = ToolDefinition::parse(scanned.raw).expect("what was scanned is a definition");
        assert_eq!((read.name(), read.digest()), (scanned.name, scanned.digest));
        let exact = JsonLimits {
            depth: scanned.depth,
            values: scanned.values,
        };
        assert_eq!(json::measure(scanned.raw, exact), Ok(exact));
    }
    if let Ok(pins) = PinsFile::parse(text) {
        let written = pins.to_json().expect("pins can be written");
        let again = PinsFile::parse(&written).expect("what was written can be read");
        assert_eq!(again.to_json().ok(), Some(written), "pins with two forms");
        let added = Admitted::default().add_unsigned(&pins);
        assert!(added.is_ok(), "a file that is at odds with itself");
    }
    let whole = format!("{BEFORE_CATALOGUE}{text}");
    if let Ok(config) = Config::parse(&whole, Path::new("")) {
        let servers = config.mcp_catalogue.servers();
        for tool in servers.flat_map(|server| server.tools().to_vec()) {
            let standing = tool.standing(Some(&[0; 32]), Timestamp::MIN);
            assert!(standing.is_err(), "a tool that nobody pinned");
        }
    }
}
