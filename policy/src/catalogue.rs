//! The catalogue: which calls exist and what each of them needs.
//!
//! Declared routes are compiled into a tree of path segments. A path leads to one template at most
//! (a literal segment beats `{x}`), and only then is the method looked up: a path that has a
//! template of its own never falls back to a wider one.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use agentca_identity::scope::RequiredScope;
use agentca_identity::trust::TrustLevel;
use serde::Deserialize;

use crate::call::{Call, Risk};
use crate::ceiling::{Ceiling, CeilingDecl, ExceptionDecl};
use crate::path::{MAX_SEGMENTS, NormalPath, PathRefusal, normalise_segment};
use crate::permissions::{Permissions, PermissionsDecl};
use crate::tool::DataFlow;

/// The most routes of a catalogue.
pub const MAX_ROUTES: usize = 100_000;

/// Compiled routes.
#[derive(Debug)]
pub struct Catalogue {
    nodes: Vec<Node>,
    routes: Vec<Arc<Route>>,
}

impl Catalogue {
    /// Compiles declarations.
    ///
    /// # Errors
    /// [`CatalogueErrors`]: everything that is wrong, by route.
    pub fn compile(
        upstreams: &[UpstreamDecl],
        routes: &[RouteDecl],
    ) -> Result<Self, CatalogueErrors> {
        Self::compile_within(upstreams, routes, None, &[])
    }

    /// The same within what an environment wants: routes that are above its ceiling are there, and
    /// denied (see [`Route::standing`]).
    ///
    /// # Errors
    /// [`CatalogueErrors`]: everything that is wrong, by route.
    pub fn compile_within(
        upstreams: &[UpstreamDecl],
        routes: &[RouteDecl],
        ceiling: Option<&CeilingDecl>,
        exceptions: &[ExceptionDecl],
    ) -> Result<Self, CatalogueErrors> {
        let wanted = Wanted {
            ceiling: Ceiling::of(ceiling),
            exceptions,
        };
        let names: HashMap<&str, Arc<str>> = upstreams
            .iter()
            .map(|upstream| (upstream.name.as_str(), Arc::from(upstream.name.as_str())))
            .collect();
        let mut catalogue = Self {
            nodes: vec![Node::default()],
            routes: Vec::new(),
        };
        let mut errors = Vec::new();
        for (index, decl) in routes.iter().enumerate() {
            let faults = if index == MAX_ROUTES {
                vec![RouteFault::TooMany]
            } else {
                catalogue
                    .add(decl, &names, &wanted)
                    .err()
                    .unwrap_or_default()
            };
            errors.extend(faults.into_iter().map(|fault| CatalogueError {
                index,
                template: decl.path.clone(),
                fault,
            }));
            if index == MAX_ROUTES {
                break;
            }
        }
        if errors.is_empty() {
            Ok(catalogue)
        } else {
            Err(CatalogueErrors(errors))
        }
    }

    /// The route of a call; the method is compared byte for byte (RFC 9110 §9.1).
    #[must_use]
    pub fn find(&self, method: &str, path: &NormalPath) -> Option<&Arc<Route>> {
        let mut segments = [""; MAX_SEGMENTS];
        let mut count = 0;
        for (slot, segment) in segments.iter_mut().zip(path.segments()) {
            *slot = segment;
            count += 1;
        }
        let node = self.walk(self.nodes.first()?, segments.get(..count)?)?;
        let route = node.methods.iter().find(|(name, _)| name == method)?.1;
        self.routes.get(route)
    }

    /// Every route, in the order of declaration.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The node of the best template: depth is bounded by [`MAX_SEGMENTS`], and each node is
    /// entered at most once.
    fn walk<'a>(&'a self, node: &'a Node, segments: &[&str]) -> Option<&'a Node> {
        let Some((first, rest)) = segments.split_first() else {
            return (!node.methods.is_empty()).then_some(node);
        };
        let literal = node
            .literals
            .get(*first)
            .and_then(|&next| self.nodes.get(next));
        literal.and_then(|next| self.walk(next, rest)).or_else(|| {
            let next = self.nodes.get(node.any?)?;
            self.walk(next, rest)
        })
    }

