//! What the authority can be asked.

use std::time::Duration;

use agentca_identity::name::{DnsName, Environment, Name, Owner};
use agentca_identity::profile::RevocationReason;
use agentca_identity::roles::PersonRole;
use agentca_identity::scope::ScopeSet;
use agentca_identity::serial::Serial;
use agentca_identity::trust::TrustLevel;
use agentca_proto as proto;

use super::answers::{
    Agent, Change, EnforcerAdded, EnforcerState, Issued, Person, Revoked, Unusable,
};
use super::{Client, ClientError};

/// A first or a repeated issue. What isn't given is as granted.
#[derive(Debug)]
pub(crate) struct IssueOrder<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) name: &'a Name,
    pub(crate) owner: Option<&'a Owner>,
    pub(crate) scopes: Option<&'a ScopeSet>,
    pub(crate) trust: Option<TrustLevel>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) groups: &'a [String],
    /// PKCS#10, DER.
    pub(crate) csr: Vec<u8>,
}

/// Which of an enforcer's signers to renew.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signer {
    Log,
    Response,
}

/// What to revoke.
#[derive(Debug)]
pub(crate) enum RevokeTarget<'a> {
    Agent { environment: &'a str, name: &'a str },
    Serial(&'a Serial),
    Owner(&'a Owner),
}

/// What changes of a grant; `None` stays.
#[derive(Debug)]
pub(crate) struct GrantChange<'a> {
    pub(crate) scopes: Option<&'a ScopeSet>,
    pub(crate) max_trust: Option<TrustLevel>,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) groups: Option<&'a [String]>,
}

/// A new enforcer, or the next generation of one's log.
#[derive(Debug)]
pub(crate) struct EnforcerOrder<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) name: &'a Name,
    pub(crate) dns: &'a [DnsName],
    pub(crate) ip: Vec<String>,
    pub(crate) tls_csr: Vec<u8>,
    pub(crate) log_csr: Vec<u8>,
    pub(crate) response_csr: Vec<u8>,
    pub(crate) new_log: bool,
}

impl Client {
    pub(crate) async fn issue(&mut self, order: IssueOrder<'_>) -> Result<Issued, ClientError> {
        let IssueOrder {
            environment,
            name,
            owner,
            scopes,
            trust,
            lifetime,
            groups,
            csr,
        } = order;
        let request = proto::IssueRequest {
            environment: environment.to_string(),
            name: name.to_string(),
            owner: owner.map(ToString::to_string).unwrap_or_default(),
            scopes: scopes.map(strings).unwrap_or_default(),
            trust: trust.map(level).unwrap_or_default(),
            lifetime_seconds: lifetime.map(|l| l.as_secs()).unwrap_or_default(),
            csr,
            groups: groups.to_vec(),
            owner_given: owner.is_some(),
            scopes_given: scopes.is_some(),
            trust_given: trust.is_some(),
        };
        let answer = self.authority.issue(request).await;
        Ok(answer.map_err(|s| self.explain(&s))?.into_inner().into())
    }

    /// Renews the caller's own certificate, or one of an enforcer's signers.
    pub(crate) async fn renew(
        &mut self,
        csr: Vec<u8>,
        signer: Option<Signer>,
    ) -> Result<Issued, ClientError> {
        let signer = match signer {
            None => proto::SignerUse::Unspecified,
            Some(Signer::Log) => proto::SignerUse::Log,
            Some(Signer::Response) => proto::SignerUse::Response,
        };
        let request = proto::RenewRequest {
            csr,
            signer: signer.into(),
        };
        let answer = self.authority.renew(request).await;
        Ok(answer.map_err(|s| self.explain(&s))?.into_inner().into())
    }

    pub(crate) async fn revoke(
        &mut self,
        target: RevokeTarget<'_>,
        reason: RevocationReason,
    ) -> Result<Revoked, ClientError> {
        use proto::revoke_request::Target;
        let target = match target {
            RevokeTarget::Agent { environment, name } => Target::Agent(selector(environment, name)),
            RevokeTarget::Serial(serial) => Target::Serial(serial.as_bytes().to_vec()),
            RevokeTarget::Owner(owner) => Target::Owner(owner.to_string()),
        };
        let request = proto::RevokeRequest {
            reason: reason.code().into(),
            target: Some(target),
        };
        let answer = self.authority.revoke(request).await;
        Ok(answer.map_err(|s| self.explain(&s))?.into_inner().into())
    }

    pub(crate) async fn reinstate(
        &mut self,
        environment: &str,
        name: &str,
    ) -> Result<Change, ClientError> {
        let request = proto::ReinstateRequest {
            agent: Some(selector(environment, name)),
        };
        let answer = self.authority.reinstate(request).await;
        Ok(answer.map_err(|s| self.explain(&s))?.into_inner().into())
    }

