use std::str::FromStr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{Catalogue, NormalPath, PermissionsDecl, Risk, RouteDecl, UpstreamDecl};

fn call(scope: &str, min_trust: &str) -> Arc<Call> {
    let decl = RouteDecl {
        upstream: "payments".to_owned(),
        methods: vec!["GET".to_owned()],
        path: "/a".to_owned(),
        scope: scope.to_owned(),
        min_trust: min_trust.to_owned(),
        risk: Risk::Read,
        classification: None,
        publisher: None,
        version: None,
        permissions: PermissionsDecl::default(),
        data_flow: None,
        stream_request: false,
    };
    let upstreams = [UpstreamDecl {
        name: "payments".to_owned(),
    }];
    let catalogue = Catalogue::compile(&upstreams, &[decl]).unwrap();
    let route = catalogue.find("GET", &NormalPath::parse("/a").unwrap());
    Arc::clone(&route.unwrap().call)
}

fn scopes(list: &[&str]) -> ScopeSet {
    ScopeSet::new(list.iter().map(|text| Scope::from_str(text).unwrap())).unwrap()
}

fn rule(verdict: &Verdict<'_>) -> Option<Rule> {
    match verdict {
        Verdict::Allow(_) => None,
        Verdict::Deny { rule, .. } => Some(*rule),
    }
}

#[test]
fn the_first_reason_is_named() {
    let call = call("payments:read", "L2");
    let right = scopes(&["payments:*"]);
    let wrong = scopes(&["mail:*"]);
    let low = Restriction {
        trust: Some(TrustLevel::L1),
        scopes: None,
    };
    let narrow = Restriction {
        trust: None,
        scopes: Some(wrong.clone()),
    };
    let harmless = Restriction {
        trust: Some(TrustLevel::L2),
        scopes: Some(right.clone()),
    };
    let empty = Restriction {
        trust: None,
        scopes: Some(scopes(&[])),
    };
    let cases = [
        (&right, TrustLevel::L2, None, None),
        (&right, TrustLevel::L4, Some(&harmless), None),
        (&right, TrustLevel::L1, None, Some(Rule::Trust)),
        (&wrong, TrustLevel::L1, None, Some(Rule::Trust)),
        (&wrong, TrustLevel::L2, None, Some(Rule::Scope)),
        (&right, TrustLevel::L2, Some(&low), Some(Rule::Restricted)),
        (
            &right,
            TrustLevel::L2,
            Some(&narrow),
            Some(Rule::Restricted),
        ),
        (&right, TrustLevel::L2, Some(&empty), Some(Rule::Restricted)),
        (&wrong, TrustLevel::L2, Some(&low), Some(Rule::Scope)),
        (&right, TrustLevel::L1, Some(&low), Some(Rule::Trust)),
    ];
    for (index, (scopes, trust, restriction, expected)) in cases.into_iter().enumerate() {
        let verdict = judge(
            &call,
            &CallerRights {
                scopes,
                trust,
                restriction,
            },
        );
        assert_eq!(rule(&verdict), expected, "case {index}");
    }
}

#[test]
fn the_proof_names_the_scope_that_covered() {
    let call = call("payments:read", "L0");
    let held = scopes(&["mail:send", "payments:re*"]);
    let rights = CallerRights {
        scopes: &held,
        trust: TrustLevel::L0,
        restriction: None,
    };
    let Verdict::Allow(proof) = judge(&call, &rights) else {
        panic!("denied")
    };
    assert_eq!(proof.scope().to_string(), "payments:re*");
}

fn any_trust() -> impl Strategy<Value = TrustLevel> {
    (0u8..5).prop_map(|level| TrustLevel::try_from(level).unwrap())
}

fn any_scopes() -> impl Strategy<Value = ScopeSet> {
    proptest::collection::btree_set("[ab](:[ab]){0,2}(:\\*)?", 0..4).prop_map(|set| {
        ScopeSet::new(set.iter().map(|text| Scope::from_str(text).unwrap())).unwrap()
    })
}

proptest! {
    #[test]
    fn a_restriction_only_takes_away(
        required in "[ab](:[ab]){0,2}",
        min in any_trust(),
        held in any_scopes(),
        trust in any_trust(),
        limit in proptest::option::of(any_trust()),
        left in proptest::option::of(any_scopes()),
    ) {
        let call = call(&required, &min.to_string());
        let restriction = Restriction { trust: limit, scopes: left };
        let free = CallerRights { scopes: &held, trust, restriction: None };
        let bound = CallerRights { restriction: Some(&restriction), ..free };
        let before = rule(&judge(&call, &free));
        let after = rule(&judge(&call, &bound));
        match before {
            Some(_) => prop_assert_eq!(after, before),
            None => prop_assert!(matches!(after, None | Some(Rule::Restricted))),
        }
    }
}
