//! The tables of the catalogue, key by key.

use std::path::Path;

use agentca_policy::{
    CeilingDecl, DataFlow, ExceptionDecl, MethodDecl, PermissionsDecl, Risk, RouteDecl, Tier,
    ToolDecl, Unverified, parse_moment,
};
use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};

use super::super::errors::{Errors, blame};
use super::super::section::{Elsewhere, Section};
use super::super::units::parse_duration;
use super::AssessorDecl;

pub(super) fn route(
    mut section: Section,
    errors: &mut Errors,
    elsewhere: &[Elsewhere<'_>],
) -> Option<RouteDecl> {
    let upstream = section.required(errors, "upstream", "payments");
    let methods = section.texts(errors, "methods", "GET");
    let path = section.required(errors, "path", "/v1/accounts/{id}");
    let scope = section.required(errors, "scope", "payments:read");
    let (min_trust, risk) = (min_trust(&mut section, errors), risk(&mut section, errors));
    let classification = section.text(errors, "classification", "personal-data");
    let details = details(&mut section, errors);
    let stream_request = section.flag(errors, "stream_request");
    section.finish(errors, elsewhere);
    Some(RouteDecl {
        upstream: upstream?,
        methods: methods?,
        path: path?,
        scope: scope?,
        min_trust: min_trust?,
        risk: risk?,
        classification,
        publisher: details.publisher,
        version: details.version,
        permissions: details.permissions,
        data_flow: details.data_flow,
        stream_request,
    })
}

/// What routes and tools may say of themselves.
struct Details {
    publisher: Option<String>,
    version: Option<String>,
    permissions: PermissionsDecl,
    data_flow: Option<DataFlow>,
}

fn details(section: &mut Section, errors: &mut Errors) -> Details {
    let publisher = section.text(errors, "publisher", "Example Ltd");
    let version = section.text(errors, "version", "1.2");
    let inner = section.optional_table(errors, "permissions");
    let permissions = match inner {
        None => PermissionsDecl::default(),
        Some(mut inner) => {
            let read = permissions(&mut inner, errors);
            inner.finish(errors, &[]);
            read
        }
    };
    let inner = section.optional_table(errors, "data_flow");
    Details {
        publisher,
        version,
        permissions,
        data_flow: inner.map(|inner| data_flow(inner, errors)),
    }
}

pub(super) fn tool(
    mut section: Section,
    errors: &mut Errors,
    elsewhere: &[Elsewhere<'_>],
) -> Option<ToolDecl> {
    let upstream = section.required(errors, "upstream", "payments");
    let name = section.required(errors, "name", "refund");
    let scope = section.text(errors, "scope", "mcp:payments:refund");
    let (min_trust, risk) = (min_trust(&mut section, errors), risk(&mut section, errors));
    let risk_reason = section.text(errors, "risk_reason", "the name says `refund`");
    let classification = section.text(errors, "classification", "personal-data");
    let details = details(&mut section, errors);
    section.finish(errors, elsewhere);
    Some(ToolDecl {
        upstream: upstream?,
        name: name?,
        scope,
        min_trust: min_trust?,
        risk: risk?,
        risk_reason,
        classification,
        publisher: details.publisher,
        version: details.version,
        permissions: details.permissions,
        data_flow: details.data_flow,
    })
}

pub(super) fn method(
    mut section: Section,
    errors: &mut Errors,
    elsewhere: &[Elsewhere<'_>],
) -> Option<MethodDecl> {
    let upstream = section.required(errors, "upstream", "payments");
    let name = section.required(errors, "name", "resources/read");
    let scope = section.text(errors, "scope", "mcp:payments:resources:read");
    let (min_trust, risk) = (min_trust(&mut section, errors), risk(&mut section, errors));
    let classification = section.text(errors, "classification", "personal-data");
    section.finish(errors, elsewhere);
    Some(MethodDecl {
        upstream: upstream?,
        name: name?,
        scope,
        min_trust: min_trust?,
        risk: risk?,
        classification,
    })
}

pub(super) fn exception(
    mut section: Section,
    errors: &mut Errors,
    elsewhere: &[Elsewhere<'_>],
) -> Option<ExceptionDecl> {
    let upstream = section.required(errors, "upstream", "payments");
    let tool = section.text(errors, "tool", "refund");
    let route = section.text(errors, "route", "/v1/accounts/{id}");
    let owner = section.required(errors, "owner", "alice@example.org");
    let justification = section.required(errors, "justification", "no other way to pay back");
    let control = section.required(errors, "compensating_control", "reviewed every day");
    let ends = section.required(errors, "ends", "2027-01-31T00:00:00Z");
    let ends = ends.and_then(|text| {
        let time = parse_moment(&text);
        if time.is_none() {
            let message = format!("`{text}` is not a time in UTC, like 2027-01-31T00:00:00Z");
            blame(errors, section.key("ends"), message);
        }
        time
    });
    let is_one = tool.is_some() != route.is_some();
    if !is_one {
        let message = "write either the tool, or in `route` the path of the route, that it is for";
        blame(errors, section.key("tool"), message);
    }
    section.finish(errors, elsewhere);
    is_one.then_some(())?;
    Some(ExceptionDecl {
        upstream: upstream?,
        tool,
        route,
        owner: owner?,
        justification: justification?,
        compensating_control: control?,
        ends: ends?,
    })
}

pub(super) fn assessor(
    mut section: Section,
    base: &Path,
    errors: &mut Errors,
    elsewhere: &[Elsewhere<'_>],
) -> Option<AssessorDecl> {
    let name = section.required(errors, "name", "acme-labs");
    let public_key = section.text(errors, "public_key", "acme-labs.pem");
    let person = section.text(errors, "person", "spiffe://example.org/person/alice");
    section.finish(errors, elsewhere);
    Some(AssessorDecl {
        name: name?,
        public_key,
        person,
        base: base.to_owned(),
    })
}

pub(super) fn ceiling(
    mut section: Section,
    errors: &mut Errors,
    elsewhere: &[Elsewhere<'_>],
) -> CeilingDecl {
    let permissions = permissions(&mut section, errors);
    let min_tier: Option<Tier> = choice(
        &mut section,
        errors,
        "min_tier",
        "unverified, verified or gold",
    );
    let max_age = section.text(errors, "max_age", "90d").and_then(|text| {
        let parsed = parse_duration(&text);
        parsed
            .map_err(|error| blame(errors, section.key("max_age"), error))
            .ok()
    });
    let unverified: Option<Unverified> = choice(&mut section, errors, "unverified", "deny or mark");
    section.finish(errors, elsewhere);
    CeilingDecl {
        permissions,
        min_tier,
        max_age,
        unverified: unverified.unwrap_or_default(),
    }
}

fn permissions(section: &mut Section, errors: &mut Errors) -> PermissionsDecl {
    PermissionsDecl {
        network: choice(section, errors, "network", "none, internal or external"),
        filesystem: choice(section, errors, "filesystem", "none, read or write"),
        code_execution: choice(
            section,
            errors,
            "code_execution",
            "none, sandboxed or unrestricted",
        ),
        data_access: choice(section, errors, "data_access", "none, read or read-write"),
    }
}

fn data_flow(mut section: Section, errors: &mut Errors) -> DataFlow {
    let flow = DataFlow {
        input: section.text(errors, "input", "an account number"),
        processing: section.text(errors, "processing", "looks the account up"),
        destination: section.text(errors, "destination", "the bank's own systems"),
        logged: section.optional_flag(errors, "logged"),
        retention: section.text(errors, "retention", "30d"),
        subprocessor: section.text(errors, "subprocessor", "none"),
    };
    section.finish(errors, &[]);
    flow
}

fn min_trust(section: &mut Section, errors: &mut Errors) -> Option<String> {
    section.required(errors, "min_trust", "L2")
}

fn risk(section: &mut Section, errors: &mut Errors) -> Option<Risk> {
    let text = section.required(errors, "risk", "read")?;
    let names = "read, write, destructive, execute or financial";
    one_of(section, errors, "risk", &text, names)
}

/// One of a few words; `names` are those for whoever wrote another one.
fn choice<T: for<'de> Deserialize<'de>>(
    section: &mut Section,
    errors: &mut Errors,
    key: &'static str,
    names: &str,
) -> Option<T> {
    let text = section.text(
        errors,
        key,
        names.split([',', ' ']).next().unwrap_or_default(),
    )?;
    one_of(section, errors, key, &text, names)
}

fn one_of<T: for<'de> Deserialize<'de>>(
    section: &Section,
    errors: &mut Errors,
    key: &'static str,
    text: &str,
    names: &str,
) -> Option<T> {
    let value = T::deserialize(StrDeserializer::<Error>::new(text));
    let wrong = |_| {
        let message = format!("`{text}` is no {key}: write {names}");
        blame(errors, section.key(key), message);
    };
    value.map_err(wrong).ok()
}
