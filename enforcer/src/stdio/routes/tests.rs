use super::*;

struct Bench {
    routes: Routes,
    sent: mpsc::Receiver<Line>,
    messages: Arc<Mailbox>,
}

impl Bench {
    fn new(has_session: bool) -> Self {
        let (outbox, sent) = mpsc::channel(8);
        let messages = Arc::new(Mailbox::new(1000));
        let routes = Routes::new(has_session, outbox, Arc::clone(&messages), 1000);
        Self {
            routes,
            sent,
            messages,
        }
    }

    fn open(&mut self, text: &str) -> Opened {
        let request = RpcRequest::read(Bytes::copy_from_slice(text.as_bytes())).unwrap();
        let opened = self.routes.open(&request).unwrap();
        assert!(self.routes.begin(opened.number));
        opened
    }

    fn says(&mut self, text: &str) -> Result<u64, Fault> {
        self.routes.route(&Message::read(text.as_bytes())?)
    }
}

/// What is in a mailbox now; the end of it is `end`, an error its text.
async fn taken(mailbox: &Mailbox) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let next = tokio::select! {
            biased;
            next = mailbox.next() => next,
            () = std::future::ready(()) => return all,
        };
        match next {
            Some(Ok(message)) => all.push(String::from_utf8(message.to_vec()).unwrap()),
            Some(Err(error)) => all.push(error.to_string()),
            None => {
                all.push("end".to_owned());
                return all;
            }
        }
    }
}

const CALL: &str =
    r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"_meta":{"progressToken":"t"}}}"#;
const LISTEN: &str = r#"{"jsonrpc":"2.0","id":"x","method":"subscriptions/listen","params":{}}"#;

#[tokio::test]
async fn equal_ids_and_tokens_of_two_callers_never_meet() {
    let mut bench = Bench::new(false);
    let (one, two) = (bench.open(CALL), bench.open(CALL));
    assert_ne!(one.line, two.line);
    for (number, progress) in [(two.number, 2), (one.number, 1)] {
        bench
            .says(&format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{number},"progress":{progress}}}}}"#
            ))
            .unwrap();
        bench
            .says(&format!(
                r#"{{"jsonrpc":"2.0","id":{number},"result":{{"of":{progress}}}}}"#
            ))
            .unwrap();
    }
    for (opened, of) in [(one, 1), (two, 2)] {
        assert_eq!(
            taken(&opened.mailbox).await,
            [
                format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"t","progress":{of}}}}}"#
                ),
                format!(r#"{{"jsonrpc":"2.0","id":"x","result":{{"of":{of}}}}}"#),
                "end".to_owned(),
            ]
        );
    }
}

#[tokio::test]
async fn an_answer_to_nothing_is_a_fault_and_a_late_one_is_not() {
    let mut bench = Bench::new(false);
    let opened = bench.open(CALL);
    let answer = format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#,
        opened.number
    );
    let as_text = format!(
        r#"{{"jsonrpc":"2.0","id":"{}","result":{{}}}}"#,
        opened.number
    );
    assert_eq!(bench.says(&as_text), Err(Fault::Unasked));
    assert_eq!(bench.says(&answer), Ok(0));
    assert_eq!(bench.says(&answer), Err(Fault::Unasked));
    let no_id = r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#;
    assert_eq!(bench.says(no_id), Err(Fault::Unasked));

    let late = bench.open(CALL).number;
    bench.routes.give_up(late);
    let told = bench.sent.recv().await.unwrap().bytes;
    assert_eq!(
        told,
        format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{late}}}}}\n"
        )
    );
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{late},"result":{{}}}}"#);
    assert_eq!(bench.says(&answer), Ok(0));
    assert_eq!(bench.says(&answer), Err(Fault::Unasked));
}

