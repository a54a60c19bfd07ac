//! A server that is a program.

use std::sync::Arc;

use bytes::Bytes;

use super::ClientError;
use super::reply::{Reply, Said, line};
use crate::stdio::{Process, ProcessKey, RpcRequest, Stdio, StdioError};

/// One process for this client alone.
#[derive(Debug)]
pub(super) struct Program {
    processes: Arc<Stdio>,
    key: ProcessKey,
}

impl Program {
    pub(super) fn new(processes: Arc<Stdio>) -> Self {
        // No agent's id looks like this; a session, since an older server may ask something.
        let key = ProcessKey {
            agent: Arc::from("agentca-enforcer"),
            session: Some(Arc::from("list")),
        };
        Self { processes, key }
    }

    pub(super) async fn request(&self, body: String) -> Result<Reply, ClientError> {
        let process = self.process().await?;
        let request = RpcRequest::read(Bytes::from(body))
            .ok_or_else(|| ClientError::Unreadable("our own request".to_owned()))?;
        let mut exchange = process.request(&request).await?;
        while let Some(message) = exchange.next().await {
            match line(&message?)? {
                Said::Nothing => {}
                Said::Request { id, is_ping } => answer(&process, &id, is_ping).await?,
                Said::Result(result) => {
                    return Ok(Reply {
                        result,
                        session: None,
                    });
                }
            }
        }
        Err(ClientError::Process(StdioError::Died))
    }

    pub(super) async fn notify(&self, body: String) -> Result<(), ClientError> {
        let process = self.process().await?;
        Ok(process.notify(Bytes::from(body)).await?)
    }

    pub(super) fn close(&self) {
        self.processes.end(&self.key);
    }

    /// A program that ended at what it did not understand is started once more.
    async fn process(&self) -> Result<Process, StdioError> {
        loop {
            match self.processes.process(self.key.clone()).await {
                Err(StdioError::Backoff(left)) => tokio::time::sleep(left).await,
                other => return other,
            }
        }
    }
}

async fn answer(process: &Process, id: &str, is_ping: bool) -> Result<(), StdioError> {
    let said = if is_ping {
        "\"result\":{}"
    } else {
        "\"error\":{\"code\":-32601,\"message\":\"not offered\"}"
    };
    let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{said}}}");
    process.respond(Bytes::from(text)).await
}
