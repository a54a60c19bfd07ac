//! What arrived, for tests that have to prove that something did or did not.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};

/// The file of calls, when one was asked for.
pub(crate) struct Calls {
    file: Option<Mutex<File>>,
}

impl Calls {
    pub(crate) fn open(path: Option<&Path>) -> Self {
        let open = |path: &Path| {
            let file = File::options().create(true).append(true).open(path);
            Mutex::new(file.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        };
        Self {
            file: path.map(open),
        }
    }

    /// Notes a request over HTTP as it came.
    pub(crate) fn http(&self, head: &::http::request::Parts, body: &[u8]) {
        let fields = head.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            json!([name.as_str(), value])
        });
        self.note(&json!({
            "over": "http",
            "method": head.method.as_str(),
            "path": head.uri.path(),
            "headers": fields.collect::<Vec<_>>(),
            "body": String::from_utf8_lossy(body),
        }));
    }

    /// Notes a line that came over standard input.
    pub(crate) fn stdio(&self, line: &str) {
        self.note(&json!({ "over": "stdio", "body": line }));
    }

    /// One write for each line, before the call has any effect: whoever has seen the effect finds the line.
    fn note(&self, call: &Value) {
        if let Some(file) = &self.file {
            let mut file = file.lock().expect("no panic under the lock");
            file.write_all(format!("{call}\n").as_bytes())
                .expect("room for a line");
        }
    }
}
