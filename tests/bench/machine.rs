//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::Outcome;
use crate::process::output;
use crate::stats::{P50, P99, percentile};

/// Lines of a Markdown list: processor, kernel, disk, versions.
pub(crate) fn facts(dir: &Path) -> Outcome<Vec<String>> {
    let mut facts = vec![
        format!("processor: {}, {} cores", processor()?, cores()?),
        format!("memory: {}", memory()?),
        format!(
            "kernel: {}",
            output(Command::new("uname").arg("-r"))?.trim()
        ),
        fsync(dir)?,
    ];
    // nginx prints its version on the error output.
    let nginx = Command::new("nginx").arg("-v").output()?;
    facts.push(String::from_utf8_lossy(&nginx.stderr).trim().to_owned());
    let haproxy = output(Command::new("haproxy").arg("-v"))?;
    facts.push(haproxy.lines().next().unwrap_or_default().to_owned());
    facts.push(
        output(Command::new("openssl").arg("version"))?
            .trim()
            .to_owned(),
    );
    Ok(facts)
}

fn processor() -> Outcome<String> {
    field("/proc/cpuinfo", "model name")
}

/// All of the machine's, not only those this process may use.
fn cores() -> Outcome<usize> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    Ok(text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count())
}

fn memory() -> Outcome<String> {
    field("/proc/meminfo", "MemTotal")
}

fn field(path: &str, name: &str) -> Outcome<String> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line
        .and_then(|line| line.split_once(':'))
        .map(|(_, value)| value.trim());
    Ok(value.unwrap_or("unknown").to_owned())
}

/// What one durable write costs on the disk that the logs lie on.
fn fsync(dir: &Path) -> Outcome<String> {
    use std::io::Write;
    let path = dir.join("fsync-probe");
    let mut file = fs::File::create(&path)?;
    let mut micros = Vec::new();
    for _ in 0..300 {
        file.write_all(&[b'x'; 1200])?;
        let start = Instant::now();
        file.sync_data()?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(&path)?;
    let (p50, p99) = (percentile(&micros, P50), percentile(&micros, P99));
    Ok(format!(
        "fdatasync of 1,200 appended bytes: p50 {p50:.0} µs, p99 {p99:.0} µs"
    ))
}
