//! Where requests go: one `[[upstream]]`, ready for use.

use std::fmt;
use std::sync::Arc;

use agentca_identity::spiffe::SpiffeId;
use http::{HeaderValue, StatusCode};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::UpstreamError;
use super::credentials::{self, Credentials, NoCredential, Shown};
use super::tls::{Client, TlsError};
use super::wire::Wire;
use crate::config::{HttpPlace, OAuthOptions, TlsOptions, Upstream, Verify};
use crate::mcp_client::Stream;

/// Where requests go: one `[[upstream]]`, ready for use.
#[derive(Debug)]
pub(crate) struct Target {
    /// What routes call it.
    pub(crate) name: Arc<str>,
    /// Name or address.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// What is sent as `Host`.
    pub(crate) authority: Arc<str>,
    /// The same as a value.
    pub(crate) host_value: HeaderValue,
    /// Where its endpoint is, when it speaks MCP; else `/`.
    pub(crate) path: Box<str>,
    /// The pool's key: who is dialled, and as whom it is known.
    pub(super) key: Arc<str>,
    client: Option<Client>,
    credentials: Option<Credentials>,
}

/// Why an upstream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It can't be named in `Host`.
    #[error("has no authority that can be sent")]
    Authority,
    /// TLS.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The thread that keeps credentials.
    #[error("its credentials cannot be kept: {0}")]
    Keeper(std::io::Error),
}

impl Target {
    /// Reads the files and credentials that the configuration names; none when it is a program.
    /// Called when nothing waits for this thread: commands are run, and tokens asked for.
    pub(crate) fn of(upstream: &Upstream) -> Option<Result<Self, TargetError>> {
        let place = upstream.place()?;
        Some(Self::at(upstream, place))
    }

    fn at(upstream: &Upstream, place: &HttpPlace) -> Result<Self, TargetError> {
        let target = Self::new(&upstream.name, place, place.tls.as_ref())?;
        let unverified = |tls: &TlsOptions| tls.verify == Verify::DangerouslyOff;
        if place.tls.as_ref().is_some_and(unverified) {
            tracing::error!(
                upstream = upstream.name,
                "the upstream is NOT VERIFIED: whoever answers in its place gets every request and \
                 credential; remove `verify = \"dangerously-off\"`"
            );
        }
        let credentials = upstream.credentials.as_ref();
        let credentials = credentials
            .map(|options| Credentials::keep(&upstream.name, options))
            .transpose()?;
        Ok(Self {
            credentials,
            ..target
        })
    }

    /// The token endpoint of an upstream's credentials.
    pub(super) fn token_endpoint(
        upstream: &str,
        oauth: &OAuthOptions,
    ) -> Result<Self, TargetError> {
        let url = &oauth.token_url;
        let place = HttpPlace {
            host: url.host.clone(),
            port: url.port,
            authority: url.authority.clone(),
            path: url.path.clone(),
            tls: url.tls.then(|| TlsOptions {
                ca: oauth.ca.clone(),
                ..TlsOptions::default()
            }),
        };
        Self::new(upstream, &place, place.tls.as_ref())
    }

    fn new(name: &str, place: &HttpPlace, tls: Option<&TlsOptions>) -> Result<Self, TargetError> {
        let client = tls.map(|tls| Client::new(&place.host, tls)).transpose()?;
        let key = match &client {
            None => place.authority.clone(),
            Some(client) => {
                let identity = client.identity.iter().map(|byte| format!("{byte:02x}"));
                format!(
                    "https://{}#{}",
                    place.authority,
                    identity.collect::<String>()
                )
            }
        };
        Ok(Self {
            name: name.into(),
            host: place.host.clone(),
            port: place.port,
            authority: place.authority.as_str().into(),
            host_value: HeaderValue::from_str(&place.authority)
                .map_err(|_| TargetError::Authority)?,
            path: place.path.as_str().into(),
            key: key.into(),
            client,
            credentials: None,
        })
    }

