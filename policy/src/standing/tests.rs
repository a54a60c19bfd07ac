use std::time::Duration;

use agentca_identity::crypto::PrivateKey;
use agentca_identity::roles::PersonRole;

use super::*;
use crate::approval::Action;
use crate::assessment::{Assessment, Assessor, Assessors};
use crate::catalogue::UpstreamDecl;
use crate::ceiling::CeilingDecl;
use crate::digest::digest_text;
use crate::mcp::{McpCatalogue, McpParts};
use crate::permissions::{DataAccess, Filesystem, Network, PermissionsDecl};
use crate::pins::{Admitted, Pin, PinsFile, Signers};
use crate::testing::{ALICE, Pki, approval, approved, definition, key, scanned};
use crate::tool::ToolDecl;

const DAY: Duration = Duration::from_secs(86_400);

/// One tool, `refund` of `payments`, in all the ways that matter.
struct Case {
    pki: Pki,
    assessor: PrivateKey,
    permissions: PermissionsDecl,
    ceiling: Option<CeilingDecl>,
    exception: Option<ExceptionDecl>,
    file: PinsFile,
    environment: &'static str,
}

impl Case {
    fn new() -> Self {
        Self {
            pki: Pki::new(),
            assessor: key(),
            permissions: PermissionsDecl::default(),
            ceiling: None,
            exception: None,
            file: PinsFile {
                pins: vec![scanned("payments", definition("refund", "Pays back"))],
                ..PinsFile::default()
            },
            environment: "prod",
        }
    }

    fn assess(&mut self, score: u64, at: Timestamp, manual_review: bool) {
        let said = Assessment {
            v: 1,
            upstream: None,
            tool: "refund".to_owned(),
            digest: digest_text(&digest()),
            score,
            at,
            assessor: "acme".to_owned(),
            notes: None,
            manual_review,
        };
        self.file
            .assessments
            .push(said.sign(&self.assessor, &[]).unwrap());
    }

    fn tool(&self) -> Tool {
        let assessor = Assessor::Key(self.assessor.public_key().clone());
        let assessors: Assessors = [("acme".to_owned(), assessor)].into_iter().collect();
        let mut admitted = Admitted::default();
        let signers = Signers {
            anchor: &self.pki.anchor(),
            assessors: &assessors,
        };
        admitted.add(&self.file, signers).unwrap();
        let mut decl: ToolDecl = toml::from_str(
            "upstream = \"payments\"\nname = \"refund\"\nmin_trust = \"L2\"\nrisk = \"write\"\n",
        )
        .unwrap();
        decl.permissions = self.permissions;
        let exceptions: Vec<_> = self.exception.iter().cloned().collect();
        let catalogue = McpCatalogue::compile(&McpParts {
            upstreams: &[UpstreamDecl {
                name: "payments".to_owned(),
            }],
            tools: &[decl],
            methods: &[],
            admitted: &admitted,
            ceiling: self.ceiling.as_ref(),
            exceptions: &exceptions,
            environment: &self.environment.parse().unwrap(),
        })
        .unwrap();
        let server = catalogue.server("payments").unwrap();
        Tool::clone(server.tool("refund").unwrap())
    }

    fn refusal(&self, seen: &[u8; 32]) -> Refusal {
        self.tool().standing(Some(seen), self.pki.now).unwrap_err()
    }

    fn rule(&self) -> Option<Rule> {
        self.rule_at(self.pki.now)
    }

    fn rule_at(&self, now: Timestamp) -> Option<Rule> {
        let tool = self.tool();
        tool.standing(Some(&digest()), now)
            .err()
            .map(|refusal| refusal.rule)
    }
}

fn digest() -> [u8; 32] {
    definition("refund", "Pays back").digest()
}

fn exception(ends: Timestamp) -> ExceptionDecl {
    ExceptionDecl {
        upstream: "payments".to_owned(),
        tool: Some("refund".to_owned()),
        route: None,
        owner: "alice".to_owned(),
        justification: "needed".to_owned(),
        compensating_control: "watched".to_owned(),
        ends,
    }
}

#[test]
fn only_the_pinned_definition_stands() {
    let mut case = Case::new();
    let (tool, now) = (case.tool(), case.pki.now);
    let standing = tool.standing(Some(&digest()), now).unwrap();
    assert!(!standing.unverified() && standing.exception().is_none());
    assert_eq!(standing.tier(), None);
    let changed = definition("refund", "Pays me").digest();
    for (seen, says) in [
        (Some(&changed), "agentca-enforcer catalogue diff"),
        (None, "could not be listed yet"),
    ] {
        let refusal = tool.standing(seen, now).unwrap_err();
        assert_eq!(refusal.rule, Rule::ToolChanged);
        assert!(refusal.detail.contains(says), "{refusal}");
    }
    case.file.pins.clear();
    let new = case.tool();
    for seen in [Some(&digest()), None] {
        let refusal = new.standing(seen, now).unwrap_err();
        assert_eq!(refusal.rule, Rule::ToolChanged);
        assert!(refusal.detail.contains("is new"), "{refusal}");
    }
}

