//! What `agentca log verify` says about a log that verified.

use agentca_auditlog::verify::{Cosigned, Report, Revocation, Signer, Tail};
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
    /// Absent in the authority's log.
    revocation: Option<RevocationSeen>,
    witness: Option<String>,
    cosigned: Option<CosignedSeen>,
    cosignatures: u64,
    cosignatures_uncounted: u64,
    /// Records after the last co-signed head.
    uncosigned: u64,
    tail: TailSeen,
}

#[derive(Debug, Serialize)]
struct SignerSeen {
    announced: u64,
    not_before: String,
    not_after: String,
}

/// `{"mode": "feed"}`, or `crl` with the number of records of accepted lists.
#[derive(Debug, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
enum RevocationSeen {
    Feed,
    Crl { accepted: u64 },
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
            revocation,
            witness,
            cosigned,
            cosignatures,
            cosignatures_uncounted,
            uncosigned,
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
            revocation: revocation.map(RevocationSeen::of),
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
            cosignatures_uncounted: *cosignatures_uncounted,
            uncosigned: *uncosigned,
            tail: TailSeen {
                records: *records,
                torn_bytes: *torn_bytes,
            },
        }
    }

    /// Names and values, in the order in which people ask.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        let size = count(self.size, "record");
        let mut pairs = vec![
            ("verified", self.origin.clone()),
            ("size", format!("{size}, the newest at {}", self.time)),
            ("root hash", self.root.clone()),
            ("signed by", self.signed()),
        ];
        if let Some(RevocationSeen::Crl { accepted }) = self.revocation {
            pairs.push(("crl mode", crl_mode(accepted)));
        }
        pairs.push(("co-signed by", self.cosigned()));
        if let Some(CosignedSeen { time, .. }) = &self.cosigned {
            let after = count(self.uncosigned, "record");
            let after = format!("{after} after the last co-signed head, at {time}");
            pairs.push(("since then", after));
        }
        if self.cosignatures_uncounted > 0 {
            let uncounted = count(self.cosignatures_uncounted, "cosignature");
            let why = "made outside the time of the witness's certificate";
            pairs.push(("not counting", format!("{uncounted}, {why}")));
        }
        if self.counted < self.size {
            let counted = count(self.counted, "record");
            pairs.push((
                "counting",
                format!("{counted}: the signer's certificate has expired"),
            ));
        }
        self.tail.pairs(&mut pairs);
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
            (None, Some(witness)) => {
                format!("nobody so far: its witness, {witness}, vouches for no record of it")
            }
            (None, None) => {
                "nobody: it has no witness, its own key alone vouches for it".to_owned()
            }
        }
    }
}

impl RevocationSeen {
    fn of(revocation: Revocation) -> Self {
        match revocation {
            Revocation::Feed => Self::Feed,
            Revocation::Crl { accepted } => Self::Crl { accepted },
        }
    }
}

impl TailSeen {
    fn pairs(&self, pairs: &mut Vec<(&'static str, String)>) {
        let Self {
            records,
            torn_bytes,
        } = self;
        if *records > 0 {
            let records = count(*records, "record");
            pairs.push((
                "beyond",
                format!("{records}, whole, under no signature yet"),
            ));
        }
        if *torn_bytes > 0 {
            pairs.push((
                "torn",
                format!("{torn_bytes} bytes of a batch that is not whole"),
            ));
        }
    }
}

fn crl_mode(accepted: u64) -> String {
    let lists = match accepted {
        0 => "no list was accepted yet".to_owned(),
        1 => "1 record of an accepted list".to_owned(),
        _ => format!("{accepted} records of accepted lists"),
    };
    format!("revocation from CRLs alone, with no authority and no witness; {lists}")
}

#[cfg(test)]
mod tests {
    use agentca_identity::time::Timestamp;

    use super::*;

    fn report(revocation: Revocation) -> Report {
        let time = Timestamp::from_secs(1_763_707_760);
        Report {
            origin: "example.org/prod/enforcer/edge-1".into(),
            size: 40,
            root: [1; 32],
            time,
            counted: 40,
            signer: Signer {
                announced: 0,
                not_before: time,
                not_after: time,
            },
            vkey: "v".into(),
            revocation: Some(revocation),
            witness: None,
            cosigned: None,
            cosignatures: 0,
            cosignatures_uncounted: 0,
            uncosigned: 40,
            tail: Tail::default(),
        }
    }

    fn said(report: &Report) -> (String, serde_json::Value) {
        let verified = Verified::of(report);
        let mut text = Vec::new();
        crate::output::write_pairs(&mut text, &verified.pairs()).unwrap();
        let json = serde_json::to_value(&verified).unwrap();
        (String::from_utf8(text).unwrap(), json)
    }

    #[test]
    fn crl_mode_is_said() {
        let (text, json) = said(&report(Revocation::Crl { accepted: 2 }));
        let expected = "crl mode      revocation from CRLs alone, with no authority and no \
            witness; 2 records of accepted lists\n";
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains("co-signed by  nobody: it has no witness"),
            "{text}"
        );
        let expected = serde_json::json!({"mode": "crl", "accepted": 2});
        assert_eq!(json["revocation"], expected);
        let (text, json) = said(&report(Revocation::Feed));
        assert!(!text.contains("crl"), "{text}");
        assert_eq!(json["revocation"], serde_json::json!({"mode": "feed"}));
    }

    #[test]
    fn what_came_after_the_last_cosigned_head_is_said() {
        let time = Timestamp::from_secs(1_763_707_760);
        let witness = "example.org/ca/witness";
        let cosigned = Report {
            witness: Some(witness.into()),
            cosigned: Some(Cosigned {
                witness: witness.into(),
                size: 28,
                time,
            }),
            cosignatures: 5,
            cosignatures_uncounted: 1,
            uncosigned: 12,
            ..report(Revocation::Feed)
        };
        let (text, json) = said(&cosigned);
        let expected = format!(
            "since then    12 records after the last co-signed head, at {}\n",
            time.rfc3339()
        );
        assert!(text.contains(&expected), "{text}");
        assert!(text.contains("not counting  1 cosignature, "), "{text}");
        assert_eq!(json["uncosigned"], 12);
        assert_eq!(json["cosignatures_uncounted"], 1);
        let nobody = Report {
            witness: Some(witness.into()),
            ..report(Revocation::Feed)
        };
        let (text, json) = said(&nobody);
        assert!(text.contains("nobody so far: its witness, "), "{text}");
        assert!(!text.contains("since then"), "{text}");
        assert_eq!(json["uncosigned"], 40);
    }
}
