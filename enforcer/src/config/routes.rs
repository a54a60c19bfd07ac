//! The catalogue of routes, from the tables of all files.

use agentca_policy::{Catalogue, CatalogueError, UpstreamDecl};

use super::catalogue::RawCatalogue;
use super::errors::{Errors, blame, blame_in, is_blamed};
use super::raw::RawUpstream;

/// A configuration by which every call would be denied is a mistake.
pub(super) fn check_not_empty(
    errors: &mut Errors,
    upstreams: &[RawUpstream],
    catalogue: &RawCatalogue,
) {
    // The tools of an MCP server may all be new: they are seen, and wait for a person.
    let has_mcp = upstreams.iter().any(|upstream| upstream.mcp.is_some());
    for (key, none) in [
        ("upstream", upstreams.is_empty()),
        ("route", catalogue.routes.decls.is_empty() && !has_mcp),
    ] {
        if none && !is_blamed(errors, key) && !errors.iter().any(|error| error.key.starts_with(key))
        {
            let message = format!(
                "there is none, and so every call would be denied: write a table `[[{key}]]`, as in \
                 enforcer/enforcer.example.toml"
            );
            blame(errors, key, message);
        }
    }
}

pub(super) fn upstream_decls(
    upstreams: &[RawUpstream],
    keep: impl Fn(&RawUpstream) -> bool,
) -> Vec<UpstreamDecl> {
    let kept = upstreams.iter().filter(|upstream| keep(upstream));
    kept.filter_map(|upstream| upstream.name.clone())
        .map(|name| UpstreamDecl { name })
        .collect()
}

pub(super) fn check_routes(
    errors: &mut Errors,
    upstreams: &[RawUpstream],
    catalogue: &RawCatalogue,
) -> Option<Catalogue> {
    let routes = &catalogue.routes;
    check_exceptions(errors, catalogue);
    let upstreams = upstream_decls(upstreams, |_| true);
    let (ceiling, exceptions) = catalogue.wanted();
    let compiled = Catalogue::compile_within(&upstreams, &routes.decls, ceiling, exceptions);
    let faults = match compiled {
        Ok(catalogue) => return Some(catalogue),
        Err(faults) => faults,
    };
    for fault in faults.iter() {
        // Its place in its file, where there may be routes before it that could not be read.
        let place = routes.place(fault.index);
        let placed = CatalogueError {
            index: place.map_or(0, |place| place.number.saturating_sub(1)),
            ..fault.clone()
        };
        let CatalogueError {
            template, fault, ..
        } = fault;
        let message = match fault.key() {
            Some("path") => fault.to_string(),
            _ => format!("{fault}, in the route `{template}`"),
        };
        match place.and_then(|place| place.file.as_deref()) {
            Some(file) => blame_in(errors, file, placed.key(), message),
            None => blame(errors, placed.key(), message),
        }
    }
    None
}

/// An exception for a route that there is not is a mistake.
fn check_exceptions(errors: &mut Errors, catalogue: &RawCatalogue) {
    for (exception, place) in catalogue.exceptions() {
        let Some(path) = &exception.route else {
            continue;
        };
        let mut routes = catalogue.routes.decls.iter();
        if routes.any(|route| route.upstream == exception.upstream && route.path == *path) {
            continue;
        }
        let message = format!(
            "no `[[route]]` of `{}` has the path `{path}`",
            exception.upstream
        );
        let key = format!("exception[{}].route", place.number);
        match place.file.as_deref() {
            Some(file) => blame_in(errors, file, key, message),
            None => blame(errors, key, message),
        }
    }
}
