//! A disk that can be full or slow: what leaves the enforcer meanwhile.

use std::io;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use agentca_auditlog::store::{FileId, FileStore, Store, StoreError};

use crate::fixture::Fixture;
use crate::pki::Wish;

/// A file store under control.
pub(crate) struct Disk {
    files: FileStore,
    mode: Mutex<Mode>,
    changed: Condvar,
    /// What was written since no sync returns.
    held: Mutex<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Sound,
    /// No write finds room.
    Full,
    /// No sync returns.
    Held,
}

impl Disk {
    pub(crate) fn new(files: FileStore) -> Self {
        let (mode, changed) = (Mutex::new(Mode::Sound), Condvar::new());
        Self {
            files,
            mode,
            changed,
            held: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.held.lock().unwrap().clear();
        *self.mode.lock().unwrap() = mode;
        self.changed.notify_all();
    }

    /// Whether this was written and waits for its sync.
    pub(crate) fn holds(&self, text: &str) -> bool {
        let held = self.held.lock().unwrap();
        held.windows(text.len()).any(|some| some == text.as_bytes())
    }
}

impl Store for Disk {
    fn files(&self) -> Result<Vec<FileId>, StoreError> {
        self.files.files()
    }

    fn create(&self, file: FileId) -> Result<(), StoreError> {
        self.files.create(file)
    }

    fn len(&self, file: FileId) -> Result<u64, StoreError> {
        self.files.len(file)
    }

    fn read_at(&self, file: FileId, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        self.files.read_at(file, offset, buffer)
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let mode = *self.mode.lock().unwrap();
        if mode == Mode::Full {
            let source = io::ErrorKind::StorageFull.into();
            return Err(StoreError {
                action: "write",
                file: file.to_string(),
                source,
            });
        }
        if mode == Mode::Held {
            self.held.lock().unwrap().extend(bytes);
        }
        self.files.write_at(file, offset, bytes)
    }

    fn sync(&self, file: FileId) -> Result<(), StoreError> {
        let mode = self.mode.lock().unwrap();
        drop(
            self.changed
                .wait_while(mode, |mode| *mode == Mode::Held)
                .unwrap(),
        );
        self.files.sync(file)
    }

    fn truncate(&self, file: FileId, length: u64) -> Result<(), StoreError> {
        self.files.truncate(file, length)
    }

    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.files.checkpoint()
    }

    fn replace_checkpoint(&self, note: &[u8]) -> Result<(), StoreError> {
        self.files.replace_checkpoint(note)
    }

    fn publish(&self) -> Result<(), StoreError> {
        self.files.publish()
    }
}

/// Long enough for anything that is not held back.
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn no_answer_leaves_before_its_record_is_durable() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let (mut http1, mut http2) = (fixture.http1(&agent).await, fixture.http2(&agent).await);
    for path in [
        "/v1/accounts/7",
        "/v1/secret",
        "/v1/stream",
        "/.well-known/agentca/signers",
    ] {
        fixture.disk.set(Mode::Held);
        http1
            .send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await;
        let early = tokio::time::timeout(A_WHILE, http1.head()).await;
        assert!(early.is_err(), "{path}");
        fixture.disk.set(Mode::Sound);
        let (status, _) = http1.head().await.unwrap();
        assert!(status == 200 || status == 403, "{path}");
        http1 = fixture.http1(&agent).await;
    }
    fixture.disk.set(Mode::Held);
    let early = tokio::time::timeout(A_WHILE, http2.get("/v1/accounts/7")).await;
    assert!(early.is_err());
    fixture.disk.set(Mode::Sound);
}

#[tokio::test]
async fn no_write_reaches_its_upstream_before_its_record_is_durable() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    fixture.disk.set(Mode::Held);
    client
        .send("POST /v1/held HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .await;
    let early = tokio::time::timeout(A_WHILE, fixture.upstream.held.notified()).await;
    assert!(early.is_err());
    assert!(fixture.upstream.seen().is_empty());
    fixture.disk.set(Mode::Sound);
    fixture.upstream.held.notified().await;
    fixture.upstream.go.notify_one();
    assert_eq!(client.answer("POST").await.unwrap().status, 200);
}

#[tokio::test]
async fn while_the_disk_is_full_connections_close_without_an_answer() {
    let mut fixture = Fixture::start().await;
    let agent = fixture.agent(&Wish::default());
    let mut client = fixture.http1(&agent).await;
    assert_eq!(client.get("/v1/accounts/7").await.status, 200);
    fixture.disk.set(Mode::Full);
    // The first finds the log open and waits for it in vain; later ones are not taken at all.
    for path in ["/v1/accounts/7", "/v1/secret"] {
        client
            .send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await;
        assert_eq!(client.rest().await, b"");
        client = fixture.http1(&agent).await;
    }
    fixture.disk.set(Mode::Sound);
    let answered = async {
        loop {
            client
                .send("GET /v1/accounts/7 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
            match client.answer("GET").await {
                Ok(answer) => return answer,
                Err(_) => client = fixture.http1(&agent).await,
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), answered)
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "room again: everything goes on");
}
