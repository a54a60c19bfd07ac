//! What a tool was called with, as the record of the call has it: the names that the pinned schema
//! declares, and commitments to what was handed over under them ([`agentca_auditlog::disclosure`]).

use std::sync::Arc;

use agentca_auditlog::disclosure::{ArgumentSalts, Commitment, Discloser, REST, is_shown};
use agentca_policy::Tool;
use agentca_policy::json::in_utf16;

use crate::config::DisclosedValues;
use crate::jsonrpc::Members;

/// The arguments of one call, committed to.
#[derive(Debug)]
pub(crate) struct Arguments {
    tool: Arc<Tool>,
    /// Places among the names that the tool declares, in their order.
    shown: Vec<(usize, Commitment)>,
    /// To all others at once.
    rest: Option<Commitment>,
    disclosures: Vec<String>,
}

impl Arguments {
    /// Commits to arguments, `text` being the object as it was read; none when there are none, or
    /// nothing is pinned that would say which have a name.
    pub(crate) fn commit(
        tool: &Arc<Tool>,
        text: &str,
        salt: &[u8; 16],
        values: DisclosedValues,
    ) -> Option<Self> {
        let declared = &tool.pinned.as_ref()?.arguments;
        let members = Members::of(text)?;
        let (mut shown, mut rest) = (Vec::new(), Vec::new());
        for (name, value) in members.iter() {
            match declared.binary_search_by(|known| in_utf16(known, name)) {
                Ok(place) if is_shown(name) => shown.push((place, name, value)),
                _ => rest.push((name, value)),
            }
        }
        shown.sort_unstable_by_key(|(place, _, _)| *place);
        let more = shown.drain(SHOWN.min(shown.len())..);
        rest.extend(more.map(|(_, name, value)| (name, value)));
        if shown.is_empty() && rest.is_empty() {
            return None;
        }
        let salts = ArgumentSalts::of(salt);
        let (mut discloser, mut disclosures) = (Discloser::default(), Vec::new());
        let mut commit = |disclosure: &str| {
            if values == DisclosedValues::Keep {
                disclosures.push(disclosure.to_owned());
            }
            Commitment::to(disclosure)
        };
        let shown = shown.into_iter().map(|(place, name, value)| {
            let disclosure = discloser.argument(&salts.argument(name), name, value);
            (place, commit(disclosure))
        });
        let shown = shown.collect();
        let rest = (!rest.is_empty()).then(|| commit(discloser.rest(&salts.rest(), rest)));
        Some(Self {
            tool: Arc::clone(tool),
            shown,
            rest,
            disclosures,
        })
    }

    /// Names and commitments in the order of records.
    pub(crate) fn committed(&self) -> Vec<(&str, &str)> {
        let declared = self.tool.pinned.as_ref();
        let declared = declared.map_or(&[][..], |pinned| &pinned.arguments);
        let mut pairs = Vec::with_capacity(self.shown.len() + 1);
        for (place, commitment) in &self.shown {
            if let Some(name) = declared.get(*place) {
                pairs.push((&**name, commitment.as_str()));
            }
        }
        if let Some(rest) = &self.rest {
            let place = pairs.partition_point(|(name, _)| in_utf16(name, REST).is_lt());
            pairs.insert(place, (REST, rest.as_str()));
        }
        pairs
    }

    /// The disclosures, where they are kept.
    pub(crate) fn into_disclosures(self) -> Vec<String> {
        self.disclosures
    }
}

