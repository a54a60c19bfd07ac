//! What a tool's title and description say is done: verbs in their places, not words that stand
//! there by chance (`running`, `deleted items`) or are denied (`never deletes`).

use super::Class;
use super::words;
use crate::call::Risk;

/// Every sign, never that something only reads.
pub(super) fn signs(text: &str) -> Vec<Class> {
    let sentences = text.split(['.', ';', ':', '!', '?', '\n', '(']);
    sentences.flat_map(of_sentence).collect()
}

fn of_sentence(sentence: &str) -> Vec<Class> {
    let words = words::split(sentence);
    let mut signs = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let before = words.get(..at).unwrap_or_default();
        let near = before.iter().rev().take(NEAR);
        if near.into_iter().any(|word| DENIES.contains(&word.as_str())) {
            continue;
        }
        let told = |verb: &&(&str, Risk)| {
            let is_base = verb.0 == word && is_verb_place(before);
            let third = word.strip_suffix('s');
            is_base
                || third == Some(verb.0)
                || third.and_then(|s| s.strip_suffix('e')) == Some(verb.0)
        };
        if let Some((_, risk)) = VERBS.iter().find(told) {
            let reason = format!("the description says `{word}`");
            signs.push(Class::new(*risk, reason));
        }
    }
    signs
}

/// Where a sentence has its verb: at its beginning, and behind these.
fn is_verb_place(before: &[String]) -> bool {
    before.last().is_none_or(|last| {
        matches!(
            last.as_str(),
            "and" | "or" | "then" | "to" | "will" | "can" | "may" | "also" | "permanently"
        )
    })
}

/// Words before a verb among which it may be denied.
const NEAR: usize = 3;
const DENIES: &[&str] = &[
    "not", "never", "no", "without", "cannot", "nothing", "t", "instead", "neither", "nor",
];

const VERBS: &[(&str, Risk)] = &[
    ("pay", Risk::Financial),
    ("refund", Risk::Financial),
    ("withdraw", Risk::Financial),
    ("purchase", Risk::Financial),
    ("execute", Risk::Execute),
    ("eval", Risk::Execute),
    ("evaluate", Risk::Execute),
    ("delete", Risk::Destructive),
    ("remove", Risk::Destructive),
    ("destroy", Risk::Destructive),
    ("erase", Risk::Destructive),
    ("wipe", Risk::Destructive),
    ("purge", Risk::Destructive),
    ("drop", Risk::Destructive),
    ("truncate", Risk::Destructive),
    ("revoke", Risk::Destructive),
    ("overwrite", Risk::Destructive),
    ("create", Risk::Write),
    ("update", Risk::Write),
    ("modify", Risk::Write),
    ("modifie", Risk::Write),
    ("write", Risk::Write),
    ("send", Risk::Write),
    ("insert", Risk::Write),
    ("upload", Risk::Write),
    ("edit", Risk::Write),
    ("add", Risk::Write),
    ("publish", Risk::Write),
];
