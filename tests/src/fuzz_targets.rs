//! The readers that meet hostile bytes, one function each, for `tests/fuzz` and for the fixed
//! corpus that runs on stable (`tests/tests/fuzz_corpus.rs`).
//!
//! A target panics when a reader breaks its promise: it reads one form of everything, so whatever
//! it accepts is, byte for byte, what the writer would have written.

use std::path::Path;

use agentca_auditlog::checkpoint::Checkpoint;
use agentca_auditlog::frame;
use agentca_auditlog::note::Note;
use agentca_enforcer::config::Config;
use agentca_identity::certificate::Certificate;
use agentca_identity::profile::csr as requests;
use agentca_policy::NormalPath;

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

/// The enforcer's configuration.
pub fn enforcer_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(errors) = Config::parse(text, Path::new("")) {
        assert!(errors.iter().next().is_some(), "refused without a reason");
    }
}