#[test]
fn no_exception_brings_a_changed_tool_back() {
    let mut case = Case::new();
    case.exception = Some(exception(case.pki.now + DAY));
    assert_eq!(case.refusal(&[0; 32]).rule, Rule::ToolChanged);
}

#[test]
fn the_ceiling_holds_each_permission_and_what_nobody_declared() {
    let mut case = Case::new();
    assert_eq!(case.rule(), None);
    let most = |text: &str| {
        Some(CeilingDecl {
            permissions: toml::from_str(text).unwrap(),
            ..CeilingDecl::default()
        })
    };
    case.ceiling = most("network = \"internal\"");
    assert_eq!(case.rule(), Some(Rule::Ceiling));
    case.permissions = toml::from_str(
        "network = \"internal\"\nfilesystem = \"read\"\ncode_execution = \"none\"\ndata_access = \
         \"read-write\"",
    )
    .unwrap();
    assert_eq!(case.rule(), None);
    for lower in [
        "network = \"none\"",
        "filesystem = \"none\"",
        "data_access = \"read\"",
    ] {
        case.ceiling = most(lower);
        assert_eq!(case.rule(), Some(Rule::Ceiling), "{lower}");
    }
    let detail = case.refusal(&digest()).detail;
    assert!(
        detail.contains("data_access read-write (over read)"),
        "{detail}"
    );
}

#[test]
fn an_exception_counts_until_it_ends() {
    let mut case = Case::new();
    let now = case.pki.now;
    case.permissions.network = Some(Network::External);
    case.ceiling = Some(CeilingDecl {
        permissions: PermissionsDecl {
            network: Some(Network::Internal),
            ..PermissionsDecl::default()
        },
        ..CeilingDecl::default()
    });
    assert_eq!(case.rule(), Some(Rule::Ceiling));
    case.exception = Some(exception(now + DAY));
    let tool = case.tool();
    let standing = tool.standing(Some(&digest()), now).unwrap();
    assert_eq!(standing.exception().unwrap().owner, "alice");
    assert_eq!(case.rule_at(now + DAY), Some(Rule::Ceiling));
}

#[test]
fn what_reaches_far_wants_a_review_of_that_very_definition() {
    let mut case = Case::new();
    case.permissions.filesystem = Some(Filesystem::Write);
    assert_eq!(case.rule(), Some(Rule::ToolUnverified));
    case.assess(100, case.pki.now, false);
    assert_eq!(case.rule(), Some(Rule::ToolUnverified));
    case.assess(10, case.pki.now, true);
    assert_eq!(case.rule(), None);
    case.permissions.data_access = Some(DataAccess::ReadWrite);
    assert_eq!(case.rule(), None);
    // The same assessments, and another definition in force.
    case.file.pins = vec![scanned("payments", definition("refund", "Pays me"))];
    let changed = definition("refund", "Pays me").digest();
    assert_eq!(case.refusal(&changed).rule, Rule::ToolUnverified);
}

#[test]
fn a_person_may_record_the_review_with_the_approval() {
    let mut case = Case::new();
    case.permissions.network = Some(Network::External);
    let person = case.pki.person(ALICE, &[PersonRole::Admin]);
    let tool = definition("refund", "Pays back");
    for reviewed in [false, true] {
        let mut said = approval(Action::Approve, "payments", &tool, case.pki.now);
        said.manual_review = reviewed;
        case.file.pins = vec![Pin {
            upstream: "payments".to_owned(),
            definition: tool.clone(),
            approved: approved(ALICE, &person, &said),
        }];
        let expected = (!reviewed).then_some(Rule::ToolUnverified);
        assert_eq!(case.rule(), expected);
    }
}

