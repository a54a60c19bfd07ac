//! `disclosures` and `disclosures_max_age`.

use std::time::Duration;

use super::errors::{Errors, blame};

/// What becomes of the values that tools are called with; their commitments are recorded in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisclosureOptions {
    /// Whether they are kept.
    pub values: DisclosedValues,
    /// When files of them are deleted.
    pub max_age: Duration,
}

/// Whether the values that tools are called with are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisclosedValues {
    /// In `disclosures` of `data_dir`.
    Keep,
    /// Nowhere.
    Drop,
}

/// Nothing is kept unless somebody asks for it: values may be personal data, or secrets.
pub(super) fn check(
    errors: &mut Errors,
    values: Option<&str>,
    max_age: Duration,
) -> Option<DisclosureOptions> {
    let values = match values.unwrap_or("drop") {
        "drop" => DisclosedValues::Drop,
        "keep" => DisclosedValues::Keep,
        other => {
            let message = format!("`{other}` is neither `keep` nor `drop`");
            blame(errors, "disclosures", message);
            return None;
        }
    };
    Some(DisclosureOptions { values, max_age })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn values_are_kept_only_when_that_is_written() {
        let parse = |line: &str| {
            let text = format!(
                "environment = \"prod\"\nlisten = \"127.0.0.1:0\"\nidentity_dir = \".\"\ndata_dir = \".\"\n\
                 authority = \"https://127.0.0.1:1\"\n{line}\n{}",
                crate::testing::ROUTES
            );
            Config::parse(&text, Path::new(""))
        };
        let (day, month) = (
            Duration::from_secs(86_400),
            Duration::from_secs(30 * 86_400),
        );
        for (line, values, max_age) in [
            ("", DisclosedValues::Drop, month),
            ("disclosures = \"keep\"", DisclosedValues::Keep, month),
            ("disclosures_max_age = \"1d\"", DisclosedValues::Drop, day),
        ] {
            let expected = DisclosureOptions { values, max_age };
            assert_eq!(parse(line).unwrap().disclosures, expected, "{line}");
        }
        for line in ["disclosures = \"yes\"", "disclosures_max_age = \"1h\""] {
            let errors = parse(line).unwrap_err();
            let key = line.split(' ').next().unwrap();
            assert_eq!(errors.iter().next().unwrap().key, key);
        }
    }
}
