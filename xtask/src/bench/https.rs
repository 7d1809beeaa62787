//! Requests through `https`: TLS ends in the gateway and begins anew behind it, against the same load without anything between
//! and through nginx, haproxy, hudsucker and mitmproxy that do the same. Load, far side and proxies share all CPUs; the peers stand in the
//! session's network namespace, so that the load's connections pass the same programs whichever way they go. wrk asks over
//! HTTP/1.1, h2load over HTTP/2, curl moves one long body, and a program of the bench's own waits for the first event of a stream.

mod load;
mod peers;

use anyhow::{Context, Result};

use super::Effort;
use super::report::{self, Series};
use super::rig::{self, NAME, Rig, Session};
use load::Measured;
use peers::Peers;

/// The far side's port, wherever it stands.
const FAR: u16 = 7443;

/// A way from the load to the far side.
struct Way {
    name: &'static str,
    /// What the load names, with its port.
    authority: String,
    /// The processes between, and with what they started since.
    between: Vec<u32>,
    h2: bool,
    /// Too slow for a gigabyte in one round.
    slow: bool,
    /// What goes ahead of the load's own words.
    ahead: Vec<String>,
}

/// What a session's namespaces, which reach no registry, could not.
pub fn build() {
    if let Err(error) = peers::build() {
        eprintln!("hudsucker cannot be built: {error:#}");
    }
}

pub fn run(rig: &Rig, effort: Effort) -> Result<()> {
    let secrets = peers::Certificates::make(&rig.dir)?;
    let mut session = rig.session_that_trusts("https", &policy(), "0-1", &secrets.root_der)?;
    let address = session.address()?;
    let peers = Peers::start(rig, &session, &secrets)?;
    peers::name(&address)?;
    let ours = vec![session.gateway()?, rig.enforcer_pid()];
    let ways = ways(&peers, &ours);
    requests(&session, &ways, effort)?;
    streams(&session, &ways, effort)?;
    events(&session, &ways, effort)?;
    long(&session, &ways, effort)?;
    memory(&session, ways.get(1).context("no gateway")?)
}

/// The name and the peers' own, all allowed at their ports: the gate lets loopback through anyway.
fn policy() -> serde_json::Value {
    serde_json::json!({
        "version": 1,
        "network": [{"rules": [{
            "host": NAME, "ports": [FAR], "protocol": "https", "action": "allow",
            "origin": {"file": "agentcontainer.json", "line": 1, "column": 1},
        }]}],
        "gateway": {"hosts": {NAME: ["127.0.0.1"]}},
    })
}

fn ways(peers: &Peers, ours: &[u32]) -> Vec<Way> {
    let beside = |name, port: u16, between: Vec<u32>, h2| Way {
        name,
        authority: format!("{}:{port}", peers::BESIDE),
        between,
        h2,
        slow: false,
        ahead: Vec::new(),
    };
    let mut ways = vec![
        beside("direct", FAR, Vec::new(), true),
        Way {
            name: "`https` through the gateway",
            authority: format!("{NAME}:{FAR}"),
            between: ours.to_vec(),
            h2: true,
            slow: false,
            ahead: Vec::new(),
        },
        beside("nginx, a log line each", peers::NGINX, peers.nginx(), true),
        beside(
            "haproxy, a log line each",
            peers::HAPROXY,
            peers.haproxy(),
            true,
        ),
    ];
    match peers.hudsucker() {
        Some((pids, ahead)) => ways.push(Way {
            ahead,
            // What is ahead of the load takes it to the proxy.
            ..beside("hudsucker, no log", FAR, pids, true)
        }),
        None => println!("\nhudsucker is not built: its rows are left out"),
    }
    match peers.mitmproxy() {
        Some(pids) => ways.push(Way {
            slow: true,
            ..beside("mitmproxy", peers::MITMPROXY, pids, true)
        }),
        None => println!("\nmitmproxy is not installed: its rows are left out"),
    }
    ways
}

/// Requests a second and their times, by connections at once.
fn requests(session: &Session<'_>, ways: &[Way], effort: Effort) -> Result<()> {
    for (title, anew) in [("kept connections", false), ("a new connection each", true)] {
        for connections in [1, 16, 256] {
            let measured = rounds(ways, effort, |way| {
                load::wrk(session, way, connections, anew, 2 * effort.ms)
            })?;
            let title = format!("HTTP/1.1, {connections} at a time, {title}");
            show(&title, ways.iter().collect(), &measured, "request");
        }
    }
    Ok(())
}

/// The same over HTTP/2, sixteen streams a connection.
fn streams(session: &Session<'_>, ways: &[Way], effort: Effort) -> Result<()> {
    if !crate::sh::there("h2load") {
        println!("\nh2load is not installed: HTTP/2 is left out");
        return Ok(());
    }
    let ways: Vec<&Way> = ways.iter().filter(|way| way.h2).collect();
    let measured = rounds(&ways, effort, |way| {
        load::h2load(session, way, 16, 16, 2 * effort.ms)
    })?;
    show(
        "HTTP/2, 16 connections of 16 streams",
        ways,
        &measured,
        "request",
    );
    Ok(())
}

