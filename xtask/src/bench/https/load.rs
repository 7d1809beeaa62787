//! The load: wrk, h2load and curl in the session's cgroup and network namespace, and what they say of it. None of the first
//! two looks at certificates; curl does, by the session's authority or the peers' root.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::super::rig::Session;
use super::Way;
use crate::sh;

/// Bytes of a long body.
const LONG: f64 = 1024.0 * 1024.0 * 1024.0;

/// One round of one way.
pub struct Measured {
    pub per_second: f64,
    /// How many requests, or GiB.
    pub count: f64,
    /// Nanoseconds; 0 where the load does not say.
    pub p50: f64,
    pub p99: f64,
}

fn threads(connections: usize) -> String {
    connections.min(2).to_string()
}

/// `anew`: each request on a connection of its own.
pub fn wrk(
    session: &Session<'_>,
    way: &Way,
    connections: usize,
    anew: bool,
    ms: u64,
) -> Result<Measured> {
    let mut command = wrk_command(session, way, connections, ms.div_ceil(1000))?;
    if anew {
        command.args(["-H", "Connection: close"]);
    }
    let said = sh::output(&mut command)?;
    ensure!(
        !said.contains("Non-2xx"),
        "another answer than was expected: {said}"
    );
    let after = |key: &str| -> Result<&str> {
        let line = said
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(key))
            .with_context(|| format!("wrk says no {key}: {said}"))?;
        line.split_whitespace().next().context("wrk says nothing")
    };
    let count = said
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .with_context(|| format!("wrk counts nothing: {said}"))?;
    Ok(Measured {
        per_second: after("Requests/sec:")?.parse()?,
        count: count.0.parse()?,
        p50: nanoseconds(after("50%")?)?,
        p99: nanoseconds(after("99%")?)?,
    })
}

fn wrk_command(
    session: &Session<'_>,
    way: &Way,
    connections: usize,
    seconds: u64,
) -> Result<Command> {
    let mut command = session.inside()?;
    command
        .args(&way.ahead)
        .args(["wrk", "--latency", "-t", &threads(connections)])
        .args(["-c", &connections.to_string()])
        .args(["-d", &format!("{seconds}s")])
        .arg(format!("https://{}/", way.authority));
    Ok(command)
}

pub fn h2load(
    session: &Session<'_>,
    way: &Way,
    connections: usize,
    streams: usize,
    ms: u64,
) -> Result<Measured> {
    let mut command = session.inside()?;
    command
        .args(&way.ahead)
        .args(["h2load", "-t", &threads(connections)])
        .args(["-c", &connections.to_string(), "-m", &streams.to_string()])
        .args(["-D", &ms.div_ceil(1000).to_string()])
        .arg(format!("https://{}/", way.authority));
    let said = sh::output(&mut command)?;
    // "finished in 1.00s, 12345.00 req/s, 1.2MB/s" and "requests: 12345 total, …, 12345 succeeded, 0 failed, …"
    let rate = said
        .lines()
        .find(|line| line.starts_with("finished in"))
        .and_then(|line| line.split(", ").nth(1)?.strip_suffix(" req/s"))
        .with_context(|| format!("h2load says no rate: {said}"))?;
    let requests = said
        .lines()
        .find(|line| line.starts_with("requests:"))
        .with_context(|| format!("h2load counts nothing: {said}"))?;
    let number = |what: &str| -> Result<f64> {
        let cell = requests
            .trim_start_matches("requests:")
            .split(',')
            .find_map(|cell| cell.trim().strip_suffix(what))
            .with_context(|| format!("h2load counts no {what}"))?;
        Ok(cell.trim().parse()?)
    };
    ensure!(number("failed")? == 0.0, "requests failed: {requests}");
    Ok(Measured {
        per_second: rate.parse()?,
        count: number("succeeded")?,
        p50: 0.0,
        p99: 0.0,
    })
}

/// One body of 1 GiB.
pub fn curl(session: &Session<'_>, way: &Way, up: bool) -> Result<Measured> {
    let mut command = session.inside()?;
    command.args(&way.ahead).args(["sh", "-c"]);
    let url = format!("https://{}", way.authority);
    // Whom the certificate is by is not what is measured.
    let script = if up {
        "head -c 1073741824 /dev/zero | curl -sSfk --http1.1 -H Expect: -T - -o /dev/null -w '%{time_total} %{size_upload}' \"$0/up\""
    } else {
        "curl -sSfk --http1.1 -o /dev/null -w '%{time_total} %{size_download}' \"$0/long\""
    };
    let said = sh::output(command.args([script, &url]))?;
    let Some((seconds, size)) = said.trim().split_once(' ') else {
        bail!("curl says {said:?}");
    };
    let size: f64 = size.parse()?;
    // What goes up is counted with its chunks' framing.
    ensure!(size >= LONG, "{size} bytes arrived");
    Ok(Measured {
        per_second: 1.0 / seconds.parse::<f64>()?,
        count: 1.0,
        p50: 0.0,
        p99: 0.0,
    })
}

/// Nanoseconds to the first event of a stream: the median and the 99th percentile of as many.
pub fn events(session: &Session<'_>, way: &Way, count: usize) -> Result<(f64, f64)> {
    let (host, port) = way.authority.split_once(':').context("no port")?;
    let mut command = session.inside()?;
    command
        .args(&way.ahead)
        .args(["python3", "-c", include_str!("events/load.py")])
        .args([host, port, &count.to_string()]);
    let said = sh::output(&mut command)?;
    let (p50, p99) = said.trim().split_once(' ').context("no times")?;
    Ok((p50.parse()?, p99.parse()?))
}

/// Calls `look` while as many connections ask.
pub fn while_loaded(
    session: &Session<'_>,
    way: &Way,
    connections: usize,
    look: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut child = wrk_command(session, way, connections, 4)?
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start wrk")?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let looked = look();
    child.wait()?;
    looked
}

/// wrk's `1.23ms`.
fn nanoseconds(text: &str) -> Result<f64> {
    for (suffix, factor) in [("us", 1e3), ("ms", 1e6), ("s", 1e9)] {
        if let Some(number) = text.strip_suffix(suffix) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("{text} is no time")
}
