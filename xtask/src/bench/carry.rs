//! Bytes and new connections through the gateway (`tls`, `tcp`), against the same load without anything between, over a
//! veth pair as on an engine's bridge, and through haproxy on the gateway's own path. Nothing is pinned: load, far side
//! and proxy share all CPUs, so what a proxy spends is what the load loses; its CPU time is shown beside.

use anyhow::Result;

use super::Effort;
use super::driver::{Driver, Figures, alone};
use super::haproxy::{Haproxy, Mode};
use super::report::{self, Series};
use super::rig::{self, NAME, Rig, Session, TCP_BULK, TCP_SHORT, TLS_BULK, TLS_SHORT};

/// The veth pair of the load that has no session.
const FAR_SIDE: &str = "192.0.2.1";
const NEAR_SIDE: &str = "192.0.2.2";

/// A way from the load to the far side.
struct Way {
    name: &'static str,
    from_session: bool,
    /// `ADDRESS:PORT[/NAME]` of many bytes, and of short connections.
    bulk: String,
    short: String,
    /// The processes between.
    between: Vec<u32>,
}

/// What is measured, and which order does it.
struct Load {
    title: &'static str,
    /// With what stands for the target and the length.
    order: fn(&Way, u64) -> String,
    unit: Unit,
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    GibPerSecond,
    PerSecond,
}

const LOADS: [Load; 4] = [
    Load {
        title: "Download, one connection",
        order: |way, ms| format!("download {} 1 {ms}", way.bulk),
        unit: Unit::GibPerSecond,
    },
    Load {
        title: "Download, eight connections",
        order: |way, ms| format!("download {} 8 {ms}", way.bulk),
        unit: Unit::GibPerSecond,
    },
    Load {
        title: "Upload, one connection",
        order: |way, ms| format!("upload {} 1 {ms}", way.bulk),
        unit: Unit::GibPerSecond,
    },
    Load {
        title: "New connections, eight at a time, each with a question and an answer",
        order: |way, ms| format!("rate {} 8 {}", way.short, 2 * ms),
        unit: Unit::PerSecond,
    },
];

#[derive(Clone, Default)]
struct Measured {
    rate: Series,
    /// CPU seconds between, for a GiB or a connection.
    cpu: Series,
    p99: Series,
}

pub fn run(rig: &Rig, effort: Effort) -> Result<()> {
    let mut session = rig.session("carry", &rig::policy(2), "0-1")?;
    let address = session.address()?;
    let _local = session.beside(&["serve", "127.0.0.1", "7102", "7104"])?;
    let haproxy = Haproxy::start(rig, &session)?;
    let mut bare = veth(rig)?;
    let ways = ways(rig, &session, &haproxy, &address)?;
    for load in &LOADS {
        let mut measured = vec![Measured::default(); ways.len()];
        for _ in 0..effort.rounds {
            for (way, measured) in ways.iter().zip(&mut measured) {
                let order = (load.order)(way, effort.ms);
                let before = rig::cpu(&way.between)?;
                let figures = if way.from_session {
                    session.ask(&order)
                } else {
                    bare.ask(&order)
                }?;
                measured.push(&figures, rig::cpu(&way.between)? - before, load.unit)?;
            }
        }
        show(load, &ways, &measured);
    }
    Ok(())
}

/// A load in a namespace whose only way is a veth pair, as a container on a bridge has it.
fn veth(rig: &Rig) -> Result<Driver> {
    let driver = Driver::start(&mut alone(&["0-1", "drive"], &rig.load()))?;
    let pid = driver.pid().to_string();
    let ip = |words: &str| crate::sh::run(&mut crate::sh::command("ip", words.split(' ')));
    ip(&format!(
        "link add far type veth peer name near netns {pid}"
    ))?;
    ip(&format!("addr add {FAR_SIDE}/24 dev far"))?;
    ip("link set far up")?;
    let inside = format!("ip addr add {NEAR_SIDE}/24 dev near && ip link set near up");
    let mut enter = crate::sh::command("nsenter", [format!("--net=/proc/{pid}/ns/net")]);
    crate::sh::run(enter.args(["sh", "-c", &inside]))?;
    Ok(driver)
}

