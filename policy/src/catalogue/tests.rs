use agentca_identity::time::Timestamp;
use proptest::prelude::*;

use super::*;

fn route(methods: &[&str], path: &str) -> RouteDecl {
    RouteDecl {
        upstream: "payments".to_owned(),
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
        path: path.to_owned(),
        scope: "payments:read".to_owned(),
        min_trust: "L2".to_owned(),
        risk: Risk::Read,
        classification: None,
        publisher: None,
        version: None,
        permissions: PermissionsDecl::default(),
        data_flow: None,
        stream_request: false,
    }
}

fn compile(routes: &[RouteDecl]) -> Result<Catalogue, CatalogueErrors> {
    Catalogue::compile(
        &[UpstreamDecl {
            name: "payments".to_owned(),
        }],
        routes,
    )
}

fn find<'a>(catalogue: &'a Catalogue, method: &str, path: &str) -> Option<&'a str> {
    let path = NormalPath::parse(path).unwrap();
    catalogue
        .find(method, &path)
        .map(|route| route.template.as_str())
}

fn fault(decl: RouteDecl) -> RouteFault {
    compile(&[decl])
        .unwrap_err()
        .iter()
        .next()
        .unwrap()
        .fault
        .clone()
}

#[test]
fn the_documented_route_compiles() {
    #[derive(Deserialize)]
    struct File {
        route: Vec<RouteDecl>,
    }
    let file: File = toml::from_str(
        r#"
        [[route]]
        upstream = "payments"
        methods = ["GET"]
        path = "/v1/accounts/{id}"
        scope = "payments:read"
        min_trust = "L2"
        risk = "read"
        "#,
    )
    .unwrap();
    let catalogue = compile(&file.route).unwrap();
    let route = catalogue
        .find("GET", &NormalPath::parse("/v1/accounts/7?x").unwrap())
        .unwrap();
    assert_eq!(route.call.name, "http:payments:/v1/accounts/{id}");
    assert_eq!(route.call.scope.to_string(), "payments:read");
    assert!(!route.call.risk.recorded_before_forwarding());
}

#[test]
fn unknown_keys_and_risks_are_refused() {
    let text = r#"
        upstream = "payments"
        methods = ["GET"]
        path = "/"
        scope = "a"
        min_trust = "L2"
        risk = "read"
    "#;
    assert!(toml::from_str::<RouteDecl>(text).is_ok());
    assert!(toml::from_str::<RouteDecl>(&format!("{text}\nscopes = []")).is_err());
    assert!(toml::from_str::<RouteDecl>(&text.replace("\"read\"", "\"none\"")).is_err());
}

#[test]
fn literal_beats_parameter() {
    let catalogue = compile(&[
        route(&["GET"], "/v1/{x}/detail"),
        route(&["GET"], "/v1/search"),
        route(&["GET"], "/v1/{x}"),
        route(&["GET"], "/"),
    ])
    .unwrap();
    assert_eq!(find(&catalogue, "GET", "/v1/search"), Some("/v1/search"));
    assert_eq!(find(&catalogue, "GET", "/v1/other"), Some("/v1/{x}"));
    assert_eq!(
        find(&catalogue, "GET", "/v1/search/detail"),
        Some("/v1/{x}/detail")
    );
    assert_eq!(find(&catalogue, "GET", "/"), Some("/"));
    assert_eq!(find(&catalogue, "GET", "/v1"), None);
    assert_eq!(find(&catalogue, "GET", "/v1/a/b"), None);
    assert_eq!(find(&catalogue, "GET", "/v1/a/detail/x"), None);
}

#[test]
fn a_path_with_its_own_template_never_falls_back() {
    let catalogue = compile(&[route(&["GET"], "/v1/{x}"), route(&["POST"], "/v1/search")]).unwrap();
    assert_eq!(find(&catalogue, "POST", "/v1/search"), Some("/v1/search"));
    assert_eq!(find(&catalogue, "GET", "/v1/search"), None);
    assert_eq!(find(&catalogue, "get", "/v1/x"), None);
}

