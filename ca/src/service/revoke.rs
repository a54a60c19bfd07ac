//! Revocation: durable first, then a wait for the enforcers that it must reach.

use std::time::{Duration, Instant};

use agentca_identity::profile::RevocationReason;
use agentca_identity::serial::Serial;
use agentca_identity::spiffe::SpiffeId;
use agentca_proto as proto;
use agentca_proto::revoke_request::Target;

use super::wire;
use crate::authority::change::{Caller, Revoke, RevokeTarget};
use crate::authority::core::Authority;
use crate::authority::refusal::Refusal;
use crate::feed::{Followers, Waited};

pub(super) async fn revoke(
    authority: &Authority,
    caller: Caller,
    asked: proto::RevokeRequest,
) -> Result<proto::RevokeResponse, Refusal> {
    let reason = u8::try_from(asked.reason).map_err(|e| Refusal::field("reason", e))?;
    let reason = RevocationReason::from_code(reason).map_err(|e| Refusal::field("reason", e))?;
    let target = read_target(asked.target)?;
    let submitted = authority.sequencer.submit(Revoke {
        caller,
        target,
        reason,
    })?;
    if let Some(last) = submitted.last() {
        authority.sequencer.durable(last).await?;
    }
    let durable = Instant::now();
    let record = submitted.last().unwrap_or(submitted.outcome.earlier_record);
    let mut numbers = submitted.statuses;
    for (environment, number) in submitted.outcome.earlier {
        if !numbers.iter().any(|(newer, _)| *newer == environment) {
            numbers.push((environment, number));
        }
    }
    authority
        .metrics
        .revoked
        .add(submitted.outcome.certificates);
    let concerned = authority
        .sequencer
        .read(|state, _| Followers::concerned(state, &numbers))?;
    let waited = authority
        .followers
        .wait(&concerned, durable, PATIENCE)
        .await;
    let Waited {
        enforcers,
        confirmed,
        lagging,
        silent,
        in_force,
    } = waited;
    let uris = |ids: &[SpiffeId]| ids.iter().map(ToString::to_string).collect();
    Ok(proto::RevokeResponse {
        agents: uris(&submitted.outcome.agents),
        already: uris(&submitted.outcome.already),
        certificates: submitted.outcome.certificates,
        enforcers,
        confirmed,
        lagging: lagging.iter().map(ToString::to_string).collect(),
        in_force_ms: in_force.as_secs_f64() * 1000.0,
        record,
        silent: silent.iter().map(ToString::to_string).collect(),
    })
}

fn read_target(target: Option<Target>) -> Result<RevokeTarget, Refusal> {
    Ok(match target {
        Some(Target::Agent(proto::AgentSelector { environment, name })) => RevokeTarget::Agent(
            wire::any_environment(&environment)?,
            wire::text("name", &name)?,
        ),
        Some(Target::Serial(serial)) => {
            let serial = Serial::try_from(serial.as_slice());
            RevokeTarget::Serial(serial.map_err(|e| Refusal::field("serial", e))?)
        }
        Some(Target::Owner(owner)) => RevokeTarget::Owner(wire::text("owner", &owner)?),
        None => {
            return Err(Refusal::field(
                "target",
                "name an agent, a serial or an owner",
            ));
        }
    })
}

/// How long enforcers are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
