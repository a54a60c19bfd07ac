//! The printed table and `BENCHMARKS.md`.

use std::fmt::Write as _;

/// Which way a bar is met.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// The figure must not be below.
    AtLeast(f64),
    /// The figure must not be above.
    AtMost(f64),
}

/// A figure that has to be reached.
pub(crate) struct Bar {
    what: String,
    measured: f64,
    bound: Bound,
    aim: Option<f64>,
    unit: &'static str,
}

impl Bar {
    /// `what` came out as `measured` and has to be within `bound`.
    pub(crate) fn new(what: &str, measured: f64, bound: Bound, unit: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            measured,
            bound,
            aim: None,
            unit,
        }
    }

    /// What one would like to reach beyond the bar.
    pub(crate) fn aiming(mut self, aim: f64) -> Self {
        self.aim = Some(aim);
        self
    }

    fn met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(least) => self.measured >= least,
            Bound::AtMost(most) => self.measured <= most,
        }
    }

    fn row(&self) -> String {
        let (sign, limit) = match self.bound {
            Bound::AtLeast(least) => ("≥", least),
            Bound::AtMost(most) => ("≤", most),
        };
        let verdict = if self.met() { "met" } else { "**missed**" };
        let aim = self.aim.map_or_else(|| "–".to_owned(), number);
        let (measured, limit, unit) = (number(self.measured), number(limit), self.unit);
        format!(
            "| {} | {measured} {unit} | {sign} {limit} {unit} | {aim} | {verdict} |",
            self.what
        )
    }
}

/// A table of Markdown.
pub(crate) struct Table {
    text: String,
}

impl Table {
    /// With these column heads.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let rule = "|---".repeat(columns.len());
        Self {
            text: format!("| {} |\n{rule}|\n", columns.join(" | ")),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: &[String]) {
        self.text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

/// One part of the benchmark: prose, tables, and its bars.
pub(crate) struct Section {
    title: &'static str,
    text: String,
    bars: Vec<Bar>,
}

impl Section {
    /// An empty section.
    pub(crate) fn new(title: &'static str) -> Self {
        Self {
            title,
            text: String::new(),
            bars: Vec::new(),
        }
    }

    /// Adds a paragraph.
    pub(crate) fn say(&mut self, prose: impl AsRef<str>) {
        self.text.push_str(prose.as_ref());
        self.text.push_str("\n\n");
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, table: Table) {
        self.text.push_str(&table.text);
        self.text.push('\n');
    }

    /// Adds a bar.
    pub(crate) fn bar(&mut self, bar: Bar) {
        self.bars.push(bar);
    }
}

/// The whole document.
pub(crate) fn document(facts: &[String], sections: &[Section]) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    text.push_str(
        "Written by `tests/bench/run`. The server under test has one pinned core, the load \
         generator and the upstream another; sides take turns within every round, and figures \
         are medians over the rounds. Read them as ratios.\n\n",
    );
    for fact in facts {
        text.push_str(&format!("- {fact}\n"));
    }
    text.push_str("\n## Bars\n\n| what | measured | bar | aim | |\n|---|---|---|---|---|\n");
    for bar in sections.iter().flat_map(|section| &section.bars) {
        text.push_str(&bar.row());
        text.push('\n');
    }
    for section in sections {
        // Writing to a string does not fail.
        let _ = write!(text, "\n## {}\n\n{}", section.title, section.text);
    }
    let mut text = text.trim_end().to_owned();
    text.push('\n');
    text
}

/// A figure with as many places as its size is worth: `44,100`, `12.3`, `0.45`.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 1000.0 {
        return format!("{value:.1}");
    }
    grouped(&format!("{value:.0}"))
}

/// How many of something: `10`, `5,000`.
pub(crate) fn count(value: usize) -> String {
    grouped(&value.to_string())
}

fn grouped(digits: &str) -> String {
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
