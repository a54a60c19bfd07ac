//! The services over real sockets: issue, renew, revoke, and who may.

use crate::support::{Credential, Site, agent, issue, key, revoke_agent};
use agentca_identity::certificate::Certificate;
use agentca_identity::profile::csr;
use agentca_identity::spiffe::Role;
use agentca_identity::time::Timestamp;
use agentca_proto as proto;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_from_its_first_certificate_to_its_revocation() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let agent_key = key();
    let issued = admin
        .issue(issue("support-01", &agent_key))
        .await
        .unwrap()
        .into_inner();
    let chain: Vec<&[u8]> = issued.chain.iter().map(Vec::as_slice).collect();
    let peer = site
        .anchor
        .verify(&chain, Timestamp::now(), Role::Agent)
        .unwrap();
    let identity = peer.agent().unwrap();
    assert_eq!(
        identity.uri.to_string(),
        "spiffe://example.org/prod/agent/support-01"
    );
    assert_eq!(identity.grant, issued.grant.as_ref().unwrap().record);
    assert!(issued.record > identity.grant);

    let mine = Credential {
        chain: issued.chain.clone(),
        key: agent_key.clone(),
    };
    let mut own = site.client(&running, &mine).await;
    let next = key();
    let renew = |key| proto::RenewRequest {
        csr: csr::make(key).unwrap(),
        signer: 0,
    };
    let renewed = own.renew(renew(&next)).await.unwrap().into_inner();
    let certificate = Certificate::parse(&renewed.chain[0]).unwrap();
    assert_eq!(certificate.public_key(), next.public_key());
    let refused = own.issue(issue("support-01", &key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

    let revoked = admin
        .revoke(revoke_agent("support-01"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(revoked.certificates, 2);
    assert_eq!((revoked.enforcers, revoked.confirmed), (0, 0));
    let refused = own.renew(renew(&key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let refused = admin.issue(issue("support-01", &key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    let reinstate = proto::ReinstateRequest {
        agent: agent("support-01"),
    };
    admin.reinstate(reinstate).await.unwrap();
    let refused = admin
        .issue(issue("support-01", &agent_key))
        .await
        .unwrap_err();
    assert!(
        refused.message().contains("never certified again"),
        "{refused}"
    );
    admin.issue(issue("support-01", &key())).await.unwrap();
    running.stop().await;
}
