//! What rules about files and programs cost whoever is under them: a program started and waited for, a file opened and closed, in sessions that
//! differ in their rules alone, by turns. Which layer carries them here is in the session's banner; with BPF LSM it is another.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Effort;
use super::report::{self, Series};
use super::start::Place;
use crate::image;

/// Starts `true`, or opens a file, as often as its first argument says, and prints the nanoseconds that took.
const START: &str = "n=$1; a=$(date +%s%N); while [ $n -gt 0 ]; do /usr/bin/true; n=$((n-1)); done; b=$(date +%s%N); echo $((b-a))";
const OPEN: &str = "n=$1; a=$(date +%s%N); while [ $n -gt 0 ]; do : </etc/hostname; n=$((n-1)); done; b=$(date +%s%N); echo $((b-a))";
const BASE: &str = "none";

/// Sessions by name, with what is special in each.
fn sessions() -> [(&'static str, Value); 4] {
    let programs = ["sh", "date", "true", "sleep"];
    let many = |count: usize| -> Vec<String> {
        let more = (0..count - programs.len()).map(|n| format!("no-such-program-{n}"));
        programs
            .map(str::to_owned)
            .into_iter()
            .chain(more)
            .collect()
    };
    [
        (BASE, json!({})),
        (
            "denied",
            json!({ "tools": { "deniedBinaries": ["curl", "perl"] }, "filesystem": { "readOnlyPaths": ["/usr", "/etc"] } }),
        ),
        (
            "list of 10",
            json!({ "tools": { "allowedBinaries": many(10) } }),
        ),
        (
            "list of 256",
            json!({ "tools": { "allowedBinaries": many(256) } }),
        ),
    ]
}

pub fn run(host: &str, guest: bool, effort: Effort) -> Result<()> {
    let image = if guest { image::TEST } else { image::DEMO };
    if !guest {
        image::ensure(host, image)?;
    }
    let place = Place::new(host, image)?;
    let sessions = sessions();
    let under = |capabilities: &Value| {
        place.configure(&json!({ "image": image, "agent": { "capabilities": capabilities } }))
    };
    let mut starts: Vec<Vec<f64>> = vec![Vec::new(); sessions.len()];
    for _ in 0..effort.starts {
        for ((_, capabilities), of) in sessions.iter().zip(&mut starts) {
            under(capabilities)?;
            let began = Instant::now();
            place.cli(&["run", "--yes", "--lock", "--", "true"])?;
            of.push(began.elapsed().as_nanos() as f64);
        }
    }
    table("a session begun and ended", &sessions, starts);
    for (n, (_, capabilities)) in sessions.iter().enumerate() {
        under(capabilities)?;
        let name = name(n);
        place.cli(&[
            "run", "--yes", "--lock", "-d", "--name", &name, "--", "sleep", "infinity",
        ])?;
    }
    for (what, script, count) in [
        ("a program started and waited for", START, effort.calls / 10),
        ("a file opened and closed", OPEN, effort.calls * 10),
    ] {
        let mut series: Vec<Vec<f64>> = vec![Vec::new(); sessions.len()];
        for _ in 0..effort.rounds {
            for (n, of) in series.iter_mut().enumerate() {
                let (name, count) = (name(n), count.to_string());
                let said = place.cli(&["exec", &name, "--", "sh", "-c", script, "sh", &count])?;
                let whole: f64 = said.trim().parse().context("no time")?;
                ensure!(whole > 0.0, "no time");
                of.push(whole / count.parse::<f64>()?);
            }
        }
        table(what, &sessions, series);
    }
    Ok(())
}

/// Each of the sessions against the first.
fn table(what: &str, sessions: &[(&str, Value)], series: Vec<Vec<f64>>) {
    report::head(
        &format!("Under rules about files and programs: {what}"),
        &["rules", "each", "ratio"],
    );
    let series: Vec<Series> = series.into_iter().map(Series).collect();
    let Some(base) = series.first() else { return };
    for ((name, _), of) in sessions.iter().zip(&series) {
        report::row(&[
            (*name).to_owned(),
            report::time(of.median()),
            of.ratio(base),
        ]);
    }
}

fn name(n: usize) -> String {
    format!("rules{n}")
}
