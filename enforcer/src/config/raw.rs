//! The file as it is written: every key on its own, of the type and in the range that belong there,
//! defaults in place. What depends on other keys is checked after.

use std::path::Path;
use std::time::Duration;

use toml::Table;

use super::catalogue::{FileTables, RawCatalogue, ReadFile};
use super::errors::{Errors, blame};
use super::limits::{self, Limits};
use super::mcp::{self, RawMcp};
use super::section::{Elsewhere, Section};
use super::upstream::{self, RawAccess};

/// Where the text is from.
pub(super) struct FilePlace<'a> {
    /// None for a text without a file.
    pub(super) file: Option<&'a Path>,
    /// At which relative paths begin.
    pub(super) base: &'a Path,
    /// Reads what it names.
    pub(super) read: ReadFile<'a>,
}

/// None stands for what is absent, or was noted as wrong.
#[derive(Debug)]
pub(super) struct RawConfig {
    pub(super) environment: Option<String>,
    pub(super) listen: Option<String>,
    pub(super) ops_listen: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) identity_dir: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) disclosures: Option<String>,
    pub(super) disclosures_max_age: Duration,
    pub(super) stale_after: Duration,
    pub(super) revocation: Option<String>,
    pub(super) crl: Option<Vec<String>>,
    pub(super) crl_refresh: Duration,
    pub(super) threads: usize,
    pub(super) upstreams: Vec<RawUpstream>,
    pub(super) catalogue: RawCatalogue,
    pub(super) limits: Limits,
}

/// A server behind the enforcer.
#[derive(Debug)]
pub(super) struct RawUpstream {
    /// `upstream[1]`.
    pub(super) at: String,
    pub(super) name: Option<String>,
    pub(super) url: Option<String>,
    /// Of `kind = "mcp"`.
    pub(super) mcp: Option<RawMcp>,
    /// `tls` and `credentials`.
    pub(super) access: RawAccess,
}

impl RawConfig {
    pub(super) fn read(table: Table, place: &FilePlace<'_>, errors: &mut Errors) -> Self {
        let mut top = Section::new("", table);
        let environment = top.required(errors, "environment", "prod");
        let listen = top.required(errors, "listen", "127.0.0.1:8443");
        let ops_listen = top.text(errors, "ops_listen", "127.0.0.1:9464");
        let authority = top.text(errors, "authority", AUTHORITY_EXAMPLE);
        let identity_dir = top.required(errors, "identity_dir", "edge-1");
        let data_dir = top.required(errors, "data_dir", "edge-1-data");
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
        let disclosures = top.text(errors, "disclosures", "keep");
        let (day, years) = (hour * 24, hour * 24 * 3_650);
        let disclosures_max_age = top.duration(
            errors,
            "disclosures_max_age",
            DISCLOSURES_MAX_AGE,
            day..=years,
        );
        let stale_after = top.duration(errors, "stale_after", STALE_AFTER, second..=hour);
        let revocation = top.text(errors, "revocation", "feed");
        let crl = top.texts(errors, "crl", "http://127.0.0.1:7080/crl/0.crl");
        let crl_refresh = top.duration(errors, "crl_refresh", CRL_REFRESH, second..=hour * 24);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = top.count(errors, "threads", cores, 1..=MAX_THREADS);
        let upstreams = top.tables(errors, "upstream");
        let names = top.texts(errors, "catalogue", "catalogue.toml");
        let tables = FileTables::take(&mut top, errors);
        let mut limits = top.table(errors, "limits");

        let limits_read = limits::read(&mut limits, errors);
        let above = [(AT_THE_TOP, top.keys())];
        let upstreams = upstreams
            .into_iter()
            .map(|(number, table)| {
                let at = (format!("upstream[{number}]"), place.base);
                read_upstream(at, table, errors, &above)
            })
            .collect();
        let mut catalogue = RawCatalogue::default();
        catalogue.read(tables, None, place.base, errors, &above);
        if let Some(own) = place.file {
            catalogue.read_pins(own, place.read, errors);
        }
        let names = names.unwrap_or_default();
        catalogue.read_files(&names, place.base, place.read, errors, &above);
        let below = limits.keys().to_vec();
        limits.finish(errors, &above);
        top.finish(errors, &[("below `[limits]`", &below)]);
        Self {
            environment,
            listen,
            ops_listen,
            authority,
            identity_dir,
            data_dir,
            disclosures,
            disclosures_max_age,
            stale_after,
            revocation,
            crl,
            crl_refresh,
            threads,
            upstreams,
            catalogue,
            limits: limits_read,
        }
    }
}

fn read_upstream(
    (at, base): (String, &Path),
    table: Table,
    errors: &mut Errors,
    elsewhere: &[Elsewhere<'_>],
) -> RawUpstream {
    let mut section = Section::new(at.clone(), table);
    let name = section.required(errors, "name", "payments");
    let kind = section.text(errors, "kind", "mcp");
    let mcp = match kind.as_deref().unwrap_or("http") {
        "http" => None,
        "mcp" => Some(mcp::read(&mut section, base, errors)),
        other => {
            let message = format!("`{other}` is neither `http` nor `mcp`");
            blame(errors, section.key("kind"), message);
            None
        }
    };
    let is_program = mcp.as_ref().is_some_and(|mcp| mcp.command.is_some());
    let url = if is_program {
        let url = section.text(errors, "url", "http://127.0.0.1:9000/mcp");
        if url.is_some() {
            let message = "has no place beside `command`: keep one of them";
            blame(errors, section.key("url"), message);
        }
        None
    } else {
        section.required(errors, "url", "http://127.0.0.1:9000")
    };
    let access = upstream::read(&mut section, base, errors);
    if is_program && (access.tls.is_some() || access.credentials.is_some()) {
        let message = "`tls` and `credentials` have no place beside it: give a program its own";
        blame(errors, section.key("command"), message);
    }
    section.finish(errors, elsewhere);
    RawUpstream {
        at,
        name,
        url,
        mcp,
        access,
    }
}

/// Where the authority is, for whoever has to be shown.
pub(super) const AUTHORITY_EXAMPLE: &str = "https://127.0.0.1:7443";
const AT_THE_TOP: &str = "at the top of the file, before the first `[`";
const STALE_AFTER: Duration = Duration::from_secs(30);
const DISCLOSURES_MAX_AGE: Duration = Duration::from_secs(30 * 86_400);
const CRL_REFRESH: Duration = Duration::from_secs(60);
const MAX_THREADS: u64 = 1024;
