//! Record 0 and later announcements: whose signatures count for this log.
//!
//! `log-opened` has `signers`, the chains (leaf, then intermediate; DER) of the log's own signer and of
//! others who sign in its name, and, where there is a witness, its chain as `witness`.
//! `signer-announced` has `chain`: one more signer, vouched for by the log that carries it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Head, Record, ScanError, scan};

/// A chain of certificates: leaf, then intermediate; DER.
pub type Chain = Vec<Vec<u8>>;

/// What record 0 announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// The chains of the log's signer and of its response signer.
    pub signers: Vec<Chain>,
    /// The chain of the witness, if the log has one.
    pub witness: Option<Chain>,
}

/// The kind of record 0.
pub const LOG_OPENED: &str = "log-opened";
/// The kind of a later announcement.
pub const SIGNER_ANNOUNCED: &str = "signer-announced";

/// Writes record 0.
pub fn log_opened(head: &Head<'_>, out: &mut Vec<u8>, opening: &Opening) {
    let mut record = Record::begin(out, head, LOG_OPENED);
    record
        .at("signers")
        .base64_lists("signers", &opening.signers);
    if let Some(witness) = &opening.witness {
        record.at("witness").base64s("witness", witness);
    }
    record.finish();
}

/// Writes the announcement of one signer's chain.
pub fn signer_announced<T: AsRef<[u8]>>(head: &Head<'_>, out: &mut Vec<u8>, chain: &[T]) {
    let mut record = Record::begin(out, head, SIGNER_ANNOUNCED);
    record.at("chain").base64s("chain", chain);
    record.finish();
}

/// Reads record 0.
///
/// # Errors
/// [`ScanError`] for anything that [`log_opened`] does not write.
pub fn read_opened(record: &[u8]) -> Result<Opening, ScanError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Members<'a> {
        #[serde(borrow)]
        signers: Vec<Vec<&'a str>>,
        #[serde(borrow)]
        witness: Option<Vec<&'a str>>,
        #[serde(rename = "kind")]
        _kind: &'a str,
        #[serde(rename = "log")]
        _log: &'a str,
        #[serde(rename = "seq")]
        _seq: u64,
        #[serde(rename = "time")]
        _time: &'a str,
        #[serde(rename = "v")]
        _v: u64,
    }
    let envelope = scan(record)?;
    if envelope.kind != LOG_OPENED {
        return Err(ScanError::Head("kind"));
    }
    let members: Members<'_> =
        serde_json::from_slice(record).map_err(|_| ScanError::Head("signers"))?;
    let signers = members
        .signers
        .iter()
        .map(|chain| decode(chain))
        .collect::<Result<_, _>>()?;
    let witness = members.witness.map(|chain| decode(&chain)).transpose()?;
    Ok(Opening { signers, witness })
}

/// Reads an announcement.
///
/// # Errors
/// [`ScanError`] for anything that [`signer_announced`] does not write.
pub fn read_announced(record: &[u8]) -> Result<Chain, ScanError> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        chain: Vec<&'a str>,
    }
    if scan(record)?.kind != SIGNER_ANNOUNCED {
        return Err(ScanError::Head("kind"));
    }
    let members: Members<'_> =
        serde_json::from_slice(record).map_err(|_| ScanError::Head("chain"))?;
    decode(&members.chain)
}

fn decode(chain: &[&str]) -> Result<Chain, ScanError> {
    chain
        .iter()
        .map(|text| STANDARD.decode(text).map_err(|_| ScanError::Head("chain")))
        .collect()
}
