//! Restarts: nothing acknowledged is lost, whatever happens to the index.

use std::fs;
use std::path::Path;

use agentca_proto as proto;
use tonic::Code;

use crate::support::{Running, Site, issue, key, revoke_agent};

/// What must survive: everything that is listed, as text.
async fn agents(site: &Site, running: &Running) -> Vec<proto::Agent> {
    let request = proto::ListAgentsRequest::default();
    let mut stream = site
        .admin(running)
        .await
        .list_agents(request)
        .await
        .unwrap()
        .into_inner();
    let mut agents = Vec::new();
    while let Some(agent) = stream.message().await.unwrap() {
        agents.push(agent);
    }
    agents
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_survives_with_and_without_its_index() {
    let site = Site::new();
    let running = site.start().await;
    let mut admin = site.admin(&running).await;
    let stolen = key();
    admin.issue(issue("bad", &stolen)).await.unwrap();
    for name in ["a", "b", "c"] {
        admin.issue(issue(name, &key())).await.unwrap();
        admin.issue(issue(name, &key())).await.unwrap();
    }
    admin.revoke(revoke_agent("bad")).await.unwrap();
    let before = agents(&site, &running).await;
    assert_eq!(before.len(), 4);
    running.stop().await;
    let index = site.data().join("index");
    let older = site.folder.path().join("older");
    let damages: [fn(&Path, &Path); 4] = [
        |_: &Path, _: &Path| {},
        |index: &Path, _: &Path| fs::remove_dir_all(index).unwrap(),
        |index: &Path, older: &Path| {
            // Not sled's.
            fs::rename(index, older).unwrap();
            fs::create_dir(index).unwrap();
            fs::write(index.join("conf"), b"garbage").unwrap();
            fs::write(index.join("db"), b"garbage").unwrap();
        },
        // From before: only behind.
        |index: &Path, older: &Path| {
            fs::remove_dir_all(index).unwrap();
            fs::rename(older, index).unwrap();
        },
    ];
    for damage in damages {
        damage(&index, &older);
        let running = site.start().await;
        assert_eq!(agents(&site, &running).await, before);
        let mut admin = site.admin(&running).await;
        let refused = admin.issue(issue("bad", &key())).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let refused = admin.issue(issue("other", &stolen)).await.unwrap_err();
        assert!(
            refused.message().contains("never certified again"),
            "{refused}"
        );
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_another_or_a_longer_log_is_rebuilt() {
    let (one, two) = (Site::new(), Site::new());
    for site in [&one, &two] {
        let running = site.start().await;
        let mut admin = site.admin(&running).await;
        admin.issue(issue("support-01", &key())).await.unwrap();
        running.stop().await;
    }
    fs::remove_dir_all(one.data().join("index")).unwrap();
    fs::rename(two.data().join("index"), one.data().join("index")).unwrap();
    let running = one.start().await;
    let listed = agents(&one, &running).await;
    running.stop().await;
    fs::remove_dir_all(one.data().join("index")).unwrap();
    let running = one.start().await;
    assert_eq!(agents(&one, &running).await, listed);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_wrong_does_not_start() {
    let site = Site::new();
    let path = site.data().join("agentca.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}crl_shard = 2\n")).unwrap();
    let options = agentca::serve::ServeOptions {
        data: site.data(),
        listen: None,
        http_listen: None,
        passphrase_file: None,
        ready: |_, _| (),
    };
    let refused = agentca::serve::run(options, std::future::pending())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("crl_shard"), "{refused}");
}
