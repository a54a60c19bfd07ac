//! The story, in order: authority, agents, enforcer, calls, tools, a revocation in the middle of a stream, the logs.

mod calls;
mod ending;
mod opening;
mod tools;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::Error;
use crate::agents::{DESK, GOOD, SHORT_LIFETIME};
use crate::caller::Caller;
use crate::mcp_server::McpServer;
use crate::place::Place;
use crate::programs::{Stage, asked_to_stop, free_ports};
use crate::upstream::Upstream;

/// A story that was told to its end: where it happened.
pub(crate) struct Told {
    url: String,
    enforcer: SocketAddr,
}

/// Tells it all; with `stay`, comes back only when asked to stop.
pub(crate) async fn tell(place: &Place, stage: &mut Stage, stay: bool) -> Result<Told, Error> {
    let [authority, http, enforcer] = free_ports()?;
    let url = format!("https://{authority}");
    println!("Everything lies in {}\n", place.root().display());

    opening::open_authority(stage, authority, http).await?;
    opening::issue_agents(stage, &url).await?;
    let issued = Instant::now();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let upstream = Upstream::bind(any_port).await?;
    let desk = McpServer::bind(any_port, 1).await?;
    let maker = desk.maker();
    let addresses = opening::Addresses {
        authority: url.clone(),
        enforcer,
        payments: upstream.address(),
        tickets: desk.address(),
    };
    let serving = tokio::spawn(async { tokio::join!(upstream.serve(), desk.serve()) });
    opening::scan_tools(stage, addresses.tickets).await?;
    println!("  its maker adds a tool now, `export_customers`, which nobody has approved");
    maker.publish(2);
    opening::open_enforcer(place, stage, &addresses).await?;
    // The short-lived certificate ends while the rest is prepared, or a moment later.
    tokio::time::sleep_until((issued + SHORT_LIFETIME + Duration::from_secs(1)).into()).await;
    let root = place.path(GOOD).join("ca.crt");
    let good = Caller::new(enforcer, &place.path(GOOD), &root)?;
    calls::wait_until_serving(stage, &good).await?;

    println!("Agents call ...\n");
    println!("{}", calls::everybody_calls(place, enforcer, &root).await?);
    tools::tell(place, stage, &addresses, &maker).await?;
    ending::revoke_in_mid_stream(stage, &good, &url).await?;
    ending::verify_logs(stage).await?;
    let told = Told { url, enforcer };
    if stay {
        told.go_on_by_hand(place, stage);
        tokio::select! {
            stopped = asked_to_stop() => stopped?,
            failed = watch(stage) => failed?,
        }
    }
    serving.abort();
    Ok(told)
}

impl Told {
    /// While everything is still running.
    fn go_on_by_hand(&self, place: &Place, stage: &Stage) {
        println!(
            "Everything is still running; Ctrl-C ends it. Go on by hand, in another terminal:\n"
        );
        self.print_surroundings(place, stage);
        self.print_live_commands();
        print_offline_commands();
    }

    /// When everything has ended: what was left behind can be looked at.
    pub(crate) fn go_on_without_it(&self, place: &Place, stage: &Stage) {
        println!(
            "Everything has ended; `--stay` leaves it running. What is left can be looked at by hand:\n"
        );
        self.print_surroundings(place, stage);
        print_offline_commands();
        println!("With `--stay`, which prints them with its own ports, also:\n");
        self.print_live_commands();
    }

    fn print_surroundings(&self, place: &Place, stage: &Stage) {
        let root = place.root().display();
        println!("  cd {root}");
        println!(
            "  export PATH=\"{}:$PATH\" XDG_CONFIG_HOME=\"{root}/config\" AGENTCA_URL={}",
            stage.programs().display(),
            self.url
        );
    }

    fn print_live_commands(&self) {
        println!("  agentca agent list");
        println!("  agentca reinstate {GOOD}");
        println!("  agentca issue {GOOD} --out {GOOD} --force");
        println!(
            "  curl -i --cert {GOOD}/agent.crt --key {GOOD}/agent.key --cacert {GOOD}/ca.crt https://localhost:{}/v1/accounts/7",
            self.enforcer.port()
        );
        println!(
            "  agentca-sidecar check https://localhost:{}/mcp/tickets --credentials {DESK}",
            self.enforcer.port()
        );
        println!("  agentca-enforcer catalogue list --config enforcer.toml");
        println!();
    }
}

/// These need nobody but the files.
fn print_offline_commands() {
    println!("  agentca inspect {GOOD}");
    println!("  agentca log show edge-1-data/log");
    println!("  agentca log verify edge-1-data/log --root {GOOD}/ca.crt\n");
}

/// Comes back only when a program has ended.
async fn watch(stage: &mut Stage) -> Result<(), Error> {
    loop {
        stage.check()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
