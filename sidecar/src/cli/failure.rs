//! How a command fails: one sentence, and the exit code that scripts rely on.

use std::process::ExitCode;

use crate::enforcer::AskError;
use crate::holder::HolderError;
use crate::link::LinkError;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Somebody said no, or something can't be used.
    #[error("{0}")]
    Refused(String),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody answered.
    #[error("{0}")]
    Unreachable(String),
    /// Whoever read the output has gone: no failure of ours.
    #[error("nobody reads the output any more")]
    ReaderGone,
}

impl Failure {
    pub(crate) fn refused(message: impl ToString) -> Self {
        Self::Refused(message.to_string())
    }

    pub(crate) fn usage(message: impl ToString) -> Self {
        Self::Usage(message.to_string())
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::ReaderGone => 0,
        })
    }

    /// Whether there is nothing to say.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::ReaderGone)
    }
}

impl From<HolderError> for Failure {
    fn from(error: HolderError) -> Self {
        Self::refused(error)
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Link(LinkError::Unreachable { .. } | LinkError::TimedOut { .. }) => {
                Self::Unreachable(error.to_string())
            }
            _ => Self::refused(error),
        }
    }
}

/// Errors of standard output.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::refused(format!("could not write the output: {error}"))
        }
    }
}
