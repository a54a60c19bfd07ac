//! An authority over real loopback sockets, and its clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentca::init::{InitOptions, Initialised, create};
use agentca::serve::{ServeError, ServeOptions, run};
use agentca::tls;
use agentca_identity::chain::TrustAnchor;
use agentca_identity::crypto::{KeyKind, PrivateKey};
use agentca_identity::profile::csr;
use agentca_identity::spiffe::Role;
use agentca_proto as proto;
use agentca_proto::authority_client::AuthorityClient;
use agentca_proto::feed_client::FeedClient;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// A credential of somebody who connects.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: PrivateKey,
}

/// A data directory with an authority in it.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) anchor: TrustAnchor,
    pub(crate) admin: Credential,
}

/// The authority while it runs.
pub(crate) struct Running {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = InitOptions {
            trust_domain: "example.org".parse().unwrap(),
            dns: vec!["ca.example.org".to_owned()],
            public_url: None,
            pen: 32473,
            admin: "admin".parse().unwrap(),
            passphrase: None,
        };
        let made = create(&folder.path().join("pki"), options).unwrap();
        let Initialised {
            root,
            admin: _,
            admin_chain,
            admin_key,
        } = made;
        let anchor = TrustAnchor::from_root_der(&root).unwrap();
        Self {
            folder,
            anchor,
            admin: Credential {
                chain: admin_chain,
                key: admin_key,
            },
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("pki")
    }

    /// Appends to `agentca.toml`.
    pub(crate) fn configure(&self, more: &str) {
        let path = self.data().join("agentca.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{text}\n{more}\n")).unwrap();
    }

    pub(crate) async fn start(&self) -> Running {
        Running::start(&self.data()).await
    }

    pub(crate) async fn channel(&self, at: &Running, credential: &Credential) -> Channel {
        let Credential { chain, key } = credential;
        let config = tls::client_config(&self.anchor, chain, key, Role::Authority).unwrap();
        let address = at.grpc;
        let connect = move |_: http::Uri| {
            let connector = TlsConnector::from(config.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::IpAddress(address.ip().into());
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        endpoint
            .connect_with_connector(tower::service_fn(connect))
            .await
            .unwrap()
    }

    pub(crate) async fn admin(&self, at: &Running) -> AuthorityClient<Channel> {
        AuthorityClient::new(self.channel(at, &self.admin).await)
    }

    pub(crate) async fn client(
        &self,
        at: &Running,
        credential: &Credential,
    ) -> AuthorityClient<Channel> {
        AuthorityClient::new(self.channel(at, credential).await)
    }

    pub(crate) async fn feed(&self, at: &Running, credential: &Credential) -> FeedClient<Channel> {
        FeedClient::new(self.channel(at, credential).await).max_decoding_message_size(64 << 20)
    }
}

impl Running {
    pub(crate) async fn start(data: &Path) -> Self {
        let ready = data.join("serve.json");
        let _absent = std::fs::remove_file(&ready);
        let options = ServeOptions {
            data: data.to_owned(),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            http_listen: Some("127.0.0.1:0".parse().unwrap()),
            passphrase_file: None,
            ready: |_, _| (),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let mut task = tokio::spawn(async move {
            run(options, async move {
                let _either = stopped.await;
            })
            .await
        });
        // The file appears in one step when everything is up.
        let text = loop {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                break text;
            }
            tokio::select! {
                ended = &mut task => panic!("the authority ended: {ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        };
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let address = |key: &str| value[key].as_str().unwrap().parse().unwrap();
        Self {
            grpc: address("listen"),
            http: address("http_listen"),
            stop: Some(stop),
            task,
        }
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(self) -> ServeError {
        self.task.await.unwrap().unwrap_err()
    }
}

pub(crate) fn key() -> PrivateKey {
    PrivateKey::generate(KeyKind::P256).unwrap()
}

pub(crate) fn signer_key() -> PrivateKey {
    PrivateKey::generate(KeyKind::Ed25519).unwrap()
}

pub(crate) fn issue(name: &str, key: &PrivateKey) -> proto::IssueRequest {
    proto::IssueRequest {
        environment: "prod".into(),
        name: name.into(),
        owner: "alice@example.org".into(),
        scopes: vec!["payments:read".into()],
        trust: 2,
        lifetime_seconds: 3600,
        csr: csr::make(key).unwrap(),
        groups: Vec::new(),
        owner_given: true,
        scopes_given: true,
        trust_given: true,
    }
}

pub(crate) fn agent(name: &str) -> Option<proto::AgentSelector> {
    Some(proto::AgentSelector {
        environment: String::new(),
        name: name.into(),
    })
}

pub(crate) fn revoke_agent(name: &str) -> proto::RevokeRequest {
    let target = proto::revoke_request::Target::Agent(agent(name).unwrap());
    proto::RevokeRequest {
        target: Some(target),
        reason: 1,
    }
}

/// An enforcer's three keys and what it got for them.
pub(crate) struct Enforcer {
    pub(crate) tls: Credential,
    pub(crate) log_key: PrivateKey,
    pub(crate) added: proto::AddEnforcerResponse,
}

pub(crate) async fn add_enforcer(
    client: &mut AuthorityClient<Channel>,
    name: &str,
    new_log: bool,
) -> Result<Enforcer, tonic::Status> {
    let (tls, log_key, response) = (key(), signer_key(), signer_key());
    let request = proto::AddEnforcerRequest {
        environment: "prod".into(),
        name: name.into(),
        dns: vec!["localhost".into()],
        ip: vec!["127.0.0.1".into()],
        tls_csr: csr::make(&tls).unwrap(),
        log_csr: csr::make(&log_key).unwrap(),
        response_csr: csr::make(&response).unwrap(),
        new_log,
    };
    let added = client.add_enforcer(request).await?.into_inner();
    let chain = added.tls.as_ref().unwrap().chain.clone();
    Ok(Enforcer {
        tls: Credential { chain, key: tls },
        log_key,
        added,
    })
}
