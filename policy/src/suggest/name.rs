//! What a tool's name says: its verbs first, then the things that it names.

use super::words::{self, Form, Verb};
use super::{Class, worst};
use crate::call::Risk;

/// What a name says.
#[derive(Debug, Default)]
pub(super) struct NameSays {
    /// Every sign; none when the name has no word that says what the tool does.
    pub(super) signs: Vec<Class>,
    /// A word that names what opens other doors.
    pub(super) secret: Option<String>,
}

/// Reads a name.
pub(super) fn read(name: &str) -> NameSays {
    let words = merged(&words::split(name));
    let mut says = NameSays::default();
    for (number, clause) in words.split(|word| words::joins(word)).enumerate() {
        let signs = of_clause(clause);
        // What is done besides may be anything; several things are more of the same.
        let last = clause
            .last()
            .filter(|last| number > 0 && !last.ends_with('s'));
        if let (true, Some(last)) = (signs.is_empty(), last) {
            let reason = format!("the name says `{last}` besides, which may be anything");
            says.signs.push(Class::new(Risk::Write, reason));
        }
        says.signs.extend(signs);
    }
    says.secret = words.into_iter().find(|word| words::is_secret(word));
    says
}

/// Words written together are taken apart, two words for one thing are put together.
fn merged(words: &[String]) -> Vec<String> {
    let mut merged: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        let parts = words::compound(word).map_or_else(|| vec![word.as_str()], Vec::from);
        for part in parts {
            match merged.last().and_then(|last| words::pair(last, part)) {
                Some(one) => {
                    merged.pop();
                    merged.push(one.to_owned());
                }
                None => merged.push(part.to_owned()),
            }
        }
    }
    merged
}

fn of_clause(clause: &[String]) -> Vec<Class> {
    let mut signs = verbs(clause);
    let worst_verb = worst(signs.iter().cloned()).map(|class| class.risk);
    let changes = worst_verb.is_none_or(|risk| risk >= Risk::Write);
    let runs = worst_verb.is_none_or(|risk| risk == Risk::Write);
    for word in clause {
        let said = format!("the name says `{word}`");
        if changes && words::is_money(word) {
            signs.push(Class::new(Risk::Financial, said));
        } else if runs && words::runs_things(word) {
            signs.push(Class::new(Risk::Execute, said));
        }
    }
    if signs.is_empty()
        && let Some(told) = clause.last().filter(|last| words::is_told(last))
    {
        let reason = format!("the name ends with `{told}`");
        signs.push(Class::new(Risk::Read, reason));
    }
    signs
}

/// The verbs of a clause. Behind a verb a word that may be a thing is one: `list_commits`,
/// `cancel_run`. Other forms than the base count where there is no base.
fn verbs(clause: &[String]) -> Vec<Class> {
    let mut signs = Vec::new();
    let mut forms = Vec::new();
    for (at, word) in clause.iter().enumerate() {
        let class = |verb: Verb| Class::new(verb.risk(), format!("the name says `{word}`"));
        match words::verb(word) {
            Some((Verb::Either(_), Form::Base)) if !signs.is_empty() => {}
            Some((verb, Form::Base)) => signs.push(class(verb)),
            // `dropping_tables` drops; a `long_running_task` only lasts.
            Some((verb, Form::Participle)) if at == 0 => forms.push(class(verb)),
            Some((verb @ Verb::Does(_), Form::Plural)) => forms.push(class(verb)),
            Some((_, Form::Plural | Form::Participle)) | None => {}
        }
    }
    if signs.is_empty() { forms } else { signs }
}
