//! The road of a request from its head to its [`Permit`]: the first step that denies
//! names the rule.
//!
//! What the head decides is decided first, in [`authorise`]. A call of MCP is named by its body: its road
//! goes on in [`authorise_mcp`] once that was read. A [`Permit`] is made in [`grant`] and nowhere else, and
//! `forward` takes one by value: no byte reaches an upstream without every step having been asked.

mod recheck;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use agentca_identity::scope::Scope;
use agentca_policy::{Call, CallerRights, Route, Rule, Tier, Tool, Verdict as Judgement, judge};
use http::{HeaderMap, Method, StatusCode, Uri};

pub(crate) use self::recheck::{Recheck, StillValid};
use crate::head::Head;
use crate::live::Live;
use crate::mcp::{Asks, Doorway, Entrance};
use crate::peer::Peer;
use crate::status::{Registry, Standing, Verdict};
use crate::stdio::Stdio;
use crate::upstream::{Target, UpstreamError};
use crate::well_known::WellKnown;

/// What a request may do.
#[derive(Debug)]
pub(crate) enum Cleared {
    /// Reach an upstream.
    Call(Permit),
    /// Be answered by the enforcer itself.
    WellKnown(WellKnown),
    /// Say in its body which call of MCP it is.
    Mcp(Doorway),
    /// The same, where several servers are behind one endpoint.
    McpShared(Box<Head>),
}

/// That every step of the road was passed, and for what.
#[derive(Debug)]
pub(crate) struct Permit {
    head: Box<Head>,
    matched: Matched,
    target: Destination,
    scope: Scope,
}

/// What of the catalogue a request is.
#[derive(Clone, Debug)]
pub(crate) enum Matched {
    /// A route.
    Route(Arc<Route>),
    /// A method of MCP.
    Method(Arc<Call>),
    /// What of MCP is open to whoever may use anything of a server.
    Talk(Arc<Call>),
    /// A tool, and whether it is let through though it is not verified as the environment wants.
    Tool {
        /// Which.
        tool: Arc<Tool>,
        /// Only in `dev`.
        unverified: bool,
        /// Without an exception it would be denied.
        excepted: bool,
        /// By the assessments that count now.
        tier: Option<Tier>,
    },
}

impl Matched {
    /// What is decided.
    pub(crate) fn call(&self) -> &Arc<Call> {
        match self {
            Self::Route(route) => &route.call,
            Self::Method(call) | Self::Talk(call) => call,
            Self::Tool { tool, .. } => &tool.call,
        }
    }
}

/// Where a permitted request goes.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// Over HTTP.
    Http(Arc<Target>),
    /// To a program's standard input.
    Program(Arc<Stdio>),
}

/// Passes a request through every step, or says which one denied. `known` is what the decision's record
/// will say that it was judged by.
///
/// # Errors
/// [`Refusal`] with the denial, and with the route as soon as it was known.
pub(crate) fn authorise(
    registry: &Registry,
    live: &Live,
    (peer, known): (&Peer, Standing),
    head: Result<Box<Head>, Denial>,
) -> Result<Cleared, Refusal> {
    fresh(registry)?;
    environment(live, peer)?;
    standing(registry, peer, known)?;
    let head = head?;
    if let Some(well_known) = WellKnown::of(&head.path) {
        return match well_known {
            Some(known) if matches!(head.method, Method::GET | Method::HEAD) => {
                Ok(Cleared::WellKnown(known))
            }
            _ => Err(not_in_catalogue().into()),
        };
    }
    match Doorway::of(live, &head.path) {
        Some(Entrance::Own(found)) => return Ok(Cleared::Mcp(found.with(live, head))),
        Some(Entrance::Shared) => return Ok(Cleared::McpShared(head)),
        None => {}
    }
    let Some(route) = live
        .config()
        .catalogue
        .find(head.method.as_str(), &head.path)
    else {
        return Err(not_in_catalogue().into());
    };
    let Some(target) = live.target(&route.call.upstream) else {
        return Err(not_in_catalogue().into());
    };
    let stands = route.standing(registry.now()).map(|_excepted| ());
    let matched = Matched::Route(Arc::clone(route));
    if let Err(refusal) = stands {
        return Err(Refusal {
            denial: Denial::new(refusal.rule, refusal.detail),
            matched: Some(matched),
        });
    }
    grant(head, matched, Destination::Http(target), peer).map(Cleared::Call)
}

