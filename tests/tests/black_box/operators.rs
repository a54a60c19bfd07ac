//! What operators rely on: a port that says how an enforcer is, and secrets that stay where they are.

use agentca_tests::lab::{Lab, ROUTES};
use agentca_tests::program::{Program, Said, ours};
use agentca_tests::wait;
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

/// Starts a program with its log for machines, and gives what it wrote up to `word`.
fn logged(lab: &Lab, program: &str, arguments: &[&str], word: &str) -> (Program, String) {
    let mut command = lab.command(ours(program));
    command.args(arguments).args(["--log-format", "json"]);
    let mut running = Program::start(program, command, lab.path(&format!("{program}.json")));
    let printed = wait::until("its log says so", || {
        running.must_be_running();
        let printed = running.printed();
        let (whole, _) = printed.rsplit_once('\n')?;
        whole.contains(word).then(|| whole.to_owned())
    });
    (running, printed)
}

#[test]
fn every_program_that_stays_writes_its_log_for_machines_when_asked() {
    let lab = Lab::new();
    let (grpc, http) = (lab.grpc().to_string(), lab.http().to_string());
    let serve = [
        "serve",
        "--data",
        "pki",
        "--listen",
        &grpc,
        "--http-listen",
        &http,
    ];
    let (_authority, of_authority) = logged(&lab, "agentca", &serve, "ready");
    lab.add_enforcer("edge-1");
    lab.write_configuration("edge-1", "", ROUTES);
    let run = ["run", "--config", "edge-1.toml"];
    let (_enforcer, of_enforcer) = logged(&lab, "agentca-enforcer", &run, "serving");
    lab.agent_with("support-01", &[]);
    let url = format!("https://{}:8443/mcp/bank", lab.ip());
    let connect = [
        "connect",
        "--http",
        "127.0.0.1:0",
        &url,
        "--credentials",
        "support-01",
    ];
    let (_bridge, of_bridge) = logged(&lab, "agentca-sidecar", &connect, "the enforcer");
    // What the bridge prints is no log.
    let lines = [&of_authority, &of_enforcer, &of_bridge].into_iter();
    let lines = lines.flat_map(|log| log.lines());
    for line in lines.filter(|line| !line.starts_with("http://127.0.0.1:")) {
        let read: Result<Value, _> = serde_json::from_str(line);
        assert!(read.is_ok_and(|line| line["level"].is_string()), "{line}");
    }
}

#[test]
fn a_refused_reload_is_told_where_people_look() {
    let lab = Lab::with_authority();
    lab.add_enforcer("edge-1");
    let configure = |settings: &str| lab.write_configuration("edge-1", settings, ROUTES);
    let ask = |words: &[&str]| {
        let mut ask = lab.command(ours("agentca-enforcer"));
        ask.args(words).args(["--config", "edge-1.toml"]);
        Said::from(ask).must_succeed()
    };
    let refused = |when: &str| {
        wait::until(when, || {
            let said = ask(&["check"]).stderr;
            let told = said.contains("refused the last reload");
            (told && said.contains("`disclosures` changed")).then_some(())
        });
    };
    configure("");
    let enforcer = lab.start_enforcer("edge-1");
    assert_eq!(ask(&["check"]).stderr, "");
    configure("disclosures = \"keep\"");
    refused("the first refusal");
    let listed = ask(&["catalogue", "list", "--json"]);
    assert!(
        listed.stderr.contains("refused the last reload"),
        "{listed}"
    );
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let why = listed["reload_refused"]["why"].as_str().unwrap();
    assert!(why.contains("`disclosures` changed"), "{listed}");
    configure("");
    wait::until("what it said is taken", || {
        ask(&["check"]).stderr.is_empty().then_some(())
    });
    configure("disclosures = \"keep\"");
    refused("the second refusal");
    // Nobody tidies up after this end.
    enforcer.program.kill();
    assert!(lab.path("edge-1-data/reload-refused.json").exists());
    assert_eq!(ask(&["check"]).stderr, "");
}
