//! What `agentca log verify` says about a log that verified.

use agentca_auditlog::verify::{Cosigned, Report, Signer, Tail};
use serde::Serialize;

use crate::inspect::hex;
use crate::output::count;

/// A log that verified, for people and machines.
#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    origin: String,
    size: u64,
    /// How many of them count: fewer when the signer's certificate has expired.
    counted: u64,
    /// Hexadecimal.
    root: String,
    /// Of the newest record that the checkpoint covers.
    time: String,
    vkey: String,
    signer: SignerSeen,
    witness: Option<String>,
    cosigned: Option<CosignedSeen>,
    cosignatures: u64,
    tail: TailSeen,
}

#[derive(Debug, Serialize)]
struct SignerSeen {
    announced: u64,
    not_before: String,
    not_after: String,
}

#[derive(Debug, Serialize)]
struct CosignedSeen {
    witness: String,
    size: u64,
    time: String,
}

#[derive(Debug, Serialize)]
struct TailSeen {
    records: u64,
    torn_bytes: u64,
}

impl Verified {
    pub(crate) fn of(report: &Report) -> Self {
        let Report {
            origin,
            size,
            root,
            time,
            counted,
            signer,
            vkey,
            witness,
            cosigned,
            cosignatures,
            tail,
        } = report;
        let Signer {
            announced,
            not_before,
            not_after,
        } = signer;
        let Tail {
            records,
            torn_bytes,
        } = tail;
        Self {
            origin: origin.clone(),
            size: *size,
            counted: *counted,
            root: hex(root),
            time: time.rfc3339(),
            vkey: vkey.clone(),
            signer: SignerSeen {
                announced: *announced,
                not_before: not_before.rfc3339(),
                not_after: not_after.rfc3339(),
            },
            witness: witness.clone(),
            cosigned: cosigned.as_ref().map(
                |Cosigned {
                     witness,
                     size,
                     time,
                 }| CosignedSeen {
                    witness: witness.clone(),
                    size: *size,
                    time: time.rfc3339(),
                },
            ),
            cosignatures: *cosignatures,
            tail: TailSeen {
                records: *records,
                torn_bytes: *torn_bytes,
            },
        }
    }

    /// Names and values, in the order in which people ask.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            ("verified", self.origin.clone()),
            (
                "size",
                format!(
                    "{}, the newest at {}",
                    count(self.size, "record"),
                    self.time
                ),
            ),
            ("root hash", self.root.clone()),
            ("signed by", self.signed()),
            ("co-signed by", self.cosigned()),
        ];
        if self.counted < self.size {
            let counted = count(self.counted, "record");
            pairs.push((
                "counting",
                format!("{counted}: the signer's certificate has expired"),
            ));
        }
        let TailSeen {
            records,
            torn_bytes,
        } = self.tail;
        if records > 0 {
            let records = count(records, "record");
            pairs.push((
                "beyond",
                format!("{records}, whole, under no signature yet"),
            ));
        }
        if torn_bytes > 0 {
            pairs.push((
                "torn",
                format!("{torn_bytes} bytes of a batch that is not whole"),
            ));
        }
        pairs
    }

    fn signed(&self) -> String {
        let SignerSeen {
            announced,
            not_before: _,
            not_after,
        } = &self.signer;
        format!(
            "{} (announced by record {announced}, certified until {not_after})",
            self.vkey
        )
    }

    fn cosigned(&self) -> String {
        match (&self.cosigned, &self.witness) {
            (
                Some(CosignedSeen {
                    witness,
                    size,
                    time,
                }),
                _,
            ) => {
                let all = count(self.cosignatures, "cosignature");
                format!("{witness} at size {size}, {time}; {all}")
            }
            (None, Some(witness)) if *witness == format!("{}/witness", self.origin) => {
                format!("nobody; {witness} is who co-signs the logs of enforcers")
            }
            (None, Some(witness)) => format!("nobody so far; its witness is {witness}"),
            (None, None) => "nobody: it has no witness".to_owned(),
        }
    }
}