#[test]
fn methods_of_one_path_may_be_several_routes() {
    let catalogue = compile(&[
        route(&["GET"], "/v1/{x}"),
        route(&["PUT", "POST"], "/v1/{y}"),
    ])
    .unwrap();
    assert_eq!(find(&catalogue, "PUT", "/v1/a"), Some("/v1/{y}"));
    assert_eq!(find(&catalogue, "GET", "/v1/a"), Some("/v1/{x}"));
}

#[test]
fn faults_name_route_and_key() {
    let parameter = |text: &str| RouteFault::Parameter(text.to_owned());
    assert_eq!(fault(route(&[], "/a")), RouteFault::NoMethods);
    assert_eq!(
        fault(route(&["get"], "/a")),
        RouteFault::Method("get".to_owned())
    );
    assert_eq!(
        fault(route(&["TRACE"], "/a")),
        RouteFault::RefusedMethod("TRACE".to_owned())
    );
    assert_eq!(
        fault(route(&["GET", "GET"], "/a")),
        RouteFault::Duplicate("GET".to_owned())
    );
    assert_eq!(fault(route(&["GET"], "/a?b")), RouteFault::Query);
    assert_eq!(
        fault(route(&["GET"], "/a/")),
        PathRefusal::EmptySegment.into()
    );
    assert_eq!(fault(route(&["GET"], "a")), PathRefusal::NotAbsolute.into());
    assert_eq!(fault(route(&["GET"], "/a/{b}c")), parameter("{b}c"));
    assert_eq!(fault(route(&["GET"], "/{}")), parameter("{}"));
    assert_eq!(
        fault(route(&["GET"], "/{a}/{a}")),
        RouteFault::ParameterTwice("{a}".to_owned())
    );
    let form = RouteFault::NotNormal {
        written: "%61".to_owned(),
        form: "a".to_owned(),
    };
    assert_eq!(fault(route(&["GET"], "/%61")), form);
    let upstream = RouteDecl {
        upstream: "x".to_owned(),
        ..route(&["GET"], "/a")
    };
    assert_eq!(fault(upstream), RouteFault::UnknownUpstream("x".to_owned()));
    let pattern = RouteDecl {
        scope: "a:*".to_owned(),
        ..route(&["GET"], "/a")
    };
    assert!(matches!(fault(pattern), RouteFault::Scope(_)));
    let trust = RouteDecl {
        min_trust: "L5".to_owned(),
        ..route(&["GET"], "/a")
    };
    assert!(matches!(fault(trust), RouteFault::Trust(_)));
    let class = RouteDecl {
        classification: Some("A B".to_owned()),
        ..route(&["GET"], "/a")
    };
    assert_eq!(fault(class), RouteFault::Classification);
}

#[test]
fn all_faults_are_listed() {
    let errors = compile(&[
        route(&[], "/a"),
        route(&["GET"], "/b"),
        route(&["GET"], "/b"),
    ])
    .unwrap_err();
    let indexes: Vec<usize> = errors.iter().map(|error| error.index).collect();
    assert_eq!(indexes, [0, 2]);
    assert!(
        errors
            .to_string()
            .contains("route[3].methods: `GET` of this path")
    );
}

#[test]
fn all_faults_of_one_route_are_listed() {
    let decl = RouteDecl {
        upstream: "x".to_owned(),
        methods: vec!["get".to_owned()],
        path: "/a/".to_owned(),
        scope: "a:*".to_owned(),
        min_trust: "high".to_owned(),
        risk: Risk::Read,
        classification: Some(String::new()),
        publisher: None,
        version: None,
        permissions: PermissionsDecl::default(),
        data_flow: None,
        stream_request: false,
    };
    let errors = compile(&[route(&["GET"], "/b"), decl]).unwrap_err();
    let keys: Vec<String> = errors.iter().map(CatalogueError::key).collect();
    let expected = [
        "upstream",
        "methods",
        "scope",
        "min_trust",
        "classification",
        "path",
    ];
    assert_eq!(keys, expected.map(|key| format!("route[2].{key}")));
}

