//! Where MCP is spoken: `/mcp/<upstream>` for each server, `/mcp` for those that share it.

use std::sync::Arc;

use agentca_policy::{McpServer, NormalPath};
use http::Uri;

use crate::config::{DenyAs, McpOptions};
use crate::head::Head;
use crate::live::Live;
use crate::road::Destination;

/// A request at an endpoint of MCP: its head was read, what it calls is not known yet.
#[derive(Debug)]
pub(crate) struct Doorway {
    upstream: Arc<str>,
    server: Option<Arc<McpServer>>,
    options: McpOptions,
    head: Box<Head>,
}

/// Which kind of endpoint a path is.
#[derive(Debug)]
pub(crate) enum Entrance {
    /// One server's.
    Own(Found),
    /// That of all that share it.
    Shared,
}

/// An endpoint that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    upstream: Arc<str>,
    options: McpOptions,
}

impl Doorway {
    /// The endpoint at a path.
    pub(crate) fn of(live: &Live, path: &NormalPath) -> Option<Entrance> {
        if path.query().is_some() {
            return None;
        }
        if path.path() == "/mcp" && live.shared_upstreams().next().is_some() {
            return Some(Entrance::Shared);
        }
        let name = path.path().strip_prefix("/mcp/")?;
        Self::named(live, name).map(Entrance::Own)
    }

    /// The endpoint of one upstream.
    pub(crate) fn named(live: &Live, upstream: &str) -> Option<Found> {
        let (upstream, options) = live.mcp_upstream(upstream)?;
        Some(Found { upstream, options })
    }

    /// The same by other settings, if it is there.
    pub(crate) fn renewed(self, live: &Live) -> Option<Self> {
        let found = Self::named(live, &self.upstream)?;
        Some(found.with(live, self.head))
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }

    pub(crate) fn upstream(&self) -> &Arc<str> {
        &self.upstream
    }

    /// What the catalogue has of it.
    pub(crate) fn server(&self) -> Option<&Arc<McpServer>> {
        self.server.as_ref()
    }

    pub(crate) fn options(&self) -> &McpOptions {
        &self.options
    }

    /// The head as it goes on, and where to.
    pub(crate) fn leave(self, live: &Live) -> Option<(Box<Head>, Destination)> {
        let (target, path) = live.destination(&self.upstream)?;
        let mut head = self.head;
        head.uri = Uri::try_from(&*path).ok()?;
        Some((head, target))
    }
}

impl Found {
    /// How a denial is told there.
    pub(crate) fn deny_as(&self) -> DenyAs {
        self.options.deny_as
    }

    /// With what asked for it.
    pub(crate) fn with(self, live: &Live, head: Box<Head>) -> Doorway {
        let server = live.config().mcp_catalogue.server(&self.upstream);
        Doorway {
            server: server.map(Arc::clone),
            upstream: self.upstream,
            options: self.options,
            head,
        }
    }
}
