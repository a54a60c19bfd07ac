//! Puts one table into a TOML text and leaves every other line as it is.

use toml::{Table, Value};

use super::{EditError, Entry};

/// Puts the entry into the table `key`, in place of what has its name.
pub(super) fn insert(text: &str, key: &str, entry: &Entry) -> Result<String, EditError> {
    let before: Table = text.parse()?;
    if own(&before, key, entry).is_some_and(|table| says(table, entry)) {
        return Ok(text.to_owned());
    }
    let header = format!("[{key}.{}]", bare(&entry.name));
    let (mut after, rest) = around(text, &header);
    if !after.is_empty() && !after.ends_with("\n\n") {
        after.push_str(if after.ends_with('\n') { "\n" } else { "\n\n" });
    }
    let arguments = entry.arguments.iter().cloned().map(Value::String);
    let arguments = Value::Array(arguments.collect());
    let command = Value::String(entry.command.clone());
    after.push_str(&format!(
        "{header}\ncommand = {command}\nargs = {arguments}\n"
    ));
    if !rest.is_empty() {
        after.push('\n');
        after.push_str(rest);
    }
    // However the text was written: it has to say what it said, and the entry.
    let read: Table = after.parse()?;
    let is_there = own(&read, key, entry).is_some_and(|table| says(table, entry));
    if is_there && without(read, key, entry) == without(before, key, entry) {
        Ok(after)
    } else {
        Err(EditError::NotTables(key.to_owned()))
    }
}

/// What stands before the table with this header, and what after it; all stands before one that is not there.
fn around<'a>(text: &'a str, header: &str) -> (String, &'a str) {
    let mut at = 0;
    let mut found = None;
    for line in text.split_inclusive('\n') {
        let is_header = line.trim_start().starts_with('[');
        match found {
            None if line.trim() == header => found = Some(at),
            Some(from) if is_header => {
                let before = text.get(..from).unwrap_or_default();
                return (before.to_owned(), text.get(at..).unwrap_or_default());
            }
            _ => {}
        }
        at += line.len();
    }
    let before = text.get(..found.unwrap_or(text.len())).unwrap_or_default();
    (before.to_owned(), "")
}

/// A name as a key: bare where it can be.
fn bare(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match !name.is_empty() && name.bytes().all(plain) {
        true => name.to_owned(),
        false => Value::from(name).to_string(),
    }
}

fn own<'a>(document: &'a Table, key: &str, entry: &Entry) -> Option<&'a Table> {
    document.get(key)?.get(&entry.name)?.as_table()
}

/// Whether a table starts what the entry starts.
fn says(table: &Table, entry: &Entry) -> bool {
    let arguments = entry.arguments.iter().cloned().map(Value::String);
    table.get("command").and_then(Value::as_str) == Some(&entry.command)
        && table.get("args") == Some(&Value::Array(arguments.collect()))
}

/// All else: what the entry's own lines said does not count.
fn without(mut document: Table, key: &str, entry: &Entry) -> Table {
    if let Some(servers) = document.get_mut(key).and_then(Value::as_table_mut) {
        if let Some(own) = servers.get_mut(&entry.name).and_then(Value::as_table_mut) {
            own.retain(|_, value| value.is_table());
        }
        servers.retain(|name, value| {
            *name != entry.name || value.as_table().is_some_and(|own| !own.is_empty())
        });
        if servers.is_empty() {
            document.remove(key);
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            command: "/a b".to_owned(),
            arguments: vec!["--x".to_owned(), "y".to_owned()],
        }
    }

    #[track_caller]
    fn check(text: &str, name: &str, expected: &str) {
        let after = insert(text, "mcp_servers", &entry(name)).unwrap();
        assert_eq!(after, expected);
        let again = insert(&after, "mcp_servers", &entry(name)).unwrap();
        assert_eq!(again, after, "done already");
    }

    const OWN: &str = "command = \"/a b\"\nargs = [\"--x\", \"y\"]\n";

    #[test]
    fn a_table_is_added_at_the_end_or_replaced_where_it_is() {
        check("", "pay", &format!("[mcp_servers.pay]\n{OWN}"));
        let before = "model = \"x\" # mine\n\n[mcp_servers.other]\ncommand = \"z\"";
        check(
            before,
            "pay",
            &format!("{before}\n\n[mcp_servers.pay]\n{OWN}"),
        );
        check(
            before,
            "a b",
            &format!("{before}\n\n[mcp_servers.\"a b\"]\n{OWN}"),
        );
        check(
            "[mcp_servers.pay]\ncommand = \"old\"\n[mcp_servers.pay.env]\nA = \"1\" # kept\n",
            "pay",
            &format!("[mcp_servers.pay]\n{OWN}\n[mcp_servers.pay.env]\nA = \"1\" # kept\n"),
        );
    }

    #[test]
    fn what_is_written_otherwise_is_refused() {
        for text in [
            "mcp_servers = { other = { command = \"z\" } }",
            "[mcp_servers]\npay = { command = \"z\" }",
            "[mcp_servers.pay]\ncommand = \"z\"\nargs = [\n[1],\n]\n",
            "mcp_servers = 1",
            "a = ",
        ] {
            assert!(
                insert(text, "mcp_servers", &entry("pay")).is_err(),
                "{text}"
            );
        }
    }
}
