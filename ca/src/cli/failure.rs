//! How a command fails: one sentence, and the exit code that scripts rely on.

use std::io;
use std::process::ExitCode;

use crate::client::ClientError;
use crate::credentials::CredentialError;
use crate::staging::StagingError;

/// Why a command did not do, or not wholly do, what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Somebody said no, or something did not verify.
    #[error("{0}")]
    Refused(String),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody answered.
    #[error("{0}")]
    Unreachable(String),
    /// Done and durable, but some enforcer has not confirmed.
    #[error("{0}")]
    NotYetInForce(String),
    /// Whoever read our output has gone.
    #[error("the reader of the output went away")]
    ReaderGone,
}

impl Failure {
    pub(crate) fn refused(message: impl ToString) -> Self {
        Self::Refused(message.to_string())
    }

    pub(crate) fn usage(message: impl ToString) -> Self {
        Self::Usage(message.to_string())
    }

    /// True when there is nobody left to tell.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self, Self::ReaderGone)
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::ReaderGone => 0,
            Self::Refused(_) => 1,
            Self::Usage(_) => USAGE,
            Self::Unreachable(_) => 3,
            Self::NotYetInForce(_) => 4,
        })
    }
}

/// Exit code of a command line that can't be understood.
pub(super) const USAGE: u8 = 2;

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable { .. } | ClientError::Interrupted { .. } => {
                Self::Unreachable(error.to_string())
            }
            ClientError::Untrusted { .. }
            | ClientError::NotTls { .. }
            | ClientError::AnotherRole { .. }
            | ClientError::Rejected { .. }
            | ClientError::Refused { .. }
            | ClientError::Tls(_) => Self::Refused(error.to_string()),
        }
    }
}

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<StagingError> for Failure {
    fn from(error: StagingError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Errors of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::Refused(format!("could not write the output: {error}"))
        }
    }
}
