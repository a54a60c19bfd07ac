//! What several commands take: where the authority is, an agent's name, durations, scopes.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use agentca_identity::name::{Environment, Name};
use agentca_identity::time::Timestamp;
use clap::Args;

use super::Failure;
use crate::client::{AuthorityUrl, Client};
use crate::credentials::Credential;

/// Where the authority is, and as whom to ask it.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// The authority.
    #[arg(
        long,
        global = true,
        env = "AGENTCA_URL",
        default_value = "https://127.0.0.1:7443",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) url: AuthorityUrl,
    /// The folder with the credential to use, instead of the default one under ~/.config/agentca.
    #[arg(
        long,
        global = true,
        env = "AGENTCA_CREDENTIALS",
        value_name = "DIR",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) credentials: Option<PathBuf>,
    /// The file whose first line is the passphrase of encrypted private keys.
    #[arg(
        long,
        global = true,
        env = "AGENTCA_PASSPHRASE_FILE",
        value_name = "FILE",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) passphrase_file: Option<PathBuf>,
}

impl Connection {
    /// Connects as the person of the credential in use.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.url, &self.credential()?).await?)
    }

    /// The credential in use.
    pub(crate) fn credential(&self) -> Result<Credential, Failure> {
        let credential = Credential::person(self.credentials.as_deref(), self.passphrase_file())?;
        warn_of_end(&credential, Timestamp::now());
        Ok(credential)
    }

    pub(crate) fn passphrase_file(&self) -> Option<&Path> {
        self.passphrase_file.as_deref()
    }
}

/// Says that the credential ends soon: after that its person cannot even renew it.
fn warn_of_end(credential: &Credential, now: Timestamp) {
    let (begin, end) = (
        credential.certificate.not_before(),
        credential.certificate.not_after(),
    );
    if !ends_soon(begin, end, now) {
        return;
    }
    // Nobody to tell is no reason to stop.
    let _unheard = writeln!(
        std::io::stderr(),
        "warning: your certificate ends at {}; renew it with `agentca renew {}`",
        end.rfc3339(),
        credential.folder.display()
    );
}

/// Whether less than a quarter of its life is left, and some of it.
fn ends_soon(begin: Timestamp, end: Timestamp, now: Timestamp) -> bool {
    let left = end.saturating_since(now);
    !left.is_zero() && left < end.saturating_since(begin) / 4
}

/// An agent as people write it: `NAME` or `ENV/NAME`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AgentRef {
    pub(crate) environment: Option<Environment>,
    pub(crate) name: Name,
}

impl FromStr for AgentRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (environment, name) = match text.split_once('/') {
            Some((environment, name)) => (
                Some(
                    environment
                        .parse::<Environment>()
                        .map_err(|e| e.to_string())?,
                ),
                name,
            ),
            None => (None, text),
        };
        let name = name.parse::<Name>().map_err(|e| e.to_string())?;
        Ok(Self { environment, name })
    }
}

impl AgentRef {
    /// The environment from `ENV/NAME` or `--env`, which must not contradict each other.
    pub(crate) fn environment(
        &self,
        option: Option<&Environment>,
    ) -> Result<Option<Environment>, Failure> {
        match (&self.environment, option) {
            (Some(written), Some(option)) if written != option => Err(Failure::usage(format!(
                "`{self}` and `--env {option}` name two environments, give one"
            ))),
            (Some(environment), _) | (None, Some(environment)) => Ok(Some(environment.clone())),
            (None, None) => Ok(None),
        }
    }
}

impl fmt::Display for AgentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.environment {
            Some(environment) => write!(f, "{environment}/{}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// A length of time as people write it: `90s`, `30m`, `1h30m`, `7d`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a length of time, write it like 90s, 30m, 1h or 7d");
        let mut seconds: u64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(digits);
            let unit = match tail.chars().next() {
                Some('s') => 1,
                Some('m') => 60,
                Some('h') => 3600,
                Some('d') => 86_400,
                _ => return Err(wrong()),
            };
            let amount = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
            seconds = amount
                .and_then(|n| seconds.checked_add(n))
                .ok_or_else(wrong)?;
            rest = tail.get(1..).unwrap_or_default();
        }
        if seconds == 0 {
            return Err(wrong());
        }
        Ok(Self(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("7d", 604_800)] {
            assert_eq!(text.parse::<Span>().unwrap().0.as_secs(), seconds, "{text}");
        }
        for text in [
            "",
            "0s",
            "1",
            "h",
            "1w",
            "-1h",
            "1h2",
            "99999999999999999999d",
            "1 h",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_quarter_of_a_life_is_soon() {
        let begin = Timestamp::from_millis(1_800_000_000_000);
        let at = |seconds| begin + Duration::from_secs(seconds);
        for (now, soon) in [
            (0, false),
            (75, false),
            (76, true),
            (99, true),
            (100, false),
        ] {
            assert_eq!(ends_soon(begin, at(100), at(now)), soon, "{now}");
        }
    }

    #[test]
    fn agents() {
        let plain: AgentRef = "support-01".parse().unwrap();
        assert_eq!(plain.environment, None);
        let full: AgentRef = "staging/support-01".parse().unwrap();
        assert_eq!(full.to_string(), "staging/support-01");
        for text in ["", "/", "prod/", "/a", "a/b/c", "Support"] {
            assert!(text.parse::<AgentRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_environment_is_named_once() {
        let full: AgentRef = "staging/a".parse().unwrap();
        let staging: Environment = "staging".parse().unwrap();
        let prod: Environment = "prod".parse().unwrap();
        assert_eq!(full.environment(Some(&staging)).unwrap(), Some(staging));
        assert!(full.environment(Some(&prod)).is_err());
        assert_eq!(
            "a".parse::<AgentRef>().unwrap().environment(None).unwrap(),
            None
        );
    }
}
