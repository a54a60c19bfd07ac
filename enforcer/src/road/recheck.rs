//! What is asked once more right before the first upstream byte.

use std::rc::Rc;
use std::sync::Arc;

use agentca_identity::time::Timestamp;
use agentca_policy::{NormalPath, Rule, Tool};
use http::Method;

use super::{Denial, Matched, fresh, not_in_catalogue, nothing_open, standing, weigh};
use crate::live::Live;
use crate::peer::Peer;
use crate::session::Session;
use crate::status::Standing;

/// What has to be asked again of a permit that was given up for its request.
#[derive(Debug)]
pub(crate) struct Recheck {
    matched: Matched,
    method: Method,
    path: NormalPath,
}

impl Recheck {
    pub(super) fn of(matched: Matched, (method, path): (Method, NormalPath)) -> Self {
        Self {
            matched,
            method,
            path,
        }
    }

    /// Asks again what may have changed since: feed, verdict, expiry, restriction, what was seen of a tool, and the
    /// catalogue. Right before the first upstream byte. `judged_by` is what the permit was given by.
    ///
    /// # Errors
    /// The denial of the first step that no longer passes.
    pub(crate) fn still_valid<'a>(
        &self,
        session: &'a Rc<Session>,
        judged_by: &Arc<Live>,
        known: Standing,
    ) -> Result<StillValid<'a>, Denial> {
        let (peer, shared) = (&session.peer, &session.worker.shared);
        fresh(&shared.registry)?;
        standing(&shared.registry, peer, known)?;
        let live = shared.live.load();
        let now = shared.registry.now();
        if !Arc::ptr_eq(&live, judged_by) {
            self.judged_by((&live, judged_by), peer, now)?;
        } else {
            if let Matched::Tool { tool, .. } = &self.matched {
                callable(&live, tool, now)?;
            }
            if peer.restriction().is_some() {
                weigh(self.matched.call(), peer)?;
            }
        }
        Ok(StillValid { session })
    }

    /// Asks another catalogue than the one that allowed it.
    fn judged_by(
        &self,
        (live, before): (&Live, &Live),
        peer: &Peer,
        now: Timestamp,
    ) -> Result<(), Denial> {
        let (config, upstream) = (live.config(), &self.matched.call().upstream);
        if live.transport(upstream) != before.transport(upstream) {
            let detail = "its upstream was moved while it waited";
            return Err(Denial::new(Rule::NotInCatalogue, detail));
        }
        let server = config.mcp_catalogue.server(upstream);
        let call = match &self.matched {
            Matched::Route(_) => {
                let route = config.catalogue.find(self.method.as_str(), &self.path);
                // Another one would lead elsewhere than the permit.
                let same = route.filter(|route| route.call.name == self.matched.call().name);
                let route = same.ok_or_else(not_in_catalogue)?;
                let stands = route.standing(now).map(|_excepted| ());
                stands.map_err(|refusal| Denial::new(refusal.rule, refusal.detail))?;
                Some(&route.call)
            }
            Matched::Tool { tool, .. } => {
                let tool = server.and_then(|server| server.tool(&tool.name));
                if let Some(tool) = tool {
                    callable(live, tool, now)?;
                }
                tool.map(|tool| &tool.call)
            }
            Matched::Method(call) => {
                let mut methods = server.into_iter().flat_map(|server| server.methods());
                let method = methods.find(|(_, known)| known.name == call.name);
                method.map(|(_, call)| call)
            }
            Matched::Talk(_) => {
                let server = server.ok_or_else(withdrawn)?;
                let tools = server.tools().iter().map(|tool| &tool.call);
                let mut calls = tools.chain(server.methods().map(|(_, call)| call));
                let open = calls.find(|call| weigh(call, peer).is_ok());
                return open.map(|_| ()).ok_or_else(nothing_open);
            }
        };
        let call = call.ok_or_else(withdrawn)?;
        if call.risk != self.matched.call().risk {
            // By it was settled what had to be durable first (promise 3).
            let detail = "its risk class was changed while it waited";
            return Err(Denial::new(Rule::NotInCatalogue, detail));
        }
        weigh(call, peer).map(|_scope| ())
    }
}

/// Whether a tool may be called as it was seen last, whoever calls.
fn callable(live: &Live, tool: &Tool, now: Timestamp) -> Result<(), Denial> {
    let seen = live.seen_tools().digest(&tool.call.upstream, &tool.name);
    let stands = tool.standing(seen.as_ref(), now).map(|_standing| ());
    stands.map_err(|refusal| Denial::new(refusal.rule, refusal.detail))
}

/// That a permit was asked again, and for whom: good for one attempt to send.
#[derive(Debug)]
pub(crate) struct StillValid<'a> {
    session: &'a Rc<Session>,
}

impl<'a> StillValid<'a> {
    pub(crate) fn session(&self) -> &'a Rc<Session> {
        self.session
    }
}

fn withdrawn() -> Denial {
    let detail = "what is called is not in the catalogue any more";
    Denial::new(Rule::NotInCatalogue, detail)
}
