//! Words that say what a tool does.

use crate::call::Risk;
use crate::permissions::{CodeExecution, Filesystem, Network, Permissions};

/// The words of a name or a text, lower-case: `getAndDelete_all-items2` has six.
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

const DESTRUCTIVE: &[&str] = &[
    "delete",
    "del",
    "remove",
    "rm",
    "drop",
    "purge",
    "destroy",
    "wipe",
    "revoke",
    "kill",
    "truncate",
    "erase",
    "clear",
    "cancel",
    "terminate",
    "uninstall",
    "unlink",
    "discard",
    "overwrite",
    "reset",
    "format",
    "shred",
    "ban",
    "deactivate",
    "disable",
    "prune",
    "evict",
    "expire",
    "unpublish",
    "detach",
    "stop",
    "shutdown",
    "rollback",
    "revert",
    "abort",
    "flush",
];

const EXECUTE: &[&str] = &[
    "run",
    "exec",
    "execute",
    "eval",
    "evaluate",
    "shell",
    "spawn",
    "command",
    "cmd",
    "script",
    "bash",
    "sh",
    "powershell",
    "terminal",
    "invoke",
    "launch",
    "python",
    "javascript",
    "compile",
    "sql",
    "ssh",
    "sudo",
    "system",
    "deploy",
    "code",
];

const FINANCIAL: &[&str] = &[
    "pay",
    "payment",
    "payments",
    "payout",
    "transfer",
    "refund",
    "charge",
    "invoice",
    "withdraw",
    "withdrawal",
    "buy",
    "sell",
    "purchase",
    "order",
    "trade",
    "checkout",
    "billing",
    "bill",
    "debit",
    "credit",
    "wire",
    "remit",
    "donate",
    "deposit",
    "subscribe",
    "capture",
    "settle",
    "reimburse",
    "tip",
    "bid",
];

const WRITE: &[&str] = &[
    "create",
    "update",
    "set",
    "put",
    "post",
    "send",
    "add",
    "insert",
    "write",
    "edit",
    "upload",
    "merge",
    "approve",
    "patch",
    "modify",
    "change",
    "save",
    "store",
    "move",
    "rename",
    "copy",
    "append",
    "publish",
    "register",
    "assign",
    "grant",
    "invite",
    "comment",
    "reply",
    "close",
    "open",
    "enable",
    "toggle",
    "submit",
    "push",
    "commit",
    "import",
    "sync",
    "schedule",
    "book",
    "sign",
    "upsert",
    "replace",
    "make",
    "new",
    "generate",
    "apply",
    "configure",
    "install",
    "start",
    "attach",
    "link",
    "share",
    "tag",
    "label",
    "mark",
    "archive",
    "restore",
    "fork",
    "reject",
    "accept",
    "confirm",
    "email",
    "mail",
    "message",
    "notify",
    "call",
    "click",
    "type",
    "fill",
    "press",
    "navigate",
];

const READ: &[&str] = &[
    "get",
    "list",
    "read",
    "search",
    "find",
    "fetch",
    "describe",
    "show",
    "query",
    "count",
    "view",
    "lookup",
    "look",
    "check",
    "inspect",
    "browse",
    "retrieve",
    "stat",
    "status",
    "help",
    "echo",
    "ping",
    "info",
    "summarize",
    "summarise",
    "explain",
    "compare",
    "diff",
    "validate",
    "verify",
    "download",
    "export",
    "preview",
    "whoami",
    "version",
    "health",
    "observe",
    "watch",
    "resolve",
    "calculate",
    "convert",
    "translate",
    "analyze",
    "analyse",
    "suggest",
    "print",
    "head",
    "tail",
    "cat",
    "ls",
    "grep",
    "history",
    "discover",
    "estimate",
    "exists",
    "is",
    "has",
];

/// What a word of a name says; none when it is no known verb.
pub(super) fn in_name(word: &str) -> Option<Risk> {
    let classes = [
        (FINANCIAL, Risk::Financial),
        (EXECUTE, Risk::Execute),
        (DESTRUCTIVE, Risk::Destructive),
        (WRITE, Risk::Write),
        (READ, Risk::Read),
    ];
    let class = classes.iter().find(|(words, _)| is_among(word, words));
    let hidden = || {
        classes
            .iter()
            .take(3)
            .find(|(words, _)| hides_in(word, words))
    };
    class.or_else(hidden).map(|(_, risk)| *risk)
}