/// The first event of a stream whose second comes later, on a kept connection.
fn events(session: &Session<'_>, ways: &[Way], effort: Effort) -> Result<()> {
    let ways: Vec<&Way> = ways.iter().filter(|way| !way.slow).collect();
    let mut all = vec![(Series::default(), Series::default()); ways.len()];
    for _ in 0..effort.rounds {
        for (way, (p50, p99)) in ways.iter().zip(&mut all) {
            let (median, late) =
                load::events(session, way, effort.ms as usize / 4).with_context(|| way.name)?;
            p50.push(median);
            p99.push(late);
        }
    }
    let columns = ["way", "p50", "to direct", "over direct", "p99"];
    report::head("First event of a stream, one at a time", &columns);
    for (at, (way, (p50, p99))) in ways.iter().zip(&all).enumerate() {
        let over = p50.median() - all[0].0.median();
        report::row(&[
            way.name.to_owned(),
            report::time(p50.median()),
            p50.ratio(&all[0].0),
            match at {
                0 => "–".to_owned(),
                _ => format!("+{}", report::time(over.max(0.0))),
            },
            report::time(p99.median()),
        ]);
    }
    Ok(())
}

/// One long body, down and up.
fn long(session: &Session<'_>, ways: &[Way], effort: Effort) -> Result<()> {
    let ways: Vec<&Way> = ways.iter().filter(|way| !way.slow).collect();
    for (title, up) in [
        ("1 GiB down, one connection", false),
        ("1 GiB up, one connection", true),
    ] {
        let few = Effort {
            rounds: effort.rounds.min(5),
            ..effort
        };
        let measured = rounds(&ways, few, |way| load::curl(session, way, up))?;
        show(title, ways.clone(), &measured, "GiB");
    }
    Ok(())
}

/// What the gateway holds while a thousand connections ask at once.
fn memory(session: &Session<'_>, way: &Way) -> Result<()> {
    report::head(
        "The gateway's memory (RSS / PSS / of that anonymous, MiB)",
        &["when", "gateway"],
    );
    let gateway = session.gateway()?;
    let show = |when: &str| -> Result<()> {
        report::row(&[when.to_owned(), super::memory::memory(gateway)?]);
        Ok(())
    };
    show("before")?;
    load::while_loaded(session, way, 1000, || {
        show("two seconds into 1,000 connections that ask")
    })?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    show("after they closed")
}

fn rounds<W: std::borrow::Borrow<Way>>(
    ways: &[W],
    effort: Effort,
    measure: impl Fn(&Way) -> Result<Measured>,
) -> Result<Vec<Rounds>> {
    let mut all = vec![Rounds::default(); ways.len()];
    for _ in 0..effort.rounds {
        for (way, rounds) in ways.iter().map(std::borrow::Borrow::borrow).zip(&mut all) {
            let before = rig::cpu(&way.between)?;
            let measured = measure(way).with_context(|| way.name)?;
            let cpu = rig::cpu(&way.between)? - before;
            rounds.rate.push(measured.per_second);
            rounds.cpu.push(cpu / measured.count);
            rounds.p50.push(measured.p50);
            rounds.p99.push(measured.p99);
        }
    }
    Ok(all)
}

#[derive(Clone, Default)]
struct Rounds {
    rate: Series,
    /// CPU seconds between, for one of what is counted.
    cpu: Series,
    /// Nanoseconds.
    p50: Series,
    p99: Series,
}

fn show(title: &str, ways: Vec<&Way>, measured: &[Rounds], what: &str) {
    let of = |name: &str| ways.iter().position(|way| way.name.starts_with(name));
    let timed = measured[0].p50.median() > 0.0;
    let mut columns = vec![
        "way",
        "a second",
        "to direct",
        "gateway to it",
        "CPU between",
    ];
    if timed {
        columns.extend(["p50", "over direct", "p99"]);
    }
    report::head(title, &columns);
    let gateway = of("`https`").map(|at| &measured[at]);
    for (at, (way, rounds)) in ways.iter().zip(measured).enumerate() {
        if rounds.rate.median() == 0.0 {
            let mut cells = vec![way.name, "no answer"];
            cells.resize(columns.len(), "–");
            report::row(&cells);
            continue;
        }
        let mut cells = vec![
            way.name.to_owned(),
            match what {
                "GiB" => format!("{:.2} GiB", rounds.rate.median()),
                _ => format!("{:.0}", rounds.rate.median()),
            },
            rounds.rate.ratio(&measured[0].rate),
            match gateway {
                Some(gateway) if at > 1 => gateway.rate.ratio(&rounds.rate),
                _ => "–".to_owned(),
            },
            match what {
                _ if way.between.is_empty() => "–".to_owned(),
                "GiB" => format!("{:.2} s each", rounds.cpu.median()),
                _ => format!("{:.0} µs each", rounds.cpu.median() * 1e6),
            },
        ];
        if timed {
            let over = Series(
                rounds
                    .p50
                    .0
                    .iter()
                    .zip(&measured[0].p50.0)
                    .map(|(mine, direct)| mine - direct)
                    .collect(),
            );
            cells.push(report::time(rounds.p50.median()));
            cells.push(if at == 0 {
                "–".to_owned()
            } else {
                format!("+{}", report::time(over.median().max(0.0)))
            });
            cells.push(report::time(rounds.p99.median()));
        }
        report::row(&cells);
    }
}
