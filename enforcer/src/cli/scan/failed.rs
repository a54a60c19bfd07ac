//! Why a server was not listed: who was asked, what happened, and what to do.

use super::server::Place;
use crate::cli::output::Failure;
use crate::mcp_client::ClientError;
use crate::stdio::StdioError;

/// What is told of a server that was not listed.
pub(super) fn failure(upstream: &str, place: &Place, error: &ClientError) -> Failure {
    let advice = advice(place, error);
    let advice = advice.map(|advice| format!("; {advice}"));
    let message = format!("{upstream}: {place}: {error}{}", advice.unwrap_or_default());
    match error {
        ClientError::Connect(_) | ClientError::Timeout => Failure::Unreachable(message),
        _ => Failure::Failed(message),
    }
}

fn advice(place: &Place, error: &ClientError) -> Option<&'static str> {
    Some(match (place, error) {
        (_, ClientError::Connect(_)) => "is it running, and is the address right",
        (Place::Given(_), ClientError::Untrusted(_)) => {
            "`--ca FILE` names the CA that it hangs from, and the URL a name that it has"
        }
        (_, ClientError::Untrusted(_)) => {
            "`ca` in `[upstream.tls]` names the CA that it hangs from, `server_name` a name that it has"
        }
        (Place::Program(_), ClientError::Timeout) => {
            "its program still runs and has said nothing: does it download? Start it once by hand, then scan again"
        }
        (Place::Given(_), ClientError::Status(401 | 403)) => {
            "does it want a token: `--bearer-file FILE`"
        }
        (Place::Configured(_), ClientError::Status(401 | 403)) => {
            "does it want to be shown something: `[upstream.credentials]`"
        }
        (_, ClientError::Process(StdioError::Start(..))) => "is it installed, and on PATH",
        (_, ClientError::Process(StdioError::Died)) => "start it by hand to see why",
        (Place::Given(_) | Place::Configured(_), error) if is_no_mcp(error) => {
            "is that an MCP server, and is the path right (often `/mcp`)"
        }
        _ => return None,
    })
}

/// Whether whoever answered may be something else.
fn is_no_mcp(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Timeout | ClientError::Status(_) | ClientError::Unreadable(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_who_was_asked_and_says_what_to_do() {
        let url = Place::Given("http://127.0.0.1:9005".to_owned());
        let configured = Place::Configured("https://tools.example/mcp".to_owned());
        let program = Place::Program("npx -y server".to_owned());
        let died = ClientError::Process(StdioError::Died);
        let start = StdioError::Start("npx".to_owned(), "not found".to_owned());
        for (place, error, code, words) in [
            (
                &url,
                ClientError::Connect("refused".to_owned()),
                3,
                "is it running",
            ),
            (&url, ClientError::Timeout, 3, "often `/mcp`"),
            (&url, ClientError::Status(404), 1, "often `/mcp`"),
            (&url, ClientError::Status(401), 1, "--bearer-file"),
            (&url, ClientError::Untrusted("x".to_owned()), 1, "--ca FILE"),
            (
                &configured,
                ClientError::Untrusted("x".to_owned()),
                1,
                "[upstream.tls]",
            ),
            (
                &configured,
                ClientError::Status(403),
                1,
                "[upstream.credentials]",
            ),
            (&program, ClientError::Timeout, 3, "does it download?"),
            (&program, ClientError::Process(start), 1, "on PATH"),
            (&program, died, 1, "by hand"),
            (
                &configured,
                ClientError::Credential("no file".to_owned()),
                1,
                "shown cannot be had",
            ),
        ] {
            let told = failure("tools", place, &error);
            let message = match &told {
                Failure::Unreachable(message) if code == 3 => message,
                Failure::Failed(message) if code == 1 => message,
                other => panic!("{error}: {other:?}"),
            };
            let begin = format!("tools: {place}: ");
            assert!(
                message.starts_with(&begin) && message.contains(words),
                "{message}"
            );
        }
    }
}