    /// A connection of its own, after the handshake when there is one: bytes in and out.
    ///
    /// # Errors
    /// [`UpstreamError::Connect`].
    pub(crate) async fn connect(&self) -> Result<Wire, UpstreamError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(UpstreamError::Connect)?;
        tcp.set_nodelay(true).map_err(UpstreamError::Connect)?;
        Wire::new(tcp, self.client.as_ref())
            .await
            .map_err(UpstreamError::Connect)
    }

    /// The same for a client of the enforcer's own, which no agent's rights can end.
    ///
    /// # Errors
    /// No connection, or no handshake.
    pub(crate) async fn connect_own(&self) -> std::io::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(Client { config, name, .. }) = &self.client else {
            return Ok(Box::new(tcp));
        };
        let connector = TlsConnector::from(Arc::clone(config));
        Ok(Box::new(connector.connect(name.clone(), tcp).await?))
    }

    /// What a request of `agent` has to show there, if anything: to be put into its head as the last thing before it
    /// is forwarded.
    ///
    /// # Errors
    /// [`NoCredential`]: the request is denied.
    pub(crate) fn credential(&self, agent: &SpiffeId) -> Result<Option<Shown>, NoCredential> {
        let credentials = self.credentials.as_ref();
        credentials.map(|kept| kept.shown(agent)).transpose()
    }

    /// Takes note of an answer: when its credential was refused that is asked for again, for whoever comes next.
    pub(crate) fn answered(&self, status: StatusCode, agent: &SpiffeId) {
        if status == StatusCode::UNAUTHORIZED
            && let Some(credentials) = &self.credentials
        {
            credentials.refused(agent);
        }
    }
}

/// What is wrong with the files of an upstream, as far as can be known without asking anybody.
pub(crate) fn inspect(upstream: &Upstream) -> Vec<String> {
    let place = upstream.place();
    let tls = place.and_then(|place| Client::new(&place.host, place.tls.as_ref()?).err());
    let kept = upstream.credentials.as_ref();
    let kept = kept.map(|options| credentials::inspect(&upstream.name, options));
    tls.map(|error| format!("tls: {error}"))
        .into_iter()
        .chain(kept.unwrap_or_default())
        .map(|wrong| format!("upstream `{}`: {wrong}", upstream.name))
        .collect()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.client.is_some() {
            "https"
        } else {
            "http"
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn upstream(tables: &str) -> Upstream {
        let text = format!(
            "environment = \"prod\"\nlisten = \"127.0.0.1:1\"\nidentity_dir = \".\"\n\
             data_dir = \".\"\nauthority = \"https://127.0.0.1:1\"\n[[upstream]]\n\
             name = \"payments\"\nurl = \"https://localhost\"\n{tables}\n[[route]]\n\
             upstream = \"payments\"\nmethods = [\"GET\"]\npath = \"/a\"\nscope = \"a:b\"\n\
             min_trust = \"L1\"\nrisk = \"read\"\n"
        );
        let config = Config::parse(&text, Path::new("/nonexistent")).unwrap();
        config.upstreams[0].clone()
    }

    #[test]
    fn a_check_names_every_file_that_cannot_be_read() {
        let found = inspect(&upstream(
            "[upstream.tls]\nca = \"ca.pem\"\n[upstream.credentials]\nbearer_from = \"file:token\"\n\
             [upstream.credentials.agent.a]\n\
             basic = { user = \"u\", password_from = \"env:NOT_SET_ANYWHERE\" }\n\
             [upstream.credentials.agent.b.oauth]\ntoken_url = \"https://x/t\"\nca = \"login.pem\"\n\
             client_id = \"c\"\nclient_secret_from = { command = [\"never-run\"] }\n",
        ));
        let wanted = [
            "upstream `payments`: tls: /nonexistent/ca.pem cannot be read: ",
            "upstream `payments`: credentials: file /nonexistent/token cannot be read: ",
            "upstream `payments`: credentials of agent `a`: environment variable \
             NOT_SET_ANYWHERE is not set",
            "upstream `payments`: credentials of agent `b`: /nonexistent/login.pem cannot be read: ",
        ];
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.starts_with(wanted), "{found}");
        }
    }

    #[test]
    fn connections_are_shared_only_between_equals() {
        let dir = tempfile::tempdir().unwrap();
        let pki = crate::testing::Pki::new();
        let pem = |der: &[u8]| agentca_identity::pem::encode_certs([der]);
        let (one, other) = (dir.path().join("1.pem"), dir.path().join("2.pem"));
        std::fs::write(&one, pem(pki.root.certificate().der())).unwrap();
        std::fs::write(&other, pem(pki.issuing.certificate().der())).unwrap();
        let key = |tls: &str| {
            let target = Target::of(&upstream(&format!("[upstream.tls]\n{tls}")));
            target.unwrap().unwrap().key
        };
        let pin = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let keys = [
            key(&format!("ca = {one:?}")),
            key(&format!("ca = {other:?}")),
            key(&format!("ca = {one:?}\nserver_name = \"other\"")),
            key(&format!("ca = {one:?}\npin = \"{pin}\"")),
        ];
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(keys[0], key(&format!("ca = {one:?}")));
    }
}