    fn add(
        &mut self,
        decl: &RouteDecl,
        upstreams: &HashMap<&str, Arc<str>>,
        wanted: &Wanted<'_>,
    ) -> Result<(), Vec<RouteFault>> {
        let mut faults = Vec::new();
        let route = Route::compile(decl, upstreams, wanted, &mut faults);
        let segments = keep(&mut faults, template_segments(&decl.path));
        let (Some(route), Some(segments)) = (route, segments) else {
            return Err(faults);
        };
        self.insert(route, &segments).map_err(|fault| vec![fault])
    }

    fn insert(&mut self, route: Route, segments: &[TemplateSegment]) -> Result<(), RouteFault> {
        let mut at = 0;
        for segment in segments {
            at = self.step(at, segment)?;
        }
        let index = self.routes.len();
        let node = self.nodes.get_mut(at).ok_or(RouteFault::TooMany)?;
        for method in &route.methods {
            if node.methods.iter().any(|(name, _)| name == method) {
                return Err(RouteFault::Duplicate(method.clone()));
            }
            node.methods.push((method.clone(), index));
        }
        self.routes.push(Arc::new(route));
        Ok(())
    }

    /// The child of a node for a template's segment, made when there is none.
    fn step(&mut self, at: usize, segment: &TemplateSegment) -> Result<usize, RouteFault> {
        let fresh = self.nodes.len();
        let node = self.nodes.get_mut(at).ok_or(RouteFault::TooMany)?;
        let next = match segment {
            TemplateSegment::Any => *node.any.get_or_insert(fresh),
            TemplateSegment::Literal(text) => {
                *node.literals.entry(text.as_str().into()).or_insert(fresh)
            }
        };
        if next == fresh {
            self.nodes.push(Node::default());
        }
        Ok(next)
    }
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    any: Option<usize>,
    /// Index into the routes by method; a handful at most.
    methods: Vec<(String, usize)>,
}

/// A server behind the enforcer, as far as the catalogue cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamDecl {
    /// What routes call it.
    pub name: String,
}

/// A route as it is written in configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteDecl {
    /// The name of a declared upstream.
    pub upstream: String,
    /// Methods, upper-case; `HEAD` is not implied by `GET`.
    pub methods: Vec<String>,
    /// `/v1/accounts/{id}`: literal segments, and `{x}` for exactly one segment.
    pub path: String,
    /// The scope a caller needs, without `*`.
    pub scope: String,
    /// The least trust level, `L0` to `L4`.
    pub min_trust: String,
    /// What a call can do at worst.
    pub risk: Risk,
    /// The data's classification, recorded with each call.
    #[serde(default)]
    pub classification: Option<String>,
    /// Who makes what answers there.
    #[serde(default)]
    pub publisher: Option<String>,
    /// Its version.
    #[serde(default)]
    pub version: Option<String>,
    /// What it may reach.
    #[serde(default)]
    pub permissions: PermissionsDecl,
    /// Where its data goes.
    #[serde(default)]
    pub data_flow: Option<DataFlow>,
    /// The request's body is passed on as it arrives instead of read whole first.
    #[serde(default)]
    pub stream_request: bool,
}

/// A route of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What is decided.
    pub call: Arc<Call>,
    /// The path's template, as declared: how it appears in records.
    pub template: String,
    /// The methods it is for.
    pub methods: Vec<String>,
    /// Who makes what answers there.
    pub publisher: Option<Arc<str>>,
    /// Its version.
    pub version: Option<Arc<str>>,
    /// What it may reach.
    pub permissions: Permissions,
    /// Where its data goes.
    pub data_flow: Option<Arc<DataFlow>>,
    /// The request's body is passed on as it arrives.
    pub stream_request: bool,
    /// What is over the ceiling, in words.
    pub(crate) above_ceiling: Option<String>,
    /// The one that runs longest.
    pub(crate) exception: Option<Arc<ExceptionDecl>>,
}

/// What an environment wants of routes.
struct Wanted<'a> {
    ceiling: Ceiling,
    exceptions: &'a [ExceptionDecl],
}