/// Arguments of one call that stand in clear: with [`is_shown`] a bound on the record.
const SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use agentca_auditlog::disclosure::Disclosed;
    use agentca_identity::time::Timestamp;
    use agentca_policy::PinnedDefinition;

    use super::*;
    use crate::config::Config;

    const CATALOGUE: &str = r#"
        environment = "prod"
        listen = "127.0.0.1:0"
        authority = "https://127.0.0.1:7443"
        identity_dir = "."
        data_dir = "."
        [[upstream]]
        name = "payments"
        kind = "mcp"
        url = "http://127.0.0.1:9000/mcp"
        [[tool]]
        upstream = "payments"
        name = "refund"
        min_trust = "L2"
        risk = "financial"
    "#;

    fn unpinned() -> Tool {
        let config = Config::parse(CATALOGUE, std::path::Path::new("")).unwrap();
        let server = config.mcp_catalogue.server("payments").unwrap();
        (**server.tool("refund").unwrap()).clone()
    }

    fn declaring(names: &[&str]) -> Arc<Tool> {
        let mut arguments: Vec<Box<str>> = names.iter().map(|name| Box::from(*name)).collect();
        arguments.sort_by(|one, other| in_utf16(one, other));
        let pinned = PinnedDefinition {
            digest: [0; 32],
            schema_in: None,
            schema_out: None,
            headers: Vec::new(),
            arguments,
            approved_by: "scan".into(),
            approved_at: Timestamp::MIN,
        };
        let mut tool = unpinned();
        tool.pinned = Some(Arc::new(pinned));
        Arc::new(tool)
    }

    /// Names with what each disclosure says, once each was held against the record.
    fn told(tool: &Arc<Tool>, text: &str) -> Vec<(String, String)> {
        let arguments = Arguments::commit(tool, text, &[5; 16], DisclosedValues::Keep).unwrap();
        let args: serde_json::Map<_, _> = arguments
            .committed()
            .into_iter()
            .map(|(name, commitment)| (name.to_owned(), commitment.into()))
            .collect();
        let names: Vec<String> = arguments
            .committed()
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let record = serde_json::json!({"request": {"args": args}}).to_string();
        let disclosures = arguments.into_disclosures();
        let values = disclosures
            .iter()
            .map(|text| Disclosed::verify(text, record.as_bytes()).unwrap());
        let values: std::collections::HashMap<_, _> =
            values.map(|told| (told.key, told.value)).collect();
        assert_eq!(values.len(), names.len());
        names
            .into_iter()
            .map(|name| (name.clone(), values[&name].clone()))
            .collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn what_the_schema_declares_is_named_and_the_rest_is_one() {
        let tool = declaring(&["amount", "note", "$ref", "unused"]);
        let text = r#"{"x" : {"y": 1}, "note":"\u0041", "$ref":null, "amount": 12.50 ,"z":[1, 2]}"#;
        assert_eq!(
            told(&tool, text),
            [
                pair("$ref", "null"),
                pair("...", r#"{"x":{"y": 1},"z":[1, 2]}"#),
                pair("amount", "12.50"),
                pair("note", r#""\u0041""#),
            ]
        );
    }

    #[test]
    fn names_are_in_the_order_of_records() {
        let tool = declaring(&["\u{fb33}", "\u{1f600}", "a"]);
        let text = "{\"\u{fb33}\":1,\"a\":2,\"\u{1f600}\":3}";
        let names: Vec<String> = told(&tool, text)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["a", "\u{1f600}", "\u{fb33}"]);
    }

    #[test]
    fn a_call_with_many_or_odd_arguments_fills_no_record() {
        let names: Vec<String> = (0..80).map(|number| format!("k{number:02}")).collect();
        let mut declared: Vec<&str> = names.iter().map(String::as_str).collect();
        let (long, odd) = ("l".repeat(65), "a\u{1}");
        declared.extend([&*long, odd, REST]);
        let tool = declaring(&declared);
        let mut members: Vec<String> = names.iter().map(|name| format!("{name:?}:1")).collect();
        members.extend([
            format!("{long:?}:2"),
            "\"a\\u0001\":3".into(),
            "\"...\":4".into(),
        ]);
        let told = told(&tool, &format!("{{{}}}", members.join(",")));
        assert_eq!(told.len(), SHOWN + 1);
        let (name, rest) = &told[0];
        assert_eq!(name, REST);
        let rest: serde_json::Value = serde_json::from_str(rest).unwrap();
        assert_eq!(rest.as_object().unwrap().len(), 19);
        assert_eq!((&rest[&long], &rest["k79"]), (&2.into(), &1.into()));
    }

    #[test]
    fn without_arguments_or_a_pin_there_is_nothing() {
        let commit = |tool: &Arc<Tool>, text| {
            Arguments::commit(tool, text, &[5; 16], DisclosedValues::Keep).is_some()
        };
        let pinned = declaring(&["a"]);
        assert!(commit(&pinned, "{\"b\":1}") && !commit(&pinned, "{}"));
        assert!(!commit(&Arc::new(unpinned()), "{\"a\":1}"));
    }

    #[test]
    fn values_are_kept_only_where_they_are_to_be() {
        let tool = declaring(&["a"]);
        let commit = |values| Arguments::commit(&tool, "{\"a\":1}", &[5; 16], values).unwrap();
        let (kept, dropped) = (commit(DisclosedValues::Keep), commit(DisclosedValues::Drop));
        assert_eq!(kept.committed(), dropped.committed());
        assert_eq!(kept.into_disclosures().len(), 1);
        assert!(dropped.into_disclosures().is_empty());
    }
}