#[test]
fn a_route_above_the_ceiling_stands_while_its_exception_lasts() {
    let mut decl = route(&["GET"], "/v1/{x}");
    let upstream = UpstreamDecl {
        name: decl.upstream.clone(),
    };
    let external = PermissionsDecl {
        network: Some(crate::Network::External),
        ..PermissionsDecl::default()
    };
    let internal = PermissionsDecl {
        network: Some(crate::Network::Internal),
        ..PermissionsDecl::default()
    };
    let ceiling = CeilingDecl {
        permissions: internal,
        ..CeilingDecl::default()
    };
    let exception = |path: &str, ends| ExceptionDecl {
        upstream: decl.upstream.clone(),
        tool: None,
        route: Some(path.to_owned()),
        owner: "alice".to_owned(),
        justification: "x".to_owned(),
        compensating_control: "y".to_owned(),
        ends: Timestamp::from_secs(ends),
    };
    let now = Timestamp::from_secs(10);
    let exceptions = [
        exception("/v1/{x}", 5),
        exception("/v1/{x}", 11),
        exception("/v1/{y}", 99),
    ];
    let (one, none) = (&exceptions[..], &exceptions[..1]);
    for (declared, ceiling, exceptions, stands) in [
        (external, None, none, Some(false)),
        (internal, Some(&ceiling), none, Some(false)),
        (external, Some(&ceiling), none, None),
        (PermissionsDecl::default(), Some(&ceiling), none, None),
        (external, Some(&ceiling), &exceptions[2..], None),
        (external, Some(&ceiling), one, Some(true)),
    ] {
        decl.permissions = declared;
        let upstreams = std::slice::from_ref(&upstream);
        let decls = std::slice::from_ref(&decl);
        let catalogue = Catalogue::compile_within(upstreams, decls, ceiling, exceptions).unwrap();
        let route = &catalogue.routes()[0];
        let standing = route.standing(now);
        let excepted = standing.as_ref().ok().map(Option::is_some);
        assert_eq!(excepted, stands, "{declared:?} {exceptions:?}");
        if let Err(refusal) = standing {
            assert_eq!(refusal.rule, crate::Rule::Ceiling);
            assert!(refusal.detail.contains("`/v1/{x}`"), "{refusal}");
        }
    }
}

/// The same lookup, naively: of all templates that fit, the one whose earliest literals win.
fn reference<'a>(routes: &'a [RouteDecl], path: &str) -> Option<&'a str> {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    routes
        .iter()
        .filter_map(|route| {
            let parts: Vec<&str> = route.path.split('/').skip(1).collect();
            let fits = parts.len() == segments.len()
                && parts
                    .iter()
                    .zip(&segments)
                    .all(|(p, s)| p.starts_with('{') || p == s);
            let rank: Vec<bool> = parts.iter().map(|part| part.starts_with('{')).collect();
            fits.then_some((rank, route.path.as_str()))
        })
        .min()
        .map(|(_, template)| template)
}

proptest! {
    #[test]
    fn lookup_equals_naive_reference(
        templates in proptest::collection::btree_set(
            proptest::collection::vec(prop_oneof!["[ab]", Just("{}".to_owned())], 1..4), 1..12),
        path in "(/[abc]){1,4}",
    ) {
        let decls: Vec<RouteDecl> = templates
            .iter()
            .map(|parts| {
                let parts = parts.iter().enumerate().map(|(index, part)| {
                    if part == "{}" { format!("/{{p{index}}}") } else { format!("/{part}") }
                });
                route(&["GET"], &parts.collect::<String>())
            })
            .collect();
        let catalogue = compile(&decls).unwrap();
        prop_assert_eq!(find(&catalogue, "GET", &path), reference(&decls, &path));
    }
}
