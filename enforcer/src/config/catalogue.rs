//! The tables of the catalogue, which may stand in files of their own: `[[route]]`, `[[tool]]`,
//! `[[method]]`, `[ceiling]`, `[[exception]]` and `[[assessor]]`.

mod assessors;
mod tables;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentca_identity::name::Environment;
use agentca_policy::{
    Admitted, Assessors, CeilingDecl, ExceptionDecl, McpCatalogue, McpParts, McpTable, MethodDecl,
    PinsError, PinsFile, RouteDecl, Stated, ToolDecl, UpstreamDecl,
};
use toml::Table;

use super::errors::{ConfigError, ConfigErrors, Errors, blame, blame_in};
use super::section::{Elsewhere, Section};

/// How files beside the configuration are read.
pub(super) type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// Where a table stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// None for the configuration file itself.
    pub(super) file: Option<Arc<Path>>,
    /// Among its kind in that file, from 1.
    pub(super) number: usize,
}

/// Tables of one kind, each with its place; those that cannot be read are not among them.
#[derive(Debug)]
pub(super) struct Tables<T> {
    pub(super) decls: Vec<T>,
    places: Vec<Place>,
}

impl<T> Default for Tables<T> {
    fn default() -> Self {
        Self {
            decls: Vec::new(),
            places: Vec::new(),
        }
    }
}

impl<T> Tables<T> {
    fn add(&mut self, file: Option<&Arc<Path>>, number: usize, decl: Option<T>) {
        let Some(decl) = decl else { return };
        self.decls.push(decl);
        self.places.push(Place {
            file: file.cloned(),
            number,
        });
    }

    pub(super) fn place(&self, index: usize) -> Option<&Place> {
        self.places.get(index)
    }
}

/// `[[assessor]]` as it is written.
#[derive(Debug)]
pub(super) struct AssessorDecl {
    name: String,
    public_key: Option<String>,
    person: Option<String>,
    /// The folder at which relative paths begin.
    base: PathBuf,
}

/// What is written, of all files.
#[derive(Debug, Default)]
pub(super) struct RawCatalogue {
    pub(super) routes: Tables<RouteDecl>,
    pub(super) tools: Tables<ToolDecl>,
    pub(super) methods: Tables<MethodDecl>,
    exceptions: Tables<ExceptionDecl>,
    assessors: Tables<AssessorDecl>,
    ceiling: Tables<CeilingDecl>,
    pins: Vec<(PathBuf, PinsFile)>,
    /// What was read, and what would have been had it been there.
    files: Vec<PathBuf>,
}

/// The tables of one file, before they are read: names that are asked for are known from then on.
#[derive(Debug)]
pub(super) struct FileTables {
    routes: Vec<(usize, Table)>,
    tools: Vec<(usize, Table)>,
    methods: Vec<(usize, Table)>,
    exceptions: Vec<(usize, Table)>,
    assessors: Vec<(usize, Table)>,
    ceiling: Option<Section>,
}

impl FileTables {
    pub(super) fn take(top: &mut Section, errors: &mut Errors) -> Self {
        Self {
            routes: top.tables(errors, "route"),
            tools: top.tables(errors, "tool"),
            methods: top.tables(errors, "method"),
            exceptions: top.tables(errors, "exception"),
            assessors: top.tables(errors, "assessor"),
            ceiling: top.optional_table(errors, "ceiling"),
        }
    }
}

impl RawCatalogue {
    /// What is wanted of routes as of tools.
    pub(super) fn wanted(&self) -> (Option<&CeilingDecl>, &[ExceptionDecl]) {
        (self.ceiling.decls.first(), &self.exceptions.decls)
    }

    pub(super) fn exceptions(&self) -> impl Iterator<Item = (&ExceptionDecl, &Place)> {
        self.exceptions.decls.iter().zip(&self.exceptions.places)
    }