impl Wanted<'_> {
    fn exception(&self, upstream: &str, template: &str) -> Option<Arc<ExceptionDecl>> {
        let exceptions = self.exceptions.iter();
        let named = exceptions
            .filter(|decl| decl.upstream == upstream && decl.route.as_deref() == Some(template));
        let longest = named.max_by_key(|decl| decl.ends);
        longest.map(|decl| Arc::new(decl.clone()))
    }
}

impl Route {
    /// Notes everything that is wrong; the path is not among it.
    fn compile(
        decl: &RouteDecl,
        upstreams: &HashMap<&str, Arc<str>>,
        wanted: &Wanted<'_>,
        faults: &mut Vec<RouteFault>,
    ) -> Option<Self> {
        // Every key is named: a new one cannot be dropped unread.
        let RouteDecl {
            upstream,
            methods,
            path,
            scope,
            min_trust,
            risk,
            classification,
            publisher,
            version,
            permissions,
            data_flow,
            stream_request,
        } = decl;
        let known = upstreams
            .get(upstream.as_str())
            .ok_or_else(|| RouteFault::UnknownUpstream(upstream.clone()));
        let known = keep(faults, known);
        let checked = keep(faults, check_methods(methods));
        let scope = RequiredScope::from_str(scope)
            .map_err(|error| RouteFault::Scope(format!("`{scope}`: {error}")));
        let scope = keep(faults, scope);
        let trust = TrustLevel::from_str(min_trust)
            .map_err(|error| RouteFault::Trust(format!("`{min_trust}`: {error}")));
        let trust = keep(faults, trust);
        let class = keep(faults, check_classification(classification.as_deref()));
        checked?;
        let call = Call {
            upstream: Arc::clone(known?),
            name: format!("http:{upstream}:{path}"),
            scope: scope?,
            min_trust: trust?,
            risk: *risk,
            classification: class?,
        };
        let permissions = permissions.or(wanted.ceiling.undeclared);
        Some(Self {
            call: Arc::new(call),
            template: path.clone(),
            methods: methods.clone(),
            publisher: publisher.as_deref().map(Arc::from),
            version: version.as_deref().map(Arc::from),
            permissions,
            data_flow: data_flow.clone().map(Arc::new),
            stream_request: *stream_request,
            above_ceiling: wanted.ceiling.exceeded_by(&permissions),
            exception: wanted.exception(upstream, path),
        })
    }
}

/// Everything that is wrong with a catalogue; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct CatalogueErrors(Vec<CatalogueError>);

impl CatalogueErrors {
    /// The errors in the order of routes.
    pub fn iter(&self) -> impl Iterator<Item = &CatalogueError> {
        self.0.iter()
    }
}

/// What is wrong with one route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fault}, in the route `{template}`", self.key())]
pub struct CatalogueError {
    /// The route's place, from 0.
    pub index: usize,
    /// Its path as declared.
    pub template: String,
    /// What is wrong.
    pub fault: RouteFault,
}

impl CatalogueError {
    /// The key as in the file, routes by their place from 1: `route[2].scope`.
    #[must_use]
    pub fn key(&self) -> String {
        let number = self.index.saturating_add(1);
        match self.fault.key() {
            Some(key) => format!("route[{number}].{key}"),
            None => format!("route[{number}]"),
        }
    }
}

/// Why a route was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteFault {
    /// No such upstream.
    #[error("no upstream is named `{0}`")]
    UnknownUpstream(String),
    /// An empty list.
    #[error("is empty: name at least one method, like `[\"GET\"]`")]
    NoMethods,
    /// Not an upper-case token.
    #[error("`{0}` is not a method: write it in upper-case letters")]
    Method(String),
    /// A method that no upstream is given.
    #[error("`{0}` is never forwarded")]
    RefusedMethod(String),
    /// The same method twice for what is the same path.
    #[error("`{0}` of this path belongs to an earlier route already")]
    Duplicate(String),
    /// The template's literal parts.
    #[error("{0}")]
    Path(#[from] PathRefusal),
    /// A template that is not in its written form, so that it would never match as read.
    #[error("write the segment `{written}` as `{form}`")]
    NotNormal {
        /// As declared.
        written: String,
        /// As it would have to be.
        form: String,
    },
    /// A query in a template.
    #[error("a template has no query")]
    Query,
    /// `{x}` that is not a name in braces.
    #[error("`{0}` must be a name of a-z, 0-9 and _ in braces, for a whole segment")]
    Parameter(String),
    /// Another router's way to write `{x}`.
    #[error("`{0}` would match only itself: write {{name}} for one segment")]
    Wildcard(String),
    /// `{x}` twice.
    #[error("`{0}` appears twice")]
    ParameterTwice(String),
    /// The scope, and what is wrong with it.
    #[error("{0}")]
    Scope(String),
    /// The trust level, and what is wrong with it.
    #[error("{0}")]
    Trust(String),
    /// The classification.
    #[error("must be 1 to 64 characters of a-z, 0-9, _ and -")]
    Classification,
    /// More than [`MAX_ROUTES`].
    #[error("a catalogue has at most {MAX_ROUTES} routes")]
    TooMany,
}

