//! What the names of a tool's arguments say.

use serde_json::Value;

use super::Class;
use super::words;
use crate::call::Risk;

/// The words of each argument's name, however deep.
pub(super) fn arguments(schema: Option<&Value>) -> Vec<Vec<String>> {
    fn walk(schema: &Value, found: &mut Vec<Vec<String>>) {
        match schema {
            Value::Object(members) => {
                if let Some(Value::Object(properties)) = members.get("properties") {
                    found.extend(properties.keys().map(|name| words::split(name)));
                }
                members.values().for_each(|member| walk(member, found));
            }
            Value::Array(members) => members.iter().for_each(|member| walk(member, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Some(schema) = schema {
        walk(schema, &mut found);
    }
    found
}

/// What an argument says, never that something only reads.
pub(super) fn sign(argument: &[String]) -> Option<Class> {
    let before = [""].into_iter().chain(argument.iter().map(String::as_str));
    let pairs = before.zip(argument);
    let signs = pairs.filter_map(|(before, word)| {
        let risk = of_word(before, word)?;
        let name = argument.join("_");
        Some(Class::new(risk, format!("it takes the argument `{name}`")))
    });
    super::worst(signs)
}

fn of_word(before: &str, word: &str) -> Option<Risk> {
    match word {
        "code" if NO_PROGRAM.contains(&before) => None,
        "expression" if matches!(before, "cron" | "regular" | "filter" | "search") => None,
        "sql" | "command" | "commands" | "cmd" | "code" | "script" | "shell" | "argv"
        | "expression" => Some(Risk::Execute),
        // A bound of a search moves nothing.
        "amount" | "price" if matches!(before, "min" | "max" | "minimum" | "maximum") => None,
        "amount" | "currency" | "iban" | "price" | "payee" | "payer" | "cents" | "wallet" => {
            Some(Risk::Financial)
        }
        "overwrite" | "force" | "delete" | "purge" => Some(Risk::Destructive),
        "content" | "body" | "payload" => Some(Risk::Write),
        _ => None,
    }
}

/// `country_code` and the like.
const NO_PROGRAM: &[&str] = &[
    "country", "zip", "postal", "post", "status", "error", "area", "currency", "language", "exit",
    "promo", "coupon", "discount", "qr", "bar", "airport", "state", "region", "product", "auth",
];
