//! What one identity may cost: nobody fills the disk that revocations are written to.

use agentca_identity::crypto::PrivateKey;
use agentca_identity::profile::csr;
use agentca_proto as proto;
use agentca_proto::authority_client::AuthorityClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{Credential, Running, Site, issue, key, revoke_agent};

async fn agent(site: &Site, at: &Running, name: &str, key: &PrivateKey) -> Credential {
    let mut admin = site.admin(at).await;
    let issued = admin.issue(issue(name, key)).await.unwrap().into_inner();
    Credential {
        chain: issued.chain,
        key: key.clone(),
    }
}

/// Renews until it is refused: how often it was not, and the refusal.
async fn renew_until_refused(
    own: &mut AuthorityClient<Channel>,
    request: &proto::RenewRequest,
) -> (usize, tonic::Status) {
    for renewed in 0..1_000 {
        if let Err(refused) = own.renew(request.clone()).await {
            return (renewed, refused);
        }
    }
    panic!("it renews for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_renews_at_a_pace_and_touches_no_other() {
    let site = Site::new();
    // So slow that nothing comes back during the test.
    site.configure("[limits]\nrenewals_at_once = 3\nrenewals_per_minute = 1");
    let running = site.start().await;
    let busy_key = key();
    let mut busy = site
        .client(&running, &agent(&site, &running, "busy", &busy_key).await)
        .await;
    let request = |key: &PrivateKey| proto::RenewRequest {
        csr: csr::make(key).unwrap(),
        signer: 0,
    };
    let (renewed, refused) = renew_until_refused(&mut busy, &request(&busy_key)).await;
    assert_eq!(renewed, 3);
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("too often"), "{refused}");
    let other_key = key();
    let mut other = site
        .client(&running, &agent(&site, &running, "other", &other_key).await)
        .await;
    other.renew(request(&other_key)).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_has_so_many_certificates_and_an_issuer_makes_more() {
    let site = Site::new();
    site.configure("[limits]\ncertificates_each = 4");
    let running = site.start().await;
    let agent_key = key();
    let mine = agent(&site, &running, "many", &agent_key).await;
    let mut own = site.client(&running, &mine).await;
    let request = proto::RenewRequest {
        csr: csr::make(&agent_key).unwrap(),
        signer: 0,
    };
    let (renewed, refused) = renew_until_refused(&mut own, &request).await;
    assert_eq!(renewed, 3, "with the first one these are four");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("certificates_each"), "{refused}");
    let mut admin = site.admin(&running).await;
    for _ in 0..8 {
        admin.issue(issue("many", &agent_key)).await.unwrap();
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_the_disk_is_for_revocations() {
    let site = Site::new();
    let running = site.start().await;
    let agent_key = key();
    let mine = agent(&site, &running, "support-01", &agent_key).await;
    running.stop().await;
    site.configure("[limits]\ndisk_reserve = 9223372036854775807");
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let refused = admin.issue(issue("next", &key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(
        refused.message().contains("kept for revocations"),
        "{refused}"
    );
    let request = proto::RenewRequest {
        csr: csr::make(&agent_key).unwrap(),
        signer: 0,
    };
    let mut own = site.client(&running, &mine).await;
    let refused = own.renew(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let revoked = admin.revoke(revoke_agent("support-01")).await.unwrap();
    assert_eq!(revoked.into_inner().certificates, 1);
    running.stop().await;
}