    /// Adds the tables of one file.
    pub(super) fn read(
        &mut self,
        tables: FileTables,
        file: Option<&Arc<Path>>,
        base: &Path,
        errors: &mut Errors,
        above: &[Elsewhere<'_>],
    ) {
        for (number, table) in tables.routes {
            let section = Section::new(format!("route[{number}]"), table);
            let route = tables::route(section, errors, above);
            self.routes.add(file, number, route);
        }
        for (number, table) in tables.tools {
            let section = Section::new(format!("tool[{number}]"), table);
            let tool = tables::tool(section, errors, above);
            self.tools.add(file, number, tool);
        }
        for (number, table) in tables.methods {
            let section = Section::new(format!("method[{number}]"), table);
            let method = tables::method(section, errors, above);
            self.methods.add(file, number, method);
        }
        for (number, table) in tables.exceptions {
            let section = Section::new(format!("exception[{number}]"), table);
            let exception = tables::exception(section, errors, above);
            self.exceptions.add(file, number, exception);
        }
        for (number, table) in tables.assessors {
            let section = Section::new(format!("assessor[{number}]"), table);
            let assessor = tables::assessor(section, base, errors, above);
            self.assessors.add(file, number, assessor);
        }
        if let Some(section) = tables.ceiling {
            if self.ceiling.decls.is_empty() {
                let ceiling = tables::ceiling(section, errors, above);
                self.ceiling.add(file, 1, Some(ceiling));
            } else {
                blame(
                    errors,
                    "ceiling",
                    "is in another file too: keep one of them",
                );
            }
        }
    }

    /// Adds files of the same tables, and the pins beside each.
    pub(super) fn read_files(
        &mut self,
        names: &[String],
        base: &Path,
        read: ReadFile<'_>,
        errors: &mut Errors,
        above: &[Elsewhere<'_>],
    ) {
        if names.len() > MAX_CATALOGUES {
            let count = names.len();
            let message = format!(
                "names {count} files: {MAX_CATALOGUES} at most, so that the record of what is in force has every one \
                 of them; put several servers into one file"
            );
            blame(errors, "catalogue", message);
            return;
        }
        for (number, name) in (1_usize..).zip(names) {
            let path = base.join(name);
            if self.files.contains(&path) {
                blame(
                    errors,
                    format!("catalogue[{number}]"),
                    format!("`{name}` appears twice"),
                );
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "toml") {
                let message = format!("`{name}` does not end with `.toml`");
                blame(errors, format!("catalogue[{number}]"), message);
                continue;
            }
            self.files.push(path.clone());
            let mut inner = Errors::new();
            match read(&path) {
                Ok(text) => self.read_file(&text, &path, &mut inner, above),
                Err(error) => {
                    let message = format!("{error}; it is named by `catalogue`");
                    blame(&mut inner, "cannot be read", message);
                }
            }
            errors.extend(inner.into_iter().map(|error| error.in_file(&path)));
            self.read_pins(&path, read, errors);
        }
    }

    fn read_file(&mut self, text: &str, path: &Path, errors: &mut Errors, above: &[Elsewhere<'_>]) {
        let table = match toml::from_str(text) {
            Ok(table) => table,
            Err(error) => {
                let syntax = ConfigErrors::syntax(text, &error);
                errors.extend(syntax.iter().cloned());
                return;
            }
        };
        let mut top = Section::new("", table);
        let tables = FileTables::take(&mut top, errors);
        let base = path.parent().unwrap_or(Path::new(""));
        self.read(tables, Some(&Arc::from(path)), base, errors, &[]);
        let main = above.iter().map(|(_, keys)| (IN_THE_MAIN_FILE, *keys));
        top.finish(errors, &main.collect::<Vec<_>>());
    }

    /// The pins beside a file of the catalogue, when they are there.
    pub(super) fn read_pins(&mut self, beside: &Path, read: ReadFile<'_>, errors: &mut Errors) {
        let path = pins_path(beside);
        self.files.push(path.clone());
        let parsed = match read(&path) {
            Ok(text) => PinsFile::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                blame_in(errors, &path, "cannot be read", error);
                return;
            }
        };
        match parsed {
            Ok(file) => self.pins.push((path, file)),
            Err(faults) => errors.extend(pins_errors(&path, faults)),
        }
    }

    /// Checks all that can be without the root; what people signed does not count yet.
    pub(super) fn compile(
        self,
        upstreams: Vec<UpstreamDecl>,
        environment: &Environment,
        read: ReadFile<'_>,
        errors: &mut Errors,
    ) -> Option<CompiledCatalogue> {
        let mut files = self.files;
        let assessors = assessors::check(&self.assessors, read, &mut files, errors);
        let parts = CatalogueParts {
            upstreams,
            tools: self.tools,
            methods: self.methods,
            exceptions: self.exceptions,
            ceiling: self.ceiling,
            assessors,
            pins: self.pins,
            environment: environment.clone(),
        };
        let mut admitted = Admitted::default();
        for (path, file) in &parts.pins {
            if let Err(faults) = admitted.add_unsigned(file) {
                errors.extend(pins_errors(path, faults));
            }
        }
        match parts.compile(&admitted) {
            Ok(catalogue) => Some(CompiledCatalogue {
                catalogue,
                parts,
                files,
            }),
            Err(faults) => {
                errors.extend(faults);
                None
            }
        }
    }
}

/// What came of all tables.
#[derive(Debug)]
pub(super) struct CompiledCatalogue {
    pub(super) catalogue: McpCatalogue,
    pub(super) parts: CatalogueParts,
    pub(super) files: Vec<PathBuf>,
}

/// What the catalogue of MCP servers is compiled from, again once statements can be verified.
#[derive(Debug)]
pub(crate) struct CatalogueParts {
    upstreams: Vec<UpstreamDecl>,
    tools: Tables<ToolDecl>,
    methods: Tables<MethodDecl>,
    exceptions: Tables<ExceptionDecl>,
    /// One at most.
    ceiling: Tables<CeilingDecl>,
    pub(crate) assessors: Assessors,
    pub(crate) pins: Vec<(PathBuf, PinsFile)>,
    environment: Environment,
}

impl CatalogueParts {
    /// Everything that was said about tools.
    pub(crate) fn stated(&self) -> impl Iterator<Item = Stated> {
        let files = self.pins.iter().flat_map(|(_, file)| file.stated());
        let exceptions = self.exceptions.decls.iter();
        files.chain(exceptions.map(ExceptionDecl::stated))
    }

    /// Each tool with the file that its table is in; none for the configuration file itself.
    pub(crate) fn declared(&self) -> impl Iterator<Item = (&ToolDecl, Option<&Path>)> {
        let places = self.tools.places.iter();
        let files = places.map(|place| place.file.as_deref());
        self.tools.decls.iter().zip(files)
    }

    /// The file that declares a tool; within, none is the configuration itself.
    pub(super) fn tool_file(&self, upstream: &str, tool: &str) -> Option<Option<&Path>> {
        let is_it = |decl: &ToolDecl| decl.upstream == upstream && decl.name == tool;
        let index = self.tools.decls.iter().position(is_it)?;
        Some(self.tools.place(index)?.file.as_deref())
    }

    /// The catalogue with the pins and assessments that count.
    pub(crate) fn compile(&self, admitted: &Admitted) -> Result<McpCatalogue, Vec<ConfigError>> {
        let parts = McpParts {
            upstreams: &self.upstreams,
            tools: &self.tools.decls,
            methods: &self.methods.decls,
            admitted,
            ceiling: self.ceiling.decls.first(),
            exceptions: &self.exceptions.decls,
            environment: &self.environment,
        };
        let faults = match McpCatalogue::compile(&parts) {
            Ok(catalogue) => return Ok(catalogue),
            Err(faults) => faults,
        };
        let placed = faults.iter().map(|fault| {
            let place = match fault.table {
                McpTable::Tool => self.tools.place(fault.index),
                McpTable::Method => self.methods.place(fault.index),
                McpTable::Exception => self.exceptions.place(fault.index),
                McpTable::Ceiling => self.ceiling.place(fault.index),
            };
            let mut fault = fault.clone();
            if let Some(place) = place {
                fault.index = place.number.saturating_sub(1);
            }
            ConfigError {
                file: place.and_then(|place| place.file.as_deref().map(Path::to_owned)),
                key: fault.key(),
                message: fault.message,
            }
        });
        Err(placed.collect())
    }
}

/// `catalogue.toml` has its pins in `catalogue.pins.json`.
#[must_use]
pub fn pins_path(catalogue: &Path) -> PathBuf {
    catalogue.with_extension("pins.json")
}

/// Errors of a pins file as those of a configuration.
pub(crate) fn pins_errors(path: &Path, faults: Vec<PinsError>) -> Vec<ConfigError> {
    let one = |fault: PinsError| ConfigError {
        file: Some(path.to_owned()),
        key: if fault.key.is_empty() {
            "pins".to_owned()
        } else {
            fault.key
        },
        message: fault.message,
    };
    faults.into_iter().map(one).collect()
}

/// The most files that `catalogue` names. With the configuration, and pins beside each, that is 64: so many find
/// room in one record.
pub(crate) const MAX_CATALOGUES: usize = 31;
const IN_THE_MAIN_FILE: &str = "in the configuration file, not in a file of the catalogue";

#[cfg(test)]
mod tests;
