//! Tokens by OAuth client credentials (RFC 6749 section 4.4).

use std::time::Duration;

use agentca_policy::json::{self, JsonLimits};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::UpstreamError;
use super::secret::{Secret, SecretError};
use super::target::Target;
use crate::config::{ClientAuth, OAuthOptions};

/// A token, and how long it is good for when the endpoint said so.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) secret: Secret,
    pub(super) lifetime: Option<Duration>,
}

/// Why there is no token. Says nothing of what was sent or received but the status and RFC 6749's word.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the client secret {0}")]
    Secret(SecretError),
    #[error("the token endpoint cannot be asked: {0}: {cause}", cause = cause(.0))]
    Connect(UpstreamError),
    #[error("the exchange with the token endpoint failed")]
    Exchange(#[from] hyper::Error),
    #[error("the token endpoint gave no answer in time")]
    TimedOut,
    #[error("the token endpoint answered {}{}", .0.as_u16(), .1)]
    Status(StatusCode, &'static str),
    #[error("the token endpoint's answer {0}")]
    Answer(&'static str),
}

/// Asks for one. Redirects are not followed: the secret is for this endpoint alone.
pub(super) async fn fetch(endpoint: &Target, options: &OAuthOptions) -> Result<Token, TokenError> {
    let secret = Secret::read(&options.client_secret)
        .await
        .map_err(TokenError::Secret)?;
    tokio::time::timeout(TIMEOUT, ask(endpoint, options, &secret))
        .await
        .map_err(|_| TokenError::TimedOut)?
}

async fn ask(
    endpoint: &Target,
    options: &OAuthOptions,
    secret: &Secret,
) -> Result<Token, TokenError> {
    let wire = endpoint.connect().await.map_err(TokenError::Connect)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_SIZE)
        .handshake(TokioIo::new(wire))
        .await?;
    let request = request(endpoint, options, secret).map_err(TokenError::Secret)?;
    let answering = async {
        let response = sender.send_request(request).await?;
        read(response).await
    };
    let mut connection = std::pin::pin!(connection);
    let mut answering = std::pin::pin!(answering);
    // The connection may end before its last answer was read.
    tokio::select! {
        answer = &mut answering => answer,
        _ended = &mut connection => answering.await,
    }
}

fn request(
    endpoint: &Target,
    options: &OAuthOptions,
    secret: &Secret,
) -> Result<Request<Full<Bytes>>, SecretError> {
    let mut form = Form::default();
    form.field("grant_type", b"client_credentials");
    for (name, value) in [("scope", &options.scope), ("audience", &options.audience)] {
        if let Some(value) = value {
            form.field(name, value.as_bytes());
        }
    }
    let id = options.client_id.as_bytes();
    let authorization = match options.auth {
        ClientAuth::Post => {
            form.field("client_id", id);
            form.field("client_secret", secret.expose());
            None
        }
        ClientAuth::Basic => {
            // Both are encoded first (RFC 6749 section 2.3.1).
            let secret = Secret::new(encoded(secret.expose()))?;
            Some(secret.basic(&encoded(id))?)
        }
    };
    let mut request = Request::post(&*endpoint.path)
        .body(Full::new(Bytes::from_owner(form)))
        .map_err(|_| SecretError::Control)?;
    let headers = request.headers_mut();
    headers.insert(HOST, endpoint.host_value.clone());
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let form = "application/x-www-form-urlencoded";
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form));
    if let Some(value) = authorization {
        headers.insert(AUTHORIZATION, value);
    }
    Ok(request)
}

async fn read(response: Response<Incoming>) -> Result<Token, TokenError> {
    let status = response.status();
    let content = response.headers().get(CONTENT_TYPE).cloned();
    let body = Limited::new(response.into_body(), MAX_SIZE).collect().await;
    let body = body.map_err(|_| TokenError::Answer("broke off, or is too long"))?;
    let body = body.to_bytes();
    if status != StatusCode::OK {
        return Err(TokenError::Status(status, error_word(&body)));
    }
    let is_json = content
        .and_then(|content| content.to_str().ok().map(is_json))
        .unwrap_or_default();
    if !is_json {
        return Err(TokenError::Answer("is not application/json"));
    }
    parse(&body).map_err(TokenError::Answer)
}

fn is_json(content: &str) -> bool {
    let kind = content.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
}

