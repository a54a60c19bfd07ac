//! Words that say what a tool does.

use super::lists::{
    CHANGES, CHANGES_OR_THING, MONEY, MOVES_MONEY, MOVES_MONEY_OR_THING, READS, REMOVES,
    REMOVES_OR_THING, RUNNERS, RUNS, RUNS_OR_THING, SECRETS, THINGS, TOLD,
};
use crate::call::Risk;
use crate::permissions::{Filesystem, Network, Permissions};

/// The words of a name or a text, lower-case: `getAndDelete_all-items2` has four and `items`.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut letters = text.chars().peekable();
    let mut before = ' ';
    while let Some(letter) = letters.next() {
        let next_is_lower = letters.peek().is_some_and(|next| next.is_lowercase());
        let begins = letter.is_uppercase()
            && (before.is_lowercase() || before.is_uppercase() && next_is_lower);
        if (begins || !letter.is_alphabetic()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if letter.is_alphabetic() {
            word.extend(letter.to_lowercase());
        }
        before = letter;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What a verb says of the tool that has it in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// It is a verb wherever it stands.
    Does(Risk),
    /// It is the name of a thing, too: `commit`, `order`, `run`.
    Either(Risk),
}

impl Verb {
    pub(super) fn risk(self) -> Risk {
        let (Self::Does(risk) | Self::Either(risk)) = self;
        risk
    }
}

/// How a word stands for its verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `delete`.
    Base,
    /// `deletes`, which may be several things, too.
    Plural,
    /// `deleted`, `deleting`: what something is, more often than what is done.
    Participle,
}

/// The verb that a word is, and its form.
pub(super) fn verb(word: &str) -> Option<(Verb, Form)> {
    if let Some(verb) = base(word) {
        return Some((verb, Form::Base));
    }
    let endings = [
        ("s", Form::Plural),
        ("es", Form::Plural),
        ("ed", Form::Participle),
        ("d", Form::Participle),
        ("ing", Form::Participle),
    ];
    endings.into_iter().find_map(|(ending, form)| {
        let stem = word.strip_suffix(ending).filter(|stem| stem.len() > 2)?;
        Some((base(stem).or_else(|| longer_stem(stem, ending))?, form))
    })
}

/// `dropping` is of `drop`, `deleting` of `delete`.
fn longer_stem(stem: &str, ending: &str) -> Option<Verb> {
    let mut letters = stem.chars().rev();
    let doubled = letters.next() == letters.next();
    let single = stem.char_indices().next_back().filter(|_| doubled);
    let single = single.and_then(|(at, _)| stem.get(..at));
    single.and_then(base).or_else(|| {
        (ending == "ing")
            .then(|| base(&format!("{stem}e")))
            .flatten()
    })
}

fn base(word: &str) -> Option<Verb> {
    let tables = [
        (MOVES_MONEY, Verb::Does(Risk::Financial)),
        (MOVES_MONEY_OR_THING, Verb::Either(Risk::Financial)),
        (RUNS, Verb::Does(Risk::Execute)),
        (RUNS_OR_THING, Verb::Either(Risk::Execute)),
        (REMOVES, Verb::Does(Risk::Destructive)),
        (REMOVES_OR_THING, Verb::Either(Risk::Destructive)),
        (CHANGES, Verb::Does(Risk::Write)),
        (CHANGES_OR_THING, Verb::Either(Risk::Write)),
        (READS, Verb::Does(Risk::Read)),
    ];
    let found = tables.iter().find(|(words, _)| words.contains(&word));
    found.map(|(_, verb)| *verb)
}

/// Several words written as one: `deletefile`.
pub(super) fn compound(word: &str) -> Option<[&str; 2]> {
    if base(word).is_some() {
        return None;
    }
    THINGS.iter().find_map(|thing| {
        let first = word.strip_suffix(thing)?;
        base(first)?;
        Some([first, word.get(first.len()..)?])
    })
}

/// Two words that are one thing, and what they are read as.
pub(super) fn pair(first: &str, second: &str) -> Option<&'static str> {
    match (first, second.strip_suffix('s').unwrap_or(second)) {
        ("pull" | "merge", "request") => Some("proposal"),
        ("git", "checkout") => Some("switch"),
        ("api" | "access" | "private" | "secret" | "ssh" | "signing" | "encryption", "key")
        | ("anon" | "service" | "client", "key" | "secret") => Some("secret"),
        ("environment" | "env", "variable" | "var") => Some("env"),
        _ => None,
    }
}

/// What begins another thing that a tool does.
pub(super) fn joins(word: &str) -> bool {
    matches!(word, "and" | "or" | "then" | "plus")
}

/// Things that are money, or move it when they are changed.
pub(super) fn is_money(word: &str) -> bool {
    MONEY.contains(&singular(word)) || MOVES_MONEY_OR_THING.contains(&singular(word))
}

/// Things that run what they are given.
pub(super) fn runs_things(word: &str) -> bool {
    RUNNERS.contains(&word)
        || RUNNERS.contains(&singular(word))
        || RUNS_OR_THING.contains(&singular(word))
}

/// What opens other doors for whoever reads it.
pub(super) fn is_secret(word: &str) -> bool {
    // Several environments are places, one may be variables.
    word == "environment" || SECRETS.contains(&singular(word))
}

/// What somebody asks for who wants to know something.
pub(super) fn is_told(word: &str) -> bool {
    TOLD.contains(&word)
}

fn singular(word: &str) -> &str {
    if let Some(stem) = word.strip_suffix("sses") {
        return word.get(..stem.len().saturating_add(2)).unwrap_or(word);
    }
    word.strip_suffix('s')
        .filter(|stem| !stem.ends_with('s'))
        .unwrap_or(word)
}

/// What a word of the name or of an argument's name says about reach.
pub(super) fn reach(word: &str) -> Permissions {
    let none = Permissions::NONE;
    match word {
        "url" | "urls" | "uri" | "download" | "domain" | "slack" => Permissions {
            network: Network::External,
            ..none
        },
        "host" | "hostname" | "endpoint" | "server" | "port" | "socket" | "api" => Permissions {
            network: Network::Internal,
            ..none
        },
        "path" | "paths" | "file" | "files" | "filename" | "filepath" | "directory"
        | "directories" | "folder" | "dir" | "disk" => Permissions {
            filesystem: Filesystem::Read,
            ..none
        },
        _ => reach_of_text(word),
    }
}

/// What a word says about reach wherever it stands.
pub(super) fn reach_of_text(word: &str) -> Permissions {
    let network = match word {
        "http" | "https" | "web" | "website" | "websites" | "webpage" | "webpages" | "internet"
        | "browser" | "email" | "emails" | "mail" | "webhook" | "crawl" | "crawls" | "scrape"
        | "scrapes" | "tweet" | "sms" => Network::External,
        _ => Network::None,
    };
    Permissions {
        network,
        ..Permissions::NONE
    }
}