/// Passes a call of MCP through the steps that need its body, or says which one denied. What changed
/// while the body was read is asked again right before it is sent.
///
/// # Errors
/// [`Refusal`], with what it is of the catalogue as soon as that was known.
pub(crate) fn authorise_mcp(
    live: &Live,
    (peer, known): (&Peer, Standing),
    registry: &Registry,
    (doorway, asks): (Doorway, Asks<'_>),
) -> Result<Permit, Refusal> {
    still_standing(registry, peer, known)?;
    let rights = |call: &Call| weigh(call, peer).is_ok();
    let matched = asks.find(live, &doorway, registry.now(), rights)?;
    let (head, target) = doorway.leave(live).ok_or_else(not_in_catalogue)?;
    grant(head, matched, target, peer)
}

/// What is asked again of a caller whom the enforcer itself answers, once the body was read.
pub(crate) fn still_standing(
    registry: &Registry,
    peer: &Peer,
    known: Standing,
) -> Result<(), Denial> {
    fresh(registry)?;
    standing(registry, peer, known)
}

/// The last steps, and the only place where a permit is made.
fn grant(
    head: Box<Head>,
    matched: Matched,
    target: Destination,
    peer: &Peer,
) -> Result<Permit, Refusal> {
    match weigh(matched.call(), peer) {
        Ok(scope) => Ok(Permit {
            head,
            matched,
            target,
            scope,
        }),
        Err(denial) => Err(Refusal {
            denial,
            matched: Some(matched),
        }),
    }
}

/// Whether the only thing that stands against a request so far is that its certificate was not
/// announced yet: then it is worth waiting for.
pub(crate) fn waits_for_issue(registry: &Registry, live: &Live, peer: &Peer) -> bool {
    peer.verdict() == Verdict::Unknown && fresh(registry).is_ok() && environment(live, peer).is_ok()
}

impl Permit {
    /// What it is of the catalogue.
    pub(crate) fn matched(&self) -> &Matched {
        &self.matched
    }

    /// What was decided.
    pub(crate) fn call(&self) -> &Arc<Call> {
        self.matched.call()
    }

    pub(crate) fn target(&self) -> &Destination {
        &self.target
    }

    /// The scope of the certificate that covers the call.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Gives up the permit for what it was given for: to be judged anew.
    pub(crate) fn into_head(self) -> Box<Head> {
        self.head
    }

    /// Gives up the permit for what is to be sent, and for what has to be asked again before.
    pub(crate) fn leave(self) -> (Outgoing, Recheck) {
        let Head {
            method,
            uri,
            headers,
            path,
            length: _,
            trace: _,
        } = *self.head;
        let recheck = Recheck::of(self.matched, (method.clone(), path));
        let outgoing = Outgoing {
            method,
            uri,
            headers,
        };
        (outgoing, recheck)
    }
}

/// The head of a permitted request as it goes on.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

fn environment(live: &Live, peer: &Peer) -> Result<(), Denial> {
    let (theirs, ours) = (peer.environment(), &live.config().environment);
    if theirs == ours {
        return Ok(());
    }
    let detail = format!("the certificate is for `{theirs}`, this enforcer is for `{ours}`");
    Err(Denial::new(Rule::Environment, detail))
}

/// Issued, not revoked, within its time.
fn standing(registry: &Registry, peer: &Peer, known: Standing) -> Result<(), Denial> {
    match known.verdict {
        Verdict::Valid => {}
        Verdict::Unknown => {
            let detail = "the certificate was not announced as issued";
            return Err(Denial::new(Rule::UnknownSerial, detail));
        }
        Verdict::Revoked => return Err(Denial::new(Rule::Revoked, "the certificate is revoked")),
    }
    if !peer.is_within_its_time(registry.now()) {
        return Err(Denial::new(
            Rule::Expired,
            "the certificate is not valid now",
        ));
    }
    Ok(())
}

fn fresh(registry: &Registry) -> Result<(), Denial> {
    registry
        .freshness(Instant::now())
        .map_err(|reason| Denial::new(Rule::Stale, reason.to_string()))
}

fn weigh(call: &Call, peer: &Peer) -> Result<Scope, Denial> {
    let restriction = peer.restriction();
    let rights = CallerRights {
        scopes: peer.scopes(),
        trust: peer.trust(),
        restriction: restriction.as_deref(),
    };
    match judge(call, &rights) {
        Judgement::Allow(proof) => Ok(proof.scope().clone()),
        Judgement::Deny { rule, detail } => Err(Denial::new(rule, detail)),
    }
}

/// Of a server of MCP.
pub(crate) fn nothing_open() -> Denial {
    let detail = "no scope of the certificate covers anything of this server";
    Denial::new(Rule::Scope, detail)
}

fn not_in_catalogue() -> Denial {
    Denial::new(
        Rule::NotInCatalogue,
        "no route of the catalogue matches method and path",
    )
}

/// A denial and the rule that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The rule.
    pub(crate) rule: Rule,
    /// What the client is told.
    pub(crate) status: StatusCode,
    /// One sentence for the client.
    pub(crate) detail: Cow<'static, str>,
}

impl Denial {
    pub(crate) fn new(rule: Rule, detail: impl Into<Cow<'static, str>>) -> Self {
        let status =
            StatusCode::from_u16(rule.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            rule,
            status,
            detail: detail.into(),
        }
    }

    /// The same denial, told by a status of its own.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl From<&UpstreamError> for Denial {
    fn from(error: &UpstreamError) -> Self {
        let denial = Self::new(Rule::Upstream, error.to_string());
        match error {
            UpstreamError::TimedOut => denial.with_status(StatusCode::GATEWAY_TIMEOUT),
            _ => denial,
        }
    }
}

/// A denial on the road.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) denial: Denial,
    /// What it is of the catalogue, once that was known.
    pub(crate) matched: Option<Matched>,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self {
            denial,
            matched: None,
        }
    }
}