impl RouteFault {
    /// The key of the route that it is about.
    #[must_use]
    pub const fn key(&self) -> Option<&'static str> {
        match self {
            Self::UnknownUpstream(_) => Some("upstream"),
            Self::NoMethods | Self::Method(_) | Self::RefusedMethod(_) | Self::Duplicate(_) => {
                Some("methods")
            }
            Self::Path(_)
            | Self::NotNormal { .. }
            | Self::Query
            | Self::Parameter(_)
            | Self::Wildcard(_)
            | Self::ParameterTwice(_) => Some("path"),
            Self::Scope(_) => Some("scope"),
            Self::Trust(_) => Some("min_trust"),
            Self::Classification => Some("classification"),
            Self::TooMany => None,
        }
    }
}

/// The value, or none and its fault noted.
fn keep<T>(faults: &mut Vec<RouteFault>, value: Result<T, RouteFault>) -> Option<T> {
    value.map_err(|fault| faults.push(fault)).ok()
}

enum TemplateSegment {
    Literal(String),
    Any,
}

fn template_segments(template: &str) -> Result<Vec<TemplateSegment>, RouteFault> {
    if template.contains(['?', '#']) {
        return Err(RouteFault::Query);
    }
    let rest = template.strip_prefix('/').ok_or(PathRefusal::NotAbsolute)?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let mut parameters = BTreeSet::new();
    let segments = rest
        .split('/')
        .map(|segment| template_segment(segment, &mut parameters))
        .collect::<Result<Vec<_>, _>>()?;
    if segments.len() > MAX_SEGMENTS {
        return Err(PathRefusal::TooManySegments.into());
    }
    Ok(segments)
}

fn template_segment<'a>(
    segment: &'a str,
    parameters: &mut BTreeSet<&'a str>,
) -> Result<TemplateSegment, RouteFault> {
    // What other routers mean by these would stand for itself here, and never match.
    if segment.contains('*') || segment.starts_with(':') {
        return Err(RouteFault::Wildcard(segment.to_owned()));
    }
    if segment.contains(['{', '}']) {
        let name = segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if !name.is_some_and(is_name) {
            return Err(RouteFault::Parameter(segment.to_owned()));
        }
        if !parameters.insert(segment) {
            return Err(RouteFault::ParameterTwice(segment.to_owned()));
        }
        return Ok(TemplateSegment::Any);
    }
    let mut form = String::with_capacity(segment.len());
    normalise_segment(segment, &mut form)?;
    if form == segment {
        Ok(TemplateSegment::Literal(form))
    } else {
        Err(RouteFault::NotNormal {
            written: segment.to_owned(),
            form,
        })
    }
}

fn check_methods(methods: &[String]) -> Result<(), RouteFault> {
    if methods.is_empty() {
        return Err(RouteFault::NoMethods);
    }
    for method in methods {
        let letters = method
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_');
        if method.is_empty() || method.len() > 32 || !letters {
            return Err(RouteFault::Method(method.clone()));
        }
        if matches!(method.as_str(), "CONNECT" | "TRACE") {
            return Err(RouteFault::RefusedMethod(method.clone()));
        }
    }
    Ok(())
}

pub(crate) fn check_classification(text: Option<&str>) -> Result<Option<String>, RouteFault> {
    let Some(text) = text else { return Ok(None) };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        return Err(RouteFault::Classification);
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests;
