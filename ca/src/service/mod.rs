//! The gRPC services. Protobuf types stop here: what comes in is read into typed changes, what goes
//! out is written from typed outcomes. Whether somebody may is decided by the sequencer.

mod agents;
mod enforcers;
mod feed;
mod issue;
mod people;
mod renew;
mod revoke;
mod wire;

use std::pin::Pin;
use std::sync::Arc;

use agentca_proto::authority_server::Authority as AuthorityApi;
use agentca_proto::{
    AddEnforcerRequest, AddEnforcerResponse, AddPersonRequest, Agent, Change, Credential,
    IssueRequest, ListAgentsRequest, ListEnforcersRequest, ListEnforcersResponse,
    ListPeopleRequest, ListPeopleResponse, ReinstateRequest, RemoveEnforcerRequest,
    RemovePersonRequest, RenewRequest, RevokeRequest, RevokeResponse, SetGrantRequest,
};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use crate::authority::change::Caller;
use crate::authority::core::Authority;
use crate::authority::refusal::{Meaning, Refusal};
use crate::mint::MintError;
use crate::tls::ConnectedPeer;

pub use feed::FeedService;

/// What people, agents and enforcers ask.
#[derive(Clone, Debug)]
pub struct AuthorityService(pub Arc<Authority>);

/// Agents, one after the other.
pub type AgentStream = Pin<Box<dyn Stream<Item = Result<Agent, Status>> + Send>>;

#[tonic::async_trait]
impl AuthorityApi for AuthorityService {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<Credential>, Status> {
        let (caller, asked) = split(request)?;
        self.answer(issue::issue(&self.0, caller, asked).await)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Credential>, Status> {
        let (caller, asked) = split(request)?;
        self.answer(renew::renew(&self.0, caller, asked).await)
    }

    async fn revoke(
        &self,
        request: Request<RevokeRequest>,
    ) -> Result<Response<RevokeResponse>, Status> {
        let (caller, asked) = split(request)?;
        self.answer(revoke::revoke(&self.0, caller, asked).await)
    }

    async fn reinstate(
        &self,
        request: Request<ReinstateRequest>,
    ) -> Result<Response<Change>, Status> {
        let (caller, asked) = split(request)?;
        self.answer(agents::reinstate(&self.0, caller, asked).await)
    }

    async fn set_grant(
        &self,
        request: Request<SetGrantRequest>,
    ) -> Result<Response<Change>, Status> {
        let (caller, asked) = split(request)?;
        self.answer(agents::set_grant(&self.0, caller, asked).await)
    }

    type ListAgentsStream = AgentStream;

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<AgentStream>, Status> {
        let (caller, asked) = split(request)?;
        self.answer(agents::list(&self.0, &caller, &asked))
    }

    async fn add_enforcer(
        &self,
        request: Request<AddEnforcerRequest>,
    ) -> Result<Response<AddEnforcerResponse>, Status> {
        let (caller, asked) = split(request)?;
        self.answer(enforcers::add(&self.0, caller, asked).await)
    }

    async fn remove_enforcer(
        &self,
        request: Request<RemoveEnforcerRequest>,
    ) -> Result<Response<Change>, Status> {
        let (caller, asked) = split(request)?;
        self.answer(enforcers::remove(&self.0, caller, asked).await)
    }

    async fn list_enforcers(
        &self,
        request: Request<ListEnforcersRequest>,
    ) -> Result<Response<ListEnforcersResponse>, Status> {
        let (caller, ListEnforcersRequest {}) = split(request)?;
        self.answer(enforcers::list(&self.0, &caller))
    }

    async fn add_person(
        &self,
        request: Request<AddPersonRequest>,
    ) -> Result<Response<Credential>, Status> {
        let (caller, asked) = split(request)?;
        self.answer(people::add(&self.0, caller, asked).await)
    }

    async fn remove_person(
        &self,
        request: Request<RemovePersonRequest>,
    ) -> Result<Response<Change>, Status> {
        let (caller, asked) = split(request)?;
        self.answer(people::remove(&self.0, caller, asked).await)
    }

    async fn list_people(
        &self,
        request: Request<ListPeopleRequest>,
    ) -> Result<Response<ListPeopleResponse>, Status> {
        let (caller, ListPeopleRequest {}) = split(request)?;
        self.answer(people::list(&self.0, &caller))
    }
}

impl AuthorityService {
    fn answer<T>(&self, outcome: Result<T, Refusal>) -> Result<Response<T>, Status> {
        outcome.map(Response::new).map_err(|refusal| {
            self.0.metrics.refused.increment();
            status(&refusal)
        })
    }
}

/// The caller by its certificate, and what it asks.
fn split<T>(request: Request<T>) -> Result<(Caller, T), Status> {
    let peer = request
        .extensions()
        .get::<ConnectedPeer>()
        .ok_or_else(|| Status::unauthenticated("connect with a client certificate"))?;
    let caller = Caller {
        id: peer.0.id().clone(),
        serial: peer.0.certificate().serial(),
    };
    Ok((caller, request.into_inner()))
}

fn status(refusal: &Refusal) -> Status {
    let code = match refusal.meaning() {
        Meaning::Denied => Code::PermissionDenied,
        Meaning::NotFound => Code::NotFound,
        Meaning::Exists => Code::AlreadyExists,
        Meaning::Precondition => Code::FailedPrecondition,
        Meaning::Invalid => Code::InvalidArgument,
        Meaning::Aborted => Code::Aborted,
        Meaning::Exhausted => Code::ResourceExhausted,
        Meaning::Unavailable => Code::Unavailable,
        Meaning::Internal => Code::Internal,
    };
    if code == Code::Internal {
        tracing::error!(%refusal, "a request failed by our fault");
    }
    Status::new(code, refusal.to_string())
}

impl From<MintError> for Refusal {
    fn from(error: MintError) -> Self {
        Self::Internal(error.to_string())
    }
}
