use agentca_identity::time::Timestamp;

use super::*;
use crate::call::Risk;
use crate::ceiling::Unverified;
use crate::permissions::PermissionsDecl;
use crate::pins::PinsFile;
use crate::testing::{definition, scanned};

fn tool(name: &str) -> ToolDecl {
    toml::from_str(&format!(
        "upstream = \"payments\"\nname = \"{name}\"\nmin_trust = \"L2\"\nrisk = \"write\"\n"
    ))
    .unwrap()
}

fn method(name: &str) -> MethodDecl {
    MethodDecl {
        upstream: "payments".to_owned(),
        name: name.to_owned(),
        scope: None,
        min_trust: "L1".to_owned(),
        risk: Risk::Read,
        classification: None,
    }
}

fn exception(tool: &str, ends: i64) -> ExceptionDecl {
    ExceptionDecl {
        upstream: "payments".to_owned(),
        tool: Some(tool.to_owned()),
        route: None,
        owner: "alice".to_owned(),
        justification: "needed".to_owned(),
        compensating_control: "watched".to_owned(),
        ends: Timestamp::from_secs(ends),
    }
}

struct Given {
    tools: Vec<ToolDecl>,
    methods: Vec<MethodDecl>,
    ceiling: Option<CeilingDecl>,
    exceptions: Vec<ExceptionDecl>,
    environment: &'static str,
}

impl Given {
    fn tools(tools: Vec<ToolDecl>) -> Self {
        Self {
            tools,
            methods: Vec::new(),
            ceiling: None,
            exceptions: Vec::new(),
            environment: "prod",
        }
    }

    fn compile(&self) -> Result<McpCatalogue, McpErrors> {
        let file = PinsFile {
            pins: vec![scanned("payments", definition("refund", "Pays back"))],
            ..PinsFile::default()
        };
        let mut admitted = Admitted::default();
        admitted.add_unsigned(&file).unwrap();
        McpCatalogue::compile(&McpParts {
            upstreams: &[UpstreamDecl {
                name: "payments".to_owned(),
            }],
            tools: &self.tools,
            methods: &self.methods,
            admitted: &admitted,
            ceiling: self.ceiling.as_ref(),
            exceptions: &self.exceptions,
            environment: &self.environment.parse().unwrap(),
        })
    }

    fn keys(&self) -> Vec<String> {
        let errors = self.compile().unwrap_err();
        errors.iter().map(McpError::key).collect()
    }
}

#[test]
fn a_tool_is_found_by_its_exact_name_alone() {
    let mut given = Given::tools(vec![tool("refund"), tool("get_balance")]);
    given.methods = vec![method("resources/read")];
    let catalogue = given.compile().unwrap();
    assert_eq!(catalogue.len(), 2);
    assert!(catalogue.server("Payments").is_none());
    let server = catalogue.server("payments").unwrap();
    let refund = server.tool("refund").unwrap();
    assert_eq!(refund.call.name, "mcp:payments:refund");
    assert_eq!(refund.call.scope.as_str(), "mcp:payments:refund");
    assert_eq!(
        refund.pinned.as_ref().unwrap().digest,
        definition("refund", "Pays back").digest()
    );
    assert!(server.tool("get_balance").unwrap().pinned.is_none());
    for other in ["Refund", "refund ", "refun", "payments__refund"] {
        assert!(server.tool(other).is_none(), "{other}");
    }
    let names: Vec<&str> = server.tools().iter().map(|tool| &*tool.name).collect();
    assert_eq!(names, ["refund", "get_balance"]);
    let read = server.method("resources/read").unwrap();
    assert_eq!(read.name, "mcp:payments:resources:read");
    assert_eq!(read.scope.as_str(), "mcp:payments:resources:read");
    assert!(server.method("resources/list").is_none());
    assert!(server.method("tools/call").is_none());
}

#[test]
fn a_name_that_is_no_segment_of_a_scope_is_refused() {
    for name in ["", "a b", "a:b", "a/b", "a*", "ä", &"a".repeat(129)] {
        let mut wrong = tool("x");
        name.clone_into(&mut wrong.name);
        assert_eq!(Given::tools(vec![wrong]).keys(), ["tool[1].name"], "{name}");
    }
    Given::tools(vec![tool(&"a".repeat(128))])
        .compile()
        .unwrap();
}

#[test]
fn everything_that_is_wrong_is_told_with_its_key() {
    let mut wrong = tool("refund");
    wrong.upstream = "billing".to_owned();
    wrong.scope = Some("mcp:*".to_owned());
    wrong.min_trust = "L9".to_owned();
    wrong.classification = Some("Ä".to_owned());
    let mut given = Given::tools(vec![tool("refund"), wrong, tool("refund")]);
    given.methods = vec![
        method("tools/call"),
        method("ping"),
        method("a//b"),
        method("prompts/get"),
        method("prompts/get"),
    ];
    given.exceptions = vec![exception("nothing", 1), exception("refund", 1)];
    given.exceptions[1].owner = " ".to_owned();
    given.ceiling = Some(CeilingDecl {
        unverified: Unverified::Mark,
        ..CeilingDecl::default()
    });
    assert_eq!(
        given.keys(),
        [
            "ceiling.unverified",
            "exception[1].tool",
            "exception[2].owner",
            "tool[2].upstream",
            "tool[2].scope",
            "tool[2].min_trust",
            "tool[2].classification",
            "tool[3].name",
            "method[1].name",
            "method[2].name",
            "method[3].name",
            "method[5].name",
        ]
    );
    let dev = Given {
        environment: "dev",
        ..Given::tools(Vec::new())
    };
    let dev = Given {
        ceiling: given.ceiling,
        ..dev
    };
    dev.compile().unwrap();
}

#[test]
fn a_hundred_thousand_tools_are_the_most() {
    let mut given = Given::tools((0..MAX_TOOLS).map(tool_named).collect());
    assert_eq!(given.compile().unwrap().len(), MAX_TOOLS);
    given.tools.push(tool("one_more"));
    assert_eq!(given.keys(), [format!("tool[{}]", MAX_TOOLS + 1)]);
}

fn tool_named(number: usize) -> ToolDecl {
    ToolDecl {
        upstream: "payments".to_owned(),
        name: format!("tool_{number}"),
        scope: None,
        min_trust: "L1".to_owned(),
        risk: Risk::Read,
        risk_reason: None,
        classification: None,
        publisher: None,
        version: None,
        permissions: PermissionsDecl::default(),
        data_flow: None,
    }
}

#[test]
fn what_is_written_of_a_tool_is_read_again() {
    let text = r#"
        upstream = "payments"
        name = "refund"
        scope = "mcp:payments:refund"
        min_trust = "L2"
        risk = "financial"
        risk_reason = "the name says `refund`"
        classification = "personal-data"
        publisher = "Example Ltd"
        version = "1.2"
        [permissions]
        network = "internal"
        filesystem = "none"
        code_execution = "none"
        data_access = "read-write"
        [data_flow]
        input = "a"
        processing = "b"
        destination = "c"
        logged = true
        retention = "30d"
        subprocessor = "d"
    "#;
    let decl: ToolDecl = toml::from_str(text).unwrap();
    let again: ToolDecl = toml::from_str(&toml::to_string(&decl).unwrap()).unwrap();
    assert_eq!(again, decl);
    for wrong in [
        text.replace("risk =", "rsik ="),
        text.replace("input", "inputs"),
        text.replace("internal", "intranet"),
        text.replace("financial", "Financial"),
    ] {
        assert!(toml::from_str::<ToolDecl>(&wrong).is_err(), "{wrong}");
    }
}
