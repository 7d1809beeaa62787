//! What the gate costs a single call: the same load in a session and in a bare network namespace, by turns on one CPU, and
//! in sessions with 1, 1,000 and 10,000 rules, every name of which has its address.

use anyhow::{Context, Result};

use super::Effort;
use super::driver::{Driver, Figures, alone};
use super::report::{self, Series};
use super::rig::{self, Rig, Session, TCP_SHORT};

const RULES: [usize; 3] = [1, 1_000, 10_000];
/// One CPU for the calls, so that two by turns have the same one.
const CPU: &str = "1";

/// A call, and which order and figure measure it.
struct Call {
    name: &'static str,
    order: &'static str,
    figure: &'static str,
}

const CALLS: [Call; 7] = [
    Call {
        name: "TCP socket()",
        order: "own-tcp",
        figure: "socket",
    },
    Call {
        name: "TCP connect(), own listener on 127.0.0.1",
        order: "own-tcp",
        figure: "connect",
    },
    Call {
        name: "UDP socket()",
        order: "udp-connect",
        figure: "socket",
    },
    Call {
        name: "UDP connect() to 127.0.0.1",
        order: "udp-connect",
        figure: "connect",
    },
    Call {
        name: "UDP sendto() to 127.0.0.1",
        order: "udp-send",
        figure: "send",
    },
    Call {
        name: "TCP connect(), another process's listener",
        order: "far-tcp",
        figure: "connect",
    },
    Call {
        name: "the same until its answer has come",
        order: "far-tcp",
        figure: "whole",
    },
];

/// p50 and p99 of every call, round by round.
#[derive(Default)]
struct Measured(Vec<(Series, Series)>);

impl Measured {
    fn of(calls: usize) -> Self {
        Self(vec![Default::default(); calls])
    }

    fn push(&mut self, at: usize, figures: &Figures, name: &str) -> Result<()> {
        self.0[at]
            .0
            .push(Driver::figure(figures, &format!("{name}_p50"))?);
        self.0[at]
            .1
            .push(Driver::figure(figures, &format!("{name}_p99"))?);
        Ok(())
    }
}

struct Side<'a> {
    driver: Place<'a>,
    /// Where another process listens: on loopback, or, in a session, at the synthetic address.
    far: String,
    measured: Measured,
}

enum Place<'a> {
    Bare(Driver),
    Session(Session<'a>),
}

impl Side<'_> {
    fn ask(&mut self, order: &str) -> Result<Figures> {
        match &mut self.driver {
            Place::Bare(driver) => driver.ask(order),
            Place::Session(session) => session.ask(order),
        }
    }

    fn round(&mut self, calls: u64) -> Result<()> {
        for order in ["own-tcp", "udp-connect", "udp-send", "far-tcp"] {
            let figures = match order {
                "far-tcp" => self.ask(&format!("far-tcp {} {}", self.far, calls / 10))?,
                order => self.ask(&format!("{order} {calls}"))?,
            };
            for (at, call) in CALLS.iter().enumerate() {
                if call.order == order {
                    self.measured.push(at, &figures, call.figure)?;
                }
            }
        }
        Ok(())
    }
}

pub fn run(rig: &Rig, effort: Effort) -> Result<()> {
    let bare = Driver::start(&mut alone(&[CPU, "drive"], &rig.load()))?;
    let mut enter = crate::sh::command("nsenter", [format!("--net=/proc/{}/ns/net", bare.pid())]);
    enter
        .arg(rig.load())
        .args(["serve", "127.0.0.1", "7002", "7004"]);
    let _far = Driver::start(&mut enter)?;
    let mut sides = vec![Side {
        driver: Place::Bare(bare),
        far: format!("127.0.0.1:{TCP_SHORT}"),
        measured: Measured::of(CALLS.len()),
    }];
    for count in RULES {
        let mut session = rig
            .session(&format!("rules{count}"), &rig::policy(count), CPU)
            .with_context(|| format!("a session with {count} rules"))?;
        let far = format!("{}:{TCP_SHORT}", session.address()?);
        session.ask(&format!(
            "resolve-all other.test {}",
            count.saturating_sub(2)
        ))?;
        let measured = Measured::of(CALLS.len());
        sides.push(Side {
            driver: Place::Session(session),
            far,
            measured,
        });
    }
    let mut refused = (Series::default(), Series::default());
    for _ in 0..effort.rounds {
        for side in &mut sides {
            side.round(effort.calls)?;
        }
        let figures = sides[1].ask("refused 198.18.0.77:9 200")?;
        refused.0.push(Driver::figure(&figures, "refused_p50")?);
        refused.1.push(Driver::figure(&figures, "refused_p99")?);
    }
    show(&sides, &refused);
    Ok(())
}

fn show(sides: &[Side<'_>], refused: &(Series, Series)) {
    let [bare, gated, ..] = sides else { return };
    report::head(
        "One call, without and with the gate (one rule)",
        &[
            "call",
            "p50 without",
            "p50 with",
            "ratio",
            "p99 without",
            "p99 with",
            "ratio",
        ],
    );
    for (at, call) in CALLS.iter().enumerate() {
        let ((base50, base99), (with50, with99)) = (&bare.measured.0[at], &gated.measured.0[at]);
        report::row(&[
            call.name.to_owned(),
            report::time(base50.median()),
            report::time(with50.median()),
            with50.ratio(base50),
            report::time(base99.median()),
            report::time(with99.median()),
            with99.ratio(base99),
        ]);
    }
    let none = || "–".to_owned();
    report::row(&[
        "TCP connect() refused with EPERM, event included".to_owned(),
        none(),
        report::time(refused.0.median()),
        none(),
        none(),
        report::time(refused.1.median()),
        none(),
    ]);
    report::head(
        "The same by number of rules (p50; ratio to one rule)",
        &["call", "1", "1,000", "10,000", "1,000 : 1", "10,000 : 1"],
    );
    for (at, call) in CALLS.iter().enumerate() {
        let p50: Vec<&Series> = sides[1..]
            .iter()
            .map(|side| &side.measured.0[at].0)
            .collect();
        let mut cells = vec![call.name.to_owned()];
        cells.extend(p50.iter().map(|series| report::time(series.median())));
        cells.extend(p50[1..].iter().map(|series| series.ratio(p50[0])));
        report::row(&cells);
    }
}
