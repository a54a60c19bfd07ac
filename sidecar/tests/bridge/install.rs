//! Clients' configurations.

use serde_json::Value;

use crate::fake::{Fake, Reply};
use crate::program::{folder_of, run};

#[tokio::test]
async fn a_client_gets_an_entry_that_says_all_it_needs() {
    let fake = Fake::start(|_| Reply::json("{}")).await;
    let folder = folder_of(&fake);
    let url = fake.url();
    let install = ["install", &url, "--credentials", "agent", "--client"];
    let file = folder.path().join(".mcp.json");
    std::fs::write(
        &file,
        "{\"mcpServers\": {\"other\": {\"command\": \"x\"}}, \"more\": 1}\n",
    )
    .unwrap();

    let (code, shown, said) = run(
        folder.path(),
        &[&install[..], &["claude-code", "--dry-run"]].concat(),
    )
    .await;
    assert!(code == Some(0) && shown.contains("+"), "{shown} {said}");
    assert!(
        !std::fs::read_to_string(&file).unwrap().contains("payments"),
        "nothing was written"
    );

    let (code, said, _) = run(folder.path(), &[&install[..], &["claude-code"]].concat()).await;
    assert!(
        code == Some(0) && said.contains("wrote `payments`"),
        "{said}"
    );
    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(
        (&written["mcpServers"]["other"]["command"], &written["more"]),
        (&"x".into(), &1.into())
    );
    let entry = &written["mcpServers"]["payments"];
    assert_eq!(entry["command"], env!("CARGO_BIN_EXE_agentca-sidecar"));
    let agent = folder.path().canonicalize().unwrap().join("agent");
    let expected = [
        "connect",
        "--stdio",
        &url,
        "--credentials",
        agent.to_str().unwrap(),
    ];
    assert_eq!(entry["args"], serde_json::json!(expected));

    let (code, said, _) = run(folder.path(), &[&install[..], &["claude-code"]].concat()).await;
    assert!(code == Some(0) && said.contains("already"), "{said}");
    let (code, document, _) = run(
        folder.path(),
        &[&install[..], &["vscode", "--print"]].concat(),
    )
    .await;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(
        (code, &document["servers"]["payments"]["type"]),
        (Some(0), &"stdio".into())
    );

    // A home of its own, as the tests have.
    let (code, said, _) = run(folder.path(), &[&install[..], &["cursor"]].concat()).await;
    assert!(
        code == Some(0) && said.contains(".cursor/mcp.json"),
        "{said}"
    );
    let wrong = [
        "install",
        &url,
        "--credentials",
        "nowhere",
        "--client",
        "cursor",
    ];
    let (code, _, said) = run(folder.path(), &wrong).await;
    assert!(
        code == Some(1) && said.contains("there is no folder nowhere"),
        "{said}"
    );
}
