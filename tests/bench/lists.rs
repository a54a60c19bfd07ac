//! A long list of tools, filtered: what that costs beside passing the same bytes.
//!
//! The filter cannot be called from outside. An enforcer gives the same list twice: as the answer to
//! `tools/list`, and as what a route of plain HTTP answers. Both read it whole, record, and sign; what
//! is between them is reading the request and the list, and filtering.

use std::path::Path;
use std::time::Duration;

use crate::Outcome;
use crate::connections::Target;
use crate::load::{Round, Shape, Window, round};
use crate::mcp::{
    Bank, EVERY_OTHER, EVERYTHING, NO_TOOL, RESPELLED, REWRITTEN, ask_once, await_text, list,
    plain_list,
};
use crate::process::Core;
use crate::report::{Bar, Bound, Section, Table, count, number};
use crate::setup::Setup;
use crate::stats::{median, median_of};
use crate::tls::{Speaks, client};

/// One way to ask for the list.
struct Way {
    name: String,
    target: Target,
    /// Bytes and tools of its answer.
    bytes: usize,
    tools: usize,
    rounds: Vec<Round>,
}

/// How the ways are called that the bar is about, and what it says of them.
const JUDGED: [(&str, &str); 2] = [
    ("may use all, as before", "as it was listed before"),
    ("may use all, another page", "in a page never read"),
];

/// Measures with a list of `tools`.
pub(crate) async fn measure(
    work: &Path,
    programs: &Path,
    rounds: usize,
    share: f64,
    tools: usize,
) -> Outcome<Section> {
    let setup = Setup::create(work, programs, Core::Load)?;
    let bank = Bank::open(&setup, tools)?;
    let listen = bank.add_enforcer("edge-1", "prod", &setup.dir.join("edge-1-data"))?;
    let enforcer = setup.start_enforcer("edge-1", listen, Core::Server)?;
    let nobody = client(
        setup.issue_with("listing-none", "prod", &[NO_TOOL])?,
        Speaks::Http1,
    )?;
    let plain = Target::asking(listen, Some(nobody.clone()), plain_list(listen));
    let mut all = vec![Way::new("plain HTTP, the same bytes".to_owned(), plain).await?];
    let agents = [
        ("all", EVERYTHING, tools),
        ("half", EVERY_OTHER, tools.div_ceil(2)),
        ("none", NO_TOOL, 0),
    ];
    for (name, scope, expected) in agents {
        let agent = setup.issue_with(&format!("list-{name}"), "prod", &[scope])?;
        let tls = client(agent, Speaks::Http1)?;
        for (when, cursor) in [
            ("as before", None),
            ("another page", Some(REWRITTEN)),
            ("never read before", Some(RESPELLED)),
        ] {
            let target = Target::asking(listen, Some(tls.clone()), list(listen, cursor));
            let way = Way::new(format!("may use {name}, {when}"), target).await?;
            if way.tools != expected {
                return Err(format!("{} shows {} tools", way.name, way.tools).into());
            }
            all.push(way);
        }
    }
    let window = Window {
        warm: Duration::from_secs_f64(0.5 * share),
        measure: Duration::from_secs_f64(2.0 * share),
    };
    for turn in 0..rounds {
        for way in &mut all {
            eprintln!("lists, round {turn}: {}", way.name);
            let done = round(&way.target, enforcer.id(), Shape::KeptAlive, 1, window).await?;
            way.rounds.push(done);
        }
    }
    enforcer.stop()?;
    Ok(section(&all, tools))
}

impl Way {
    async fn new(name: String, target: Target) -> Outcome<Self> {
        let mut target = await_text(target, r#""resultType":"complete""#).await?;
        let answer = ask_once(&target).await?;
        if name.contains("another") || name.contains("never") {
            // No two of them are alike.
            target.body_length = None;
        }
        Ok(Self {
            name,
            target,
            bytes: answer.len(),
            tools: answer.matches("_find\"").count(),
            rounds: vec![],
        })
    }

    /// Milliseconds over what `base` takes: of latency (p50) and of the enforcer's CPU.
    fn beyond(&self, base: &Self) -> (f64, f64) {
        let pairs = || self.rounds.iter().zip(&base.rounds);
        let latency: Vec<f64> = pairs()
            .map(|(own, base)| own.p50_us - base.p50_us)
            .collect();
        let cpu: Vec<f64> = pairs()
            .map(|(own, base)| own.cpu_us - base.cpu_us)
            .collect();
        (median(&latency) / 1000.0, median(&cpu) / 1000.0)
    }
}

fn section(all: &[Way], tools: usize) -> Section {
    let mut section = Section::new("Long lists");
    let all_of_them = count(tools);
    section.say(format!(
        "`tools/list` of a server with {all_of_them} tools, one connection, one request after the other, \
         beside a route of plain HTTP of the same enforcer for the same bytes. Both answers are read \
         whole, recorded, and signed. \"Beyond\" is the difference to plain HTTP, taken in each round, the \
         median over the rounds: reading the message and the list, and filtering; whoever may use less is sent \
         fewer bytes. As before: the server's list is one that the enforcer read earlier. Another page: \
         the same tools as they were, in a page that was never read. Never read before: the server writes \
         each tool in another way each time, so that all of it is read, every definition's digest is taken \
         and held against its pin."
    ));
    let mut table = Table::new(&[
        "agent, list",
        "tools",
        "KiB",
        "p50 ms",
        "CPU ms",
        "p50 beyond, ms",
        "CPU beyond, ms",
    ]);
    let Some(plain) = all.first() else {
        return section;
    };
    for way in all {
        let (latency, cpu) = way.beyond(plain);
        table.row(&[
            way.name.clone(),
            count(way.tools),
            number(way.bytes as f64 / 1024.0),
            number(median_of(&way.rounds, |round| round.p50_us) / 1000.0),
            number(median_of(&way.rounds, |round| round.cpu_us) / 1000.0),
            number(latency),
            number(cpu),
        ]);
        if let Some((_, how)) = JUDGED.iter().find(|(name, _)| *name == way.name) {
            let what =
                format!("a list of {all_of_them} tools filtered, {how}, CPU beyond plain HTTP");
            section.bar(Bar::new(&what, cpu, Bound::AtMost(1.0), "ms"));
        }
    }
    section.table(table);
    section
}
