//! `cargo xtask redteam`: the escape attempts against the built binary on this machine, and the table of what stopped each.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::test;

#[derive(clap::Args)]
pub struct Arguments {
    /// Do not build the binary: attack the one that is there
    #[arg(long)]
    built: bool,
    /// Print the table of the last run, without a new one
    #[arg(long)]
    last: bool,
}

/// A line of the table, as the suite leaves it.
#[derive(Deserialize)]
struct Line {
    id: String,
    title: String,
    control: String,
    outcome: String,
    layer: String,
}

/// What is on the list and has no counterpart here yet.
const NOT_YET: &[(&str, &str)] = &[
    (
        "N25",
        "flows in flight when policy tightens: with `domain rm` on a live session",
    ),
    (
        "N34, D02",
        "data to allowed destinations: budgets and L7 rules; residual",
    ),
    (
        "D09-D18, D22-D28, D30",
        "HTTPS: once the gateway terminates TLS",
    ),
    (
        "F01-F18",
        "files: rules about single files are refused until they are enforced",
    ),
    (
        "E01-E13",
        "programs: rules about single programs are refused until they are enforced",
    ),
    (
        "K12, K16-K19, K23",
        "log proofs, approvals in flight, signed policy, lockfile, upgrades",
    ),
];

pub fn run(arguments: &Arguments) -> Result<()> {
    let file = test::results()?.join("redteam.jsonl");
    let mut ran = Ok(());
    if !arguments.last {
        let _ = fs::remove_file(&file);
        ran = test::run(&test::Arguments::suite("redteam", arguments.built));
    }
    let text = fs::read_to_string(&file).context("the suite left no table")?;
    // A repeated run of one attempt replaces its line.
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let line: Line =
            serde_json::from_str(line).context("the table cannot be read: run it anew")?;
        lines.insert(line.id.clone(), line);
    }
    println!(
        "{:<6} {:<58} {:<9} {:<52} control",
        "id", "attempt", "outcome", "stopped by"
    );
    for line in lines.values() {
        println!(
            "{:<6} {:<58} {:<9} {:<52} {}",
            line.id, line.title, line.outcome, line.layer, line.control
        );
    }
    NOT_YET
        .iter()
        .for_each(|(ids, why)| println!("not yet: {ids}: {why}"));
    let leaked: Vec<&str> = lines
        .values()
        .filter(|line| line.outcome == "LEAKED")
        .map(|line| line.id.as_str())
        .collect();
    println!("{} attempts, {} got out", lines.len(), leaked.len());
    if !leaked.is_empty() {
        bail!("got out: {}", leaked.join(", "));
    }
    ran
}