#[test]
fn the_least_tier_and_the_freshness_hold() {
    let mut case = Case::new();
    let now = case.pki.now;
    case.permissions = toml::from_str("network = \"none\"\nfilesystem = \"none\"\ncode_execution = \"none\"\ndata_access = \"read\"").unwrap();
    case.ceiling = Some(CeilingDecl {
        min_tier: Some(Tier::Verified),
        max_age: Some(DAY),
        ..CeilingDecl::default()
    });
    assert_eq!(case.rule(), Some(Rule::ToolUnverified));
    case.assess(69, now, false);
    assert_eq!(case.rule(), Some(Rule::ToolUnverified));
    // A newer one of the same assessor takes the place of the older.
    case.assess(70, now + Duration::from_secs(1), false);
    assert_eq!(case.rule(), Some(Rule::ToolUnverified), "not yet made");
    let later = now + Duration::from_secs(1);
    assert_eq!(case.rule_at(later), None);
    let tool = case.tool();
    let standing = tool.standing(Some(&digest()), later).unwrap();
    assert_eq!(standing.tier(), Some(Tier::Verified));
    assert_eq!(case.rule_at(later + DAY), None);
    let old = later + DAY + Duration::from_millis(1);
    assert_eq!(case.rule_at(old), Some(Rule::ToolUnverified));
    case.exception = Some(exception(old + DAY));
    assert_eq!(case.rule_at(old), None);
}

#[test]
fn a_standing_changes_only_when_it_says_so() {
    let mut case = Case::new();
    let now = case.pki.now;
    case.permissions = toml::from_str("network = \"none\"\nfilesystem = \"none\"\ncode_execution = \"none\"\ndata_access = \"read\"").unwrap();
    assert_eq!(case.tool().standing_changes(now), None);
    case.ceiling = Some(CeilingDecl {
        min_tier: Some(Tier::Verified),
        max_age: Some(DAY),
        ..CeilingDecl::default()
    });
    case.assess(70, now + Duration::from_secs(1), false);
    case.exception = Some(exception(now + DAY + DAY));
    let tool = case.tool();
    let said = |at| {
        let standing = tool.standing(Some(&digest()), at);
        standing.map(|standing| (standing.tier(), standing.exception().is_some()))
    };
    let mut at = now;
    let mut changes = Vec::new();
    while let Some(change) = tool.standing_changes(at) {
        assert!(change > at);
        let just_before = change - Duration::from_millis(1);
        assert_eq!(said(at), said(just_before));
        assert_ne!(said(just_before), said(change), "{change}");
        changes.push(change);
        at = change;
    }
    assert_eq!(changes.len(), 3, "made, too old, without the exception");
    assert_eq!(said(at), said(at + DAY));
}

#[test]
fn freshness_alone_wants_an_assessment() {
    let mut case = Case::new();
    case.permissions = toml::from_str("network = \"none\"\nfilesystem = \"none\"\ncode_execution = \"none\"\ndata_access = \"read\"").unwrap();
    case.ceiling = Some(CeilingDecl {
        max_age: Some(DAY),
        ..CeilingDecl::default()
    });
    assert_eq!(case.rule(), Some(Rule::ToolUnverified));
    case.assess(0, case.pki.now, false);
    assert_eq!(case.rule(), None);
}

#[test]
fn dev_may_serve_what_is_unverified_but_nothing_above_the_ceiling() {
    let mut case = Case::new();
    case.environment = "dev";
    case.permissions.network = Some(Network::External);
    case.permissions.filesystem = Some(Filesystem::None);
    case.permissions.code_execution = Some(crate::permissions::CodeExecution::None);
    case.permissions.data_access = Some(DataAccess::Read);
    let mut ceiling = CeilingDecl {
        min_tier: Some(Tier::Gold),
        unverified: Unverified::Mark,
        ..CeilingDecl::default()
    };
    case.ceiling = Some(ceiling.clone());
    let tool = case.tool();
    let standing = tool.standing(Some(&digest()), case.pki.now).unwrap();
    assert!(standing.unverified());
    ceiling.permissions.network = Some(Network::Internal);
    case.ceiling = Some(ceiling);
    assert_eq!(case.rule(), Some(Rule::Ceiling));
}

#[test]
fn a_rejected_definition_is_told_apart() {
    let mut case = Case::new();
    let person = case.pki.person(ALICE, &[PersonRole::Responder]);
    let bad = definition("refund", "Pays me");
    let no = approval(Action::Reject, "payments", &bad, case.pki.now);
    case.file.reject(crate::pins::Rejection {
        upstream: "payments".to_owned(),
        tool: "refund".to_owned(),
        digest: digest_text(&bad.digest()),
        rejected: approved(ALICE, &person, &no),
    });
    let tool = case.tool();
    let refusal = tool
        .standing(Some(&bad.digest()), case.pki.now)
        .unwrap_err();
    assert!(refusal.detail.contains("rejected"), "{refusal}");
    assert_eq!(case.rule(), None);
}