fn parse(body: &[u8]) -> Result<Token, &'static str> {
    json::check(body, LIMITS).map_err(|_| "is no JSON, or names something twice")?;
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| "has no access_token, token_type or number of seconds in expires_in")?;
    let access_token = Zeroizing::new(answer.access_token);
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err("has a token that is no bearer token");
    }
    let is_b64token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if !access_token.bytes().all(is_b64token) {
        return Err("has a token that fits in no header field");
    }
    let bytes = Zeroizing::new(access_token.as_bytes().to_vec());
    let secret = Secret::new(bytes).map_err(|_| "has a token that is empty or too long")?;
    let lifetime = answer.expires_in.map(Duration::from_secs);
    if lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
        return Err("has a token that has ended already");
    }
    Ok(Token { secret, lifetime })
}

/// Which of RFC 6749's errors it is: anything else may be what was sent, told back.
fn error_word(body: &[u8]) -> &'static str {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let word = serde_json::from_slice::<Refusal>(body).map(|refusal| refusal.error);
    match word.as_deref().unwrap_or_default() {
        "invalid_request" => " (invalid_request)",
        "invalid_client" => " (invalid_client)",
        "invalid_grant" => " (invalid_grant)",
        "unauthorized_client" => " (unauthorized_client)",
        "unsupported_grant_type" => " (unsupported_grant_type)",
        "invalid_scope" => " (invalid_scope)",
        _ => "",
    }
}

/// `application/x-www-form-urlencoded`, wiped when it was sent.
#[derive(Default)]
struct Form(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Form {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Form {
    fn field(&mut self, name: &str, value: &[u8]) {
        let value = encoded(value);
        let mut all = Vec::with_capacity(self.0.len() + name.len() + value.len() + 2);
        all.extend_from_slice(&self.0);
        if !all.is_empty() {
            all.push(b'&');
        }
        all.extend_from_slice(name.as_bytes());
        all.push(b'=');
        all.extend_from_slice(&value);
        self.0 = Zeroizing::new(all);
    }
}

fn encoded(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() * 3));
    for byte in text {
        match byte {
            b' ' => out.push(b'+'),
            b'*' | b'-' | b'.' | b'_' => out.push(*byte),
            byte if byte.is_ascii_alphanumeric() => out.push(*byte),
            byte => {
                let digit = |half: u8| HEX.get(usize::from(half)).copied().unwrap_or_default();
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    out
}

fn cause(error: &UpstreamError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";
const MAX_SIZE: usize = 64 << 10;
const LIMITS: JsonLimits = JsonLimits {
    depth: 16,
    values: 1000,
};
const TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_taken() {
        let token =
            parse(br#"{"access_token":"abc.d-e","token_type":"bearer","expires_in":60,"x":1}"#);
        let token = token.unwrap();
        assert_eq!(token.secret.expose(), b"abc.d-e");
        assert_eq!(token.lifetime, Some(Duration::from_secs(60)));
        let forever = parse(br#"{"access_token":"a","token_type":"Bearer"}"#).unwrap();
        assert_eq!(forever.lifetime, None);
        for wrong in [
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"a"}"#,
            r#"{"token_type":"bearer"}"#,
            r#"{"access_token":"","token_type":"bearer"}"#,
            r#"{"access_token":"a b","token_type":"bearer"}"#,
            r#"{"access_token":"a\r\nX: y","token_type":"bearer"}"#,
            r#"{"access_token":"a","access_token":"b","token_type":"bearer"}"#,
            r#"{"access_token":"a","token_type":"bearer","expires_in":"60"}"#,
            r#"{"access_token":"a","token_type":"bearer","expires_in":-1}"#,
            r#"{"access_token":"a","token_type":"bearer","expires_in":0}"#,
            r#"{"access_token":"a","token_type":"bearer"} trailing"#,
            "access_token=a&token_type=bearer",
        ] {
            let said = parse(wrong.as_bytes());
            assert!(said.is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_tells_a_known_word_and_nothing_else() {
        assert_eq!(
            error_word(br#"{"error":"invalid_client"}"#),
            " (invalid_client)"
        );
        assert_eq!(error_word(br#"{"error":"your secret was hunter2"}"#), "");
        assert_eq!(error_word(b"<html>"), "");
    }

    #[test]
    fn forms_are_encoded() {
        let mut form = Form::default();
        form.field("a", b"b c");
        form.field("d", "é&=+".as_bytes());
        assert_eq!(form.as_ref(), b"a=b+c&d=%C3%A9%26%3D%2B");
    }
}
