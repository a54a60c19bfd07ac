//! What operators rely on: a port that says how an enforcer is, and secrets that stay where they are.

use agentca_tests::lab::{Lab, ROUTES};
use agentca_tests::program::{Said, ours};
use serde_json::Value;

/// Body and status of a GET.
fn get(lab: &Lab, path: &str) -> (String, u16) {
    let mut curl = lab.command("curl");
    let url = format!("http://{}:9464{path}", lab.ip());
    curl.args(["-sS", "-w", "\n%{http_code}", &url]);
    let said = Said::from(curl).must_succeed();
    let (body, status) = said.stdout.rsplit_once('\n').unwrap();
    (body.to_owned(), status.parse().unwrap())
}

#[test]
fn an_enforcer_says_how_it_is() {
    let lab = Lab::with_authority();
    lab.add_enforcer("edge-1");
    let ops = format!("ops_listen = \"{}:9464\"", lab.ip());
    lab.write_configuration("edge-1", &ops, ROUTES);
    let _enforcer = lab.start_enforcer("edge-1");
    let (body, status) = get(&lab, "/readyz");
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &ready["status"]), (200, &"ready".into()), "{body}");
    assert!(
        ready["witness_age_seconds"].as_u64().unwrap() < 60,
        "{body}"
    );
    assert!(ready["feed_age_seconds"].as_f64().unwrap() < 30.0, "{body}");
    assert_eq!(get(&lab, "/healthz").1, 200);
    let (metrics, _) = get(&lab, "/metrics");
    for series in [
        "feed_age_seconds ",
        "witness_age_seconds ",
        "log_records ",
        "build_info{version=",
        "certificate_not_after_seconds{certificate=\"tls\"} ",
        "certificate_not_after_seconds{certificate=\"log\"} ",
        "certificate_not_after_seconds{certificate=\"response\"} ",
    ] {
        let there = metrics.contains(&format!("\nagentca_enforcer_{series}"));
        assert!(there, "{series}: {metrics}");
    }
    assert!(!metrics.contains("knocker"), "{metrics}");
}

#[test]
fn a_secret_that_is_missing_is_found_by_a_check_and_one_that_is_there_is_never_shown() {
    let lab = Lab::with_authority();
    lab.add_enforcer("edge-1");
    let routes = format!("[upstream.credentials]\nbearer_from = \"file:secret\"\n{ROUTES}");
    lab.write_configuration("edge-1", "", &routes);
    let check = || {
        let mut check = lab.command(ours("agentca-enforcer"));
        check.args(["check", "--config", "edge-1.toml"]);
        Said::from(check)
    };
    let refused = check().must_end_with(2);
    let says = "upstream `payments`: credentials: file ";
    assert!(refused.stderr.contains(says), "{refused}");
    std::fs::write(lab.path("secret"), "hunter2\n").unwrap();
    let good = check().must_succeed();
    let agent = lab.agent("support-01");
    let enforcer = {
        let mut run = lab.command(ours("agentca-enforcer"));
        run.args(["run", "--config", "edge-1.toml"])
            .env("AGENTCA_LOG", "trace");
        let mut enforcer = lab.launch_enforcer_by("edge-1", run);
        lab.wait_until_serving(&mut enforcer);
        enforcer
    };
    let mut tls = enforcer.connect(&agent).unwrap();
    let answer = tls.get("/v1/accounts/7").unwrap();
    assert_eq!(answer.status, 200);
    drop(tls);
    let printed = std::fs::read_to_string(lab.path("edge-1.txt")).unwrap();
    for place in [&printed, &good.stdout, &good.stderr] {
        assert!(!place.contains("hunter2"), "{place}");
    }
}
