//! Secrets: read from where the configuration says, wiped when the last one lets go, never shown.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::config::SecretSource;

/// Something that nobody but its receiver may see.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(elided)")
    }
}

/// Why there is none. Says nothing of what was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// A file, or a program that cannot be started.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A variable.
    #[error("is not set, or is no text")]
    Unset,
    /// A program.
    #[error("ended with {0}")]
    Failed(std::process::ExitStatus),
    /// A program.
    #[error("took longer than {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// Too much.
    #[error("is longer than {MAX_SIZE} bytes")]
    TooLong,
    /// What can be in no header field.
    #[error("has a control character, or a second line")]
    Control,
}

impl Secret {
    /// Reads a source; gives it up after a while.
    pub(crate) async fn read(source: &SecretSource) -> Result<Self, SecretError> {
        let reading = async {
            match source {
                SecretSource::Command { program, arguments } => run(program, arguments).await,
                other => {
                    let other = other.clone();
                    let reading = tokio::task::spawn_blocking(move || Self::look(&other));
                    match reading.await {
                        Ok(Ok(Some(secret))) => Ok(secret),
                        Ok(Ok(None)) | Err(_) => Err(SecretError::Empty),
                        Ok(Err(error)) => Err(error),
                    }
                }
            }
        };
        tokio::time::timeout(TIMEOUT, reading)
            .await
            .map_err(|_| SecretError::TimedOut)?
    }

    /// Reads a source that only has to be looked at; none of a command.
    pub(super) fn look(source: &SecretSource) -> Result<Option<Self>, SecretError> {
        match source {
            SecretSource::File(path) => read_file(path).map(Some),
            SecretSource::Environment(name) => {
                let value = std::env::var(name).map_err(|_| SecretError::Unset)?;
                Self::new(Zeroizing::new(value.into_bytes())).map(Some)
            }
            SecretSource::Command { .. } => Ok(None),
        }
    }

    /// As read: one newline at the end does not count.
    pub(super) fn new(mut bytes: Zeroizing<Vec<u8>>) -> Result<Self, SecretError> {
        if bytes.len() > MAX_SIZE {
            return Err(SecretError::TooLong);
        }
        if bytes.ends_with(b"\n") {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(SecretError::Empty);
        }
        if bytes.iter().any(u8::is_ascii_control) {
            return Err(SecretError::Control);
        }
        Ok(Self(bytes))
    }

    /// For whom it is meant.
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// A line without it, wherever it stands in it.
    pub(crate) fn left_out<'a>(&self, line: Cow<'a, str>) -> Cow<'a, str> {
        match std::str::from_utf8(&self.0) {
            Ok(own) if !own.is_empty() && line.contains(own) => line.replace(own, "…").into(),
            _ => line,
        }
    }

    /// The same, for the environment of a program.
    pub(crate) fn text(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The value of a header field that is this, after `prefix`.
    pub(super) fn value(&self, prefix: &str) -> Result<HeaderValue, SecretError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(prefix.len() + self.0.len()));
        bytes.extend_from_slice(prefix.as_bytes());
        bytes.extend_from_slice(&self.0);
        sensitive(bytes)
    }

    /// `Basic`, with this for a password (RFC 7617).
    pub(super) fn basic(&self, user: &[u8]) -> Result<HeaderValue, SecretError> {
        let mut pair = Zeroizing::new(Vec::with_capacity(user.len() + 1 + self.0.len()));
        pair.extend_from_slice(user);
        pair.push(b':');
        pair.extend_from_slice(&self.0);
        // Four for each three that were begun: it never grows, and leaves nothing behind.
        let length = BASIC.len() + pair.len().div_ceil(3) * 4;
        let mut text = Zeroizing::new(String::with_capacity(length));
        text.push_str(BASIC);
        STANDARD.encode_string(pair.as_slice(), &mut text);
        let text = std::mem::take(&mut *text);
        sensitive(Zeroizing::new(text.into_bytes()))
    }
}

/// A value that is wiped with its last copy, and that the library neither shows nor indexes.
fn sensitive(bytes: Zeroizing<Vec<u8>>) -> Result<HeaderValue, SecretError> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(Wiped(bytes)))
        .map_err(|_| SecretError::Control)?;
    value.set_sensitive(true);
    Ok(value)
}

struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let file = std::fs::File::open(path)?;
    let mut bytes = buffer();
    file.take(LIMIT).read_to_end(&mut bytes)?;
    Secret::new(bytes)
}

/// What a program prints; what it says besides is nobody's.
async fn run(program: &str, arguments: &[String]) -> Result<Secret, SecretError> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut bytes = buffer();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(LIMIT).read_to_end(&mut bytes).await?;
    }
    if bytes.len() > MAX_SIZE {
        return Err(SecretError::TooLong);
    }
    let status = child.wait().await?;
    if !status.success() {
        return Err(SecretError::Failed(status));
    }
    Secret::new(bytes)
}

/// Large enough never to grow, which would leave a copy behind.
fn buffer() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(MAX_SIZE * 2))
}

const BASIC: &str = "Basic ";
/// More than any token has; with it a request's head still fits.
const MAX_SIZE: usize = 16 << 10;
const LIMIT: u64 = (16 << 10) + 1;
const TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Result<Secret, SecretError> {
        Secret::new(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn one_newline_is_cut_and_what_fits_in_no_field_is_refused() {
        for (text, read) in [("a b", "a b"), ("a\n", "a"), ("a\r\n", "a"), ("a ", "a ")] {
            assert_eq!(secret(text).unwrap().expose(), read.as_bytes());
        }
        for text in ["", "\n", "a\n\n", "a\nb", "a\tb", "a\0", "\x7f"] {
            assert!(secret(text).is_err(), "{text:?}");
        }
        assert!(secret(&"x".repeat(MAX_SIZE)).is_ok());
        let long = secret(&"x".repeat(MAX_SIZE + 1));
        assert!(matches!(long, Err(SecretError::TooLong)));
    }

    #[test]
    fn values_are_what_servers_expect_and_are_not_shown() {
        let secret = secret("open sesame").unwrap();
        let values = [
            secret.value("").unwrap(),
            secret.value("Bearer ").unwrap(),
            secret.basic(b"Aladdin").unwrap(),
        ];
        let wanted = [
            "open sesame",
            "Bearer open sesame",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ];
        for (value, wanted) in values.iter().zip(wanted) {
            assert_eq!(value.to_str().unwrap(), wanted);
            assert!(value.is_sensitive());
            let shown = format!("{value:?} {secret:?}");
            assert!(
                !shown.contains("sesame") && !shown.contains("QWxh"),
                "{shown}"
            );
        }
    }

    #[tokio::test]
    async fn commands_are_run_without_a_shell_and_must_succeed() {
        let command = |words: &[&str]| SecretSource::Command {
            program: words[0].to_owned(),
            arguments: words[1..].iter().map(ToString::to_string).collect(),
        };
        let read = Secret::read(&command(&["printf", "%s\n", "$HOME"])).await;
        assert_eq!(read.unwrap().expose(), b"$HOME");
        let failed = Secret::read(&command(&["sh", "-c", "echo secret; exit 3"])).await;
        let said = failed.unwrap_err().to_string();
        assert!(said.contains('3') && !said.contains("secret"), "{said}");
        let long = Secret::read(&command(&["yes"])).await;
        assert!(matches!(long, Err(SecretError::TooLong)), "{long:?}");
        let missing = Secret::read(&command(&["/nonexistent/program"])).await;
        assert!(matches!(missing, Err(SecretError::Io(_))), "{missing:?}");
    }
}