/// What an argument's name says besides.
pub(super) fn in_schema(word: &str) -> Option<Risk> {
    match word {
        "sql" | "command" | "cmd" | "code" | "script" | "shell" | "argv" | "expression" => {
            Some(Risk::Execute)
        }
        "amount" | "currency" | "iban" | "price" | "payee" | "payer" | "cents" | "wallet" => {
            Some(Risk::Financial)
        }
        "overwrite" | "force" | "delete" | "purge" => Some(Risk::Destructive),
        "content" | "body" | "payload" => Some(Risk::Write),
        _ => None,
    }
}

/// What a description's word says: only verbs that hardly stand there by chance.
pub(super) fn in_text(word: &str) -> Option<Risk> {
    match word {
        "pays" | "refund" | "refunds" | "withdraws" | "purchases" | "payout" => {
            Some(Risk::Financial)
        }
        "executes" | "execute" | "executing" | "eval" | "evaluates" | "shell" => {
            Some(Risk::Execute)
        }
        "delete" | "deletes" | "deleting" | "deleted" | "remove" | "removes" | "removing"
        | "destroy" | "destroys" | "erase" | "erases" | "wipe" | "wipes" | "purge" | "purges"
        | "drop" | "drops" | "truncate" | "truncates" | "revoke" | "revokes" | "overwrite"
        | "overwrites" | "destructive" | "irreversible" | "irreversibly" | "permanently" => {
            Some(Risk::Destructive)
        }
        "create" | "creates" | "creating" | "update" | "updates" | "updating" | "modify"
        | "modifies" | "write" | "writes" | "writing" | "send" | "sends" | "sending" | "insert"
        | "inserts" | "upload" | "uploads" | "edit" | "edits" | "add" | "adds" | "publish"
        | "publishes" => Some(Risk::Write),
        _ => None,
    }
}

/// What a word says about reach.
pub(super) fn reach(word: &str) -> Permissions {
    let none = Permissions::NONE;
    match word {
        "url" | "uri" | "http" | "https" | "web" | "website" | "webpage" | "internet"
        | "browser" | "email" | "mail" | "webhook" | "download" | "crawl" | "scrape" | "domain"
        | "tweet" | "slack" | "sms" => Permissions {
            network: Network::External,
            ..none
        },
        "host" | "hostname" | "endpoint" | "server" | "port" | "socket" | "api" => Permissions {
            network: Network::Internal,
            ..none
        },
        "path" | "file" | "files" | "filename" | "filepath" | "directory" | "folder" | "dir"
        | "disk" => Permissions {
            filesystem: Filesystem::Read,
            ..none
        },
        "code" | "script" | "command" | "cmd" | "shell" | "eval" | "exec" | "bash" | "python"
        | "javascript" => Permissions {
            code_execution: CodeExecution::Unrestricted,
            ..none
        },
        _ => none,
    }
}

/// Also in the forms that a verb takes: `deletes`, `deleted`, `deleting`.
fn is_among(word: &str, words: &[&str]) -> bool {
    let known = |stem: &str| words.contains(&stem);
    if known(word) {
        return true;
    }
    ["s", "es", "ed", "d", "ing"].iter().any(|ending| {
        word.strip_suffix(ending).is_some_and(|stem| {
            let doubled = stem.char_indices().next_back().filter(|(at, last)| {
                stem.get(..*at)
                    .is_some_and(|before| before.ends_with(*last))
            });
            let single = doubled.and_then(|(at, _)| stem.get(..at));
            stem.len() > 2
                && (known(stem)
                    || single.is_some_and(known)
                    || (*ending == "ing" && known(&format!("{stem}e"))))
        })
    })
}

/// Whether a word that is none of its own is several written together: `deletefile`.
fn hides_in(word: &str, words: &[&str]) -> bool {
    const LONG_ENOUGH: usize = 5;
    words
        .iter()
        .any(|known| known.len() >= LONG_ENOUGH && word.contains(known))
}
