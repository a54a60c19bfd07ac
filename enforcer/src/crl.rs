//! CRL mode: revocation from certificate revocation lists alone (RFC 5280 §5), for where no feed can
//! reach. Weaker than the feed: nobody says what was issued, and news are as old as the list.
//!
//! A list counts when its signature and issuer are right, when it is fresh, and when its number did
//! not go back: each accepted number is a record of this enforcer's log, its floor after a restart.

mod fetch;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentca_auditlog::decision::CrlAccepted;
use agentca_auditlog::log::Log;
use agentca_identity::certificate::Certificate;
use agentca_identity::profile::crl::{Crl, CrlError};
use agentca_identity::time::Timestamp;

use self::fetch::FetchError;
use crate::config::CrlSource;
use crate::journal::{self, Floors, JournalError};
use crate::setting::Settings;
use crate::status::{CrlSet, MAX_SKEW, Readiness, Registry};

/// The task's means.
#[derive(Debug)]
pub(crate) struct CrlFollower {
    pub(crate) sources: Vec<CrlSource>,
    pub(crate) refresh: Duration,
    pub(crate) settings: Arc<Settings>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) log: Arc<Log>,
    /// What the log says of the highest number of each shard.
    pub(crate) floors: Floors,
    /// When this process recorded a shard's number last.
    pub(crate) recorded: HashMap<String, Instant>,
}

impl CrlFollower {
    /// Fetches for ever.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut held: Vec<Option<Arc<Crl>>> = vec![None; self.sources.len()];
        let mut in_force = 0;
        loop {
            let changed = self.round(&mut held).await;
            let standing = self.standing(&held);
            if let Some(standing) = standing
                && (changed || standing.len() != in_force)
            {
                if standing.len() < in_force {
                    tracing::warn!(
                        "the CA of a CRL has ended, and every certificate of it: remove it from `crl`"
                    );
                }
                in_force = standing.len();
                self.registry.replace_crls(CrlSet::new(standing));
                self.registry.set_readiness(Readiness::Ready);
            }
            tokio::time::sleep(self.pause(&held)).await;
        }
    }

    /// The lists that are needed, once all are there: nothing that a CA signed counts after its end, and
    /// so its list need not be fresh any more.
    fn standing(&self, held: &[Option<Arc<Crl>>]) -> Option<Vec<Arc<Crl>>> {
        let all: Vec<Arc<Crl>> = held.iter().cloned().collect::<Option<_>>()?;
        Some(all.into_iter().filter(|crl| self.stands(crl)).collect())
    }

    /// Whether the CA that signed the list has not ended.
    fn stands(&self, crl: &Crl) -> bool {
        let now = Timestamp::now();
        self.settings.credentials().issuers.iter().any(|issuer| {
            issuer.not_after() >= now && issuer.public_key().short_id() == crl.authority_key_id()
        })
    }

    /// Asks every source once; says whether anything new was accepted.
    async fn round(&mut self, held: &mut [Option<Arc<Crl>>]) -> bool {
        let mut changed = false;
        let sources = self.sources.clone();
        for (source, slot) in sources.iter().zip(held) {
            if slot.as_ref().is_some_and(|crl| !self.stands(crl)) {
                continue;
            }
            match self.accept(source, slot.as_deref()).await {
                Ok(None) => {}
                Ok(Some(crl)) => {
                    tracing::info!(%source, number = crl.number(), "CRL accepted");
                    *slot = Some(Arc::new(crl));
                    changed = true;
                }
                Err(error) => tracing::error!(%source, %error, "CRL not accepted"),
            }
        }
        changed
    }

    /// Fetches and judges one list; none when it is the one that is held.
    async fn accept(
        &mut self,
        source: &CrlSource,
        held: Option<&Crl>,
    ) -> Result<Option<Crl>, CrlFault> {
        let der = fetch::fetch(source).await?;
        let credentials = self.settings.credentials();
        let now = Timestamp::now();
        let issuers = credentials.issuers.iter();
        let issuers: Vec<_> = issuers
            .filter(|it| it.not_after() >= now)
            .cloned()
            .collect();
        let parsing = tokio::task::spawn_blocking(move || parse(&der, &issuers));
        let crl = parsing
            .await
            .map_err(|error| CrlFault::Unreadable(error.to_string()))?
            .map_err(|error| CrlFault::Unreadable(error.to_string()))?;
        let uri = crl.shard_uri().to_string();
        let floor = self.floors.crl(&self.log, &uri).await?;
        judge(&crl, floor, Timestamp::now())?;
        let same = held.is_some_and(|held| {
            held.number() == crl.number() && held.shard_uri() == crl.shard_uri()
        });
        // Repeated from time to time, so that a restart finds it among the newest records.
        let repeated = self
            .recorded
            .get(&uri)
            .is_none_or(|at| at.elapsed() > REPEAT);
        if same && !repeated {
            return Ok(None);
        }
        let accepted = CrlAccepted {
            uri: &uri,
            number: crl.number(),
        };
        journal::record(&self.log, |head, out| accepted.write(head, out)).await?;
        self.recorded.insert(uri.clone(), Instant::now());
        self.floors.accepted(uri, crl.number());
        Ok((!same).then_some(crl))
    }

    /// Until the schedule, or some time before the first list ends.
    fn pause(&self, held: &[Option<Arc<Crl>>]) -> Duration {
        let now = Timestamp::now();
        let standing = held.iter().flatten().filter(|crl| self.stands(crl));
        let first_end = standing.map(|crl| crl.next_update()).min();
        let left = first_end.map(|end| end.saturating_since(now) / 2);
        let missing = held.iter().any(Option::is_none).then_some(RETRY);
        [left, missing]
            .into_iter()
            .flatten()
            .fold(self.refresh, Duration::min)
            .max(LEAST_PAUSE)
    }
}

fn judge(crl: &Crl, floor: Option<u64>, now: Timestamp) -> Result<(), CrlFault> {
    let (number, next_update, this_update) = (crl.number(), crl.next_update(), crl.this_update());
    if next_update <= now {
        return Err(CrlFault::Expired { next_update });
    }
    if this_update > now + MAX_SKEW {
        return Err(CrlFault::Future { this_update });
    }
    match floor {
        Some(floor) if number < floor => Err(CrlFault::WentBack { number, floor }),
        _ => Ok(()),
    }
}

/// Reads a list of one of these CAs.
fn parse(der: &[u8], issuers: &[Certificate]) -> Result<Crl, CrlError> {
    let judged = issuers
        .iter()
        .map(|issuer| Crl::parse_verified(der, issuer))
        .find(|judged| !matches!(judged, Err(CrlError::Issuer)));
    judged.unwrap_or(Err(CrlError::Issuer))
}

/// Why a list was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrlFault {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    Unreadable(String),
    #[error("its next update was due at {next_update}")]
    Expired { next_update: Timestamp },
    #[error("it is of {this_update}, which is still to come: check the clock")]
    Future { this_update: Timestamp },
    #[error("its number {number} went back: {floor} was accepted before")]
    WentBack { number: u64, floor: u64 },
    #[error(transparent)]
    Journal(#[from] JournalError),
}

const RETRY: Duration = Duration::from_secs(2);
const REPEAT: Duration = Duration::from_secs(60);
const LEAST_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