fn ways(rig: &Rig, session: &Session<'_>, haproxy: &Haproxy, address: &str) -> Result<Vec<Way>> {
    let ours = vec![session.gateway()?, rig.enforcer_pid()];
    let way =
        |name, from_session, host: &str, ports: (u16, u16), hello: &str, between: &[u32]| Way {
            name,
            from_session,
            bulk: format!("{host}:{}{hello}", ports.0),
            short: format!("{host}:{}{hello}", ports.1),
            between: between.to_vec(),
        };
    let hello = format!("/{NAME}");
    let (tls, tcp) = ((TLS_BULK, TLS_SHORT), (TCP_BULK, TCP_SHORT));
    let peer = |name, mode: Mode, far: (u16, u16), hello: &str| {
        let ports = (mode.port(far.0), mode.port(far.1));
        way(name, true, "127.0.0.1", ports, hello, &[haproxy.pid()])
    };
    Ok(vec![
        way("direct, loopback", true, "127.0.0.1", (7102, 7104), "", &[]),
        way("direct, veth", false, FAR_SIDE, tcp, "", &[]),
        way("`tcp` through the gateway", true, address, tcp, "", &ours),
        peer("haproxy, TCP", Mode::Plain, tcp, ""),
        peer("haproxy, TCP, splice-auto", Mode::Splice, tcp, ""),
        peer("haproxy, TCP, a log line each", Mode::Logging, tcp, ""),
        way(
            "`tls` through the gateway",
            true,
            address,
            tls,
            &hello,
            &ours,
        ),
        peer("haproxy, SNI", Mode::Plain, tls, &hello),
        peer("haproxy, SNI, splice-auto", Mode::Splice, tls, &hello),
        peer("haproxy, SNI, a log line each", Mode::Logging, tls, &hello),
    ])
}

impl Measured {
    fn push(&mut self, figures: &Figures, cpu: f64, unit: Unit) -> Result<()> {
        let seconds = Driver::figure(figures, "ns")? / 1e9;
        let amount = match unit {
            Unit::GibPerSecond => Driver::figure(figures, "bytes")? / f64::from(1 << 30),
            Unit::PerSecond => {
                self.p99.push(Driver::figure(figures, "whole_p99")?);
                Driver::figure(figures, "connections")?
            }
        };
        self.rate.push(amount / seconds);
        self.cpu.push(cpu / amount);
        Ok(())
    }
}

fn show(load: &Load, ways: &[Way], measured: &[Measured]) {
    let rate = load.unit == Unit::PerSecond;
    let mut columns = vec![
        "way",
        "rate",
        "to direct (loopback)",
        "to haproxy",
        "CPU between",
    ];
    if rate {
        columns.push("p99 of one");
    }
    report::head(load.title, &columns);
    for (way, figures) in ways.iter().zip(measured) {
        let peer = if way.name.contains("tls") {
            Some("haproxy, SNI")
        } else if way.name.contains("tcp") {
            Some("haproxy, TCP")
        } else {
            None
        };
        let peer = peer.and_then(|peer| ways.iter().position(|way| way.name == peer));
        let mut cells = vec![
            way.name.to_owned(),
            match load.unit {
                Unit::GibPerSecond => format!("{:.2} GiB/s", figures.rate.median()),
                Unit::PerSecond => format!("{:.0}/s", figures.rate.median()),
            },
            figures.rate.ratio(&measured[0].rate),
            peer.map_or("–".to_owned(), |peer| {
                figures.rate.ratio(&measured[peer].rate)
            }),
            match load.unit {
                _ if way.between.is_empty() => "–".to_owned(),
                Unit::GibPerSecond => format!("{:.2} s/GiB", figures.cpu.median()),
                Unit::PerSecond => format!("{:.0} µs each", figures.cpu.median() * 1e6),
            },
        ];
        if rate {
            cells.push(report::time(figures.p99.median()));
        }
        report::row(&cells);
    }
}