#[tokio::test]
async fn a_handshake_and_what_was_never_sent_are_given_up_in_silence() {
    let mut bench = Bench::new(true);
    let handshake = bench.open(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#);
    bench.routes.give_up(handshake.number);
    let request = RpcRequest::read(Bytes::from(CALL)).unwrap();
    let unsent = bench.routes.open(&request).unwrap();
    bench.routes.give_up(unsent.number);
    assert!(
        !bench.routes.begin(unsent.number),
        "it is not written any more"
    );
    assert!(bench.sent.try_recv().is_err());
}

#[tokio::test]
async fn what_belongs_to_no_request_goes_to_the_oldest_or_to_the_session() {
    let mut bench = Bench::new(true);
    let asks = r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#;
    let news = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    let reader = bench.messages.enter();
    bench.says(asks).unwrap();
    assert_eq!(bench.messages.next_as(reader).await.unwrap(), asks);
    let (oldest, _other) = (bench.open(CALL), bench.open(CALL));
    bench.says(asks).unwrap();
    bench.says(news).unwrap();
    assert_eq!(taken(&oldest.mailbox).await, [asks]);
    assert_eq!(bench.messages.next_as(reader).await.unwrap(), news);
    bench.messages.leave(reader);
    bench.says(news).unwrap();
    assert_eq!(taken(&oldest.mailbox).await, [news]);
}

#[tokio::test]
async fn only_what_was_asked_is_answered_and_once() {
    let mut bench = Bench::new(true);
    bench
        .says(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#)
        .unwrap();
    let answer = Bytes::from("{\"jsonrpc\":\"2.0\",\n\"id\":\"\\u0071\",\"result\":{}}");
    let line = bench.routes.response(&answer).unwrap();
    assert_eq!(
        line,
        "{\"jsonrpc\":\"2.0\", \"id\":\"\\u0071\",\"result\":{}}\n"
    );
    assert_eq!(bench.routes.response(&answer), Err(StdioError::NotAsked));
    let mut without = Bench::new(false);
    let asks = r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#;
    assert_eq!(without.says(asks), Err(Fault::Request));
}

#[tokio::test]
async fn a_clients_cancellation_reaches_its_own_request() {
    let mut bench = Bench::new(true);
    let opened = bench.open(CALL);
    let cancel = Bytes::from(
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x","reason":"r"}}"#,
    );
    let line = bench.routes.notification(&cancel).unwrap().unwrap();
    assert_eq!(
        line,
        format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{},\"reason\":\"r\"}}}}\n",
            opened.number
        )
    );
    assert_eq!(
        taken(&opened.mailbox).await,
        ["the request was cancelled", "end"]
    );
    assert_eq!(bench.routes.notification(&cancel), Ok(None));
    assert!(bench.sent.try_recv().is_err(), "told twice");
}

#[tokio::test]
async fn a_subscription_is_named_as_its_client_named_it() {
    let mut bench = Bench::new(false);
    let (one, two) = (bench.open(LISTEN), bench.open(LISTEN));
    let named = |method: &str, id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
        )
    };
    let updated = "notifications/resources/updated";
    assert_eq!(bench.says(&named(updated, &two.number.to_string())), Ok(0));
    assert_eq!(bench.says(&named(updated, "99")), Ok(1));
    assert_eq!(taken(&two.mailbox).await, [named(updated, "\"x\"")]);
    let end = format!(
        r#"{{"jsonrpc":"2.0","id":{0},"result":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{0}}}}}}}"#,
        two.number
    );
    bench.says(&end).unwrap();
    assert_eq!(
        taken(&two.mailbox).await,
        [
            r#"{"jsonrpc":"2.0","id":"x","result":{"_meta":{"io.modelcontextprotocol/subscriptionId":"x"}}}"#,
            "end"
        ]
    );
    let cancel = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{}}}}}"#,
        one.number
    );
    bench.says(&cancel).unwrap();
    let end = taken(&one.mailbox).await;
    assert!(
        end[0].contains(r#""id":"x","result":{"resultType":"complete""#),
        "{end:?}"
    );
    assert_eq!(end[1], "end");
}

#[tokio::test]
async fn a_task_keeps_the_progress_token_of_its_request() {
    let mut bench = Bench::new(true);
    let number = bench.open(CALL).number;
    bench
        .says(&format!(
            r#"{{"jsonrpc":"2.0","id":{number},"result":{{}}}}"#
        ))
        .unwrap();
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    assert_eq!(bench.says(&progress(&number.to_string())), Ok(0));
    assert_eq!(taken(&bench.messages).await, [progress("\"t\"")]);
    assert_eq!(bench.says(&progress("99")), Ok(1));
    assert!(taken(&bench.messages).await.is_empty());
}

#[tokio::test]
async fn a_client_that_takes_nothing_loses_its_request_alone() {
    let mut bench = Bench::new(true);
    let (slow, other) = (bench.open(CALL), bench.open(CALL));
    let log = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"data":"{}"}}}}"#,
        "x".repeat(600)
    );
    assert_eq!(bench.says(&log), Ok(0));
    assert_eq!(bench.says(&log), Ok(1));
    let got = taken(&slow.mailbox).await;
    assert_eq!(got.len(), 3);
    assert_eq!(got[1], StdioError::TooSlow.to_string());
    assert_eq!(bench.says(&log), Ok(0));
    assert_eq!(taken(&other.mailbox).await.len(), 1);
}

#[tokio::test]
async fn what_is_closed_fails_everything_and_takes_nothing() {
    let mut bench = Bench::new(true);
    let opened = bench.open(CALL);
    assert!(bench.routes.idle_since().is_none());
    bench.routes.refuse_more(StdioError::Died);
    let request = RpcRequest::read(Bytes::from(CALL)).unwrap();
    assert_eq!(bench.routes.open(&request).unwrap_err(), StdioError::Died);
    assert!(taken(&opened.mailbox).await.is_empty());
    bench.routes.close(StdioError::Ended);
    assert_eq!(
        taken(&opened.mailbox).await,
        [StdioError::Died.to_string(), "end".to_owned()]
    );
    assert!(bench.routes.idle_since().is_some());
}