    pub(crate) async fn set_grant(
        &mut self,
        environment: &str,
        name: &str,
        change: GrantChange<'_>,
    ) -> Result<Change, ClientError> {
        let GrantChange {
            scopes,
            max_trust,
            max_lifetime,
            groups,
        } = change;
        let request = proto::SetGrantRequest {
            agent: Some(selector(environment, name)),
            scopes: scopes.map(strings).unwrap_or_default(),
            scopes_given: scopes.is_some(),
            max_trust: max_trust.map(level).unwrap_or_default(),
            max_trust_given: max_trust.is_some(),
            max_lifetime_seconds: max_lifetime.map(|l| l.as_secs()).unwrap_or_default(),
            max_lifetime_given: max_lifetime.is_some(),
            groups: groups.unwrap_or_default().to_vec(),
            groups_given: groups.is_some(),
        };
        let answer = self.authority.set_grant(request).await;
        Ok(answer.map_err(|s| self.explain(&s))?.into_inner().into())
    }

    /// Every agent of that environment and name, in order; empty strings select all.
    pub(crate) async fn agents(
        &mut self,
        environment: &str,
        name: &str,
    ) -> Result<Vec<Agent>, ClientError> {
        let request = proto::ListAgentsRequest {
            environment: environment.to_owned(),
            name: name.to_owned(),
        };
        let answer = self.authority.list_agents(request).await;
        let mut stream = answer.map_err(|s| self.explain(&s))?.into_inner();
        let mut agents = Vec::new();
        while let Some(agent) = stream.message().await.map_err(|s| self.explain(&s))? {
            agents.push(Agent::try_from(agent)?);
        }
        Ok(agents)
    }

    pub(crate) async fn add_enforcer(
        &mut self,
        order: EnforcerOrder<'_>,
    ) -> Result<EnforcerAdded, ClientError> {
        let EnforcerOrder {
            environment,
            name,
            dns,
            ip,
            tls_csr,
            log_csr,
            response_csr,
            new_log,
        } = order;
        let request = proto::AddEnforcerRequest {
            environment: environment.to_string(),
            name: name.to_string(),
            dns: dns.iter().map(ToString::to_string).collect(),
            ip,
            tls_csr,
            log_csr,
            response_csr,
            new_log,
        };
        let answer = self.authority.add_enforcer(request).await;
        Ok(answer
            .map_err(|s| self.explain(&s))?
            .into_inner()
            .try_into()?)
    }

    pub(crate) async fn remove_enforcer(
        &mut self,
        environment: &str,
        name: &str,
    ) -> Result<Change, ClientError> {
        let request = proto::RemoveEnforcerRequest {
            environment: environment.to_owned(),
            name: name.to_owned(),
        };
        let answer = self.authority.remove_enforcer(request).await;
        Ok(answer.map_err(|s| self.explain(&s))?.into_inner().into())
    }

    pub(crate) async fn enforcers(&mut self) -> Result<Vec<EnforcerState>, ClientError> {
        let answer = self
            .authority
            .list_enforcers(proto::ListEnforcersRequest {})
            .await;
        let proto::ListEnforcersResponse { enforcers } =
            answer.map_err(|s| self.explain(&s))?.into_inner();
        Ok(enforcers.into_iter().map(EnforcerState::from).collect())
    }

    pub(crate) async fn add_person(
        &mut self,
        name: &Name,
        roles: &[PersonRole],
        csr: Vec<u8>,
    ) -> Result<Issued, ClientError> {
        let request = proto::AddPersonRequest {
            name: name.to_string(),
            roles: roles.iter().map(ToString::to_string).collect(),
            csr,
        };
        let answer = self.authority.add_person(request).await;
        Ok(answer.map_err(|s| self.explain(&s))?.into_inner().into())
    }
}

impl Client {
    pub(crate) async fn people(&mut self) -> Result<Vec<Person>, ClientError> {
        let answer = self
            .authority
            .list_people(proto::ListPeopleRequest {})
            .await;
        let proto::ListPeopleResponse { people } =
            answer.map_err(|s| self.explain(&s))?.into_inner();
        let people = people.into_iter().map(Person::try_from);
        Ok(people.collect::<Result<_, _>>()?)
    }

    pub(crate) async fn remove_person(&mut self, name: &Name) -> Result<Change, ClientError> {
        let request = proto::RemovePersonRequest {
            name: name.to_string(),
        };
        let answer = self.authority.remove_person(request).await;
        Ok(answer.map_err(|s| self.explain(&s))?.into_inner().into())
    }
}

impl From<Unusable> for ClientError {
    fn from(error: Unusable) -> Self {
        Self::Refused {
            message: error.to_string(),
        }
    }
}

fn selector(environment: &str, name: &str) -> proto::AgentSelector {
    proto::AgentSelector {
        environment: environment.to_owned(),
        name: name.to_owned(),
    }
}

fn level(trust: TrustLevel) -> u32 {
    u32::from(u8::from(trust))
}

fn strings(scopes: &ScopeSet) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}
