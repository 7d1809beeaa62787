//! `cargo xtask redteam`: the escape attempts against the built binary on this machine, and the table of what stopped each. Every
//! attempt that is written down is in the table, or said to be asked elsewhere, or said not to be asked yet.

mod list;

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

/// The outcome of an attempt that got out.
const LEAKED: &str = "LEAKED";

/// A line of the table, as the suite leaves it.
#[derive(Deserialize)]
struct Line {
    id: String,
    title: String,
    control: String,
    outcome: String,
    layer: String,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let file = test::results()?.join("redteam.jsonl");
    let mut ran = Ok(());
    if !arguments.last {
        let _ = fs::remove_file(&file);
        ran = test::run(&test::Arguments::suite("redteam", arguments.built));
    }
    let text = fs::read_to_string(&file).context("the suite left no table")?;
    let lines = table(&text)?;
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
    for (words, rows) in [
        ("asked elsewhere", list::ELSEWHERE),
        ("not yet", list::NOT_YET),
    ] {
        rows.iter()
            .for_each(|(ids, why)| println!("{words}: {ids}: {why}"));
    }
    let unaccounted = list::unaccounted(lines.keys().map(String::as_str));
    let leaked: Vec<&str> = lines
        .values()
        .filter(|line| line.outcome == LEAKED)
        .map(|line| line.id.as_str())
        .collect();
    println!("{} attempts, {} got out", lines.len(), leaked.len());
    if !leaked.is_empty() {
        bail!("got out: {}", leaked.join(", "));
    }
    ran?;
    if !unaccounted.is_empty() {
        bail!(
            "neither asked nor accounted for: {}",
            unaccounted.join(", ")
        );
    }
    Ok(())
}

/// The lines by attempt. Of several of one attempt the last counts, but what got out once has got out.
fn table(text: &str) -> Result<BTreeMap<String, Line>> {
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    for line in text.lines() {
        let line: Line =
            serde_json::from_str(line).context("the table cannot be read: run it anew")?;
        if lines
            .get(&line.id)
            .is_none_or(|before| before.outcome != LEAKED)
        {
            lines.insert(line.id.clone(), line);
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_got_out_once_has_got_out() {
        let line = |outcome: &str| {
            format!(
                r#"{{"id":"N01","title":"t","control":"works","outcome":"{outcome}","layer":""}}"#
            )
        };
        let said = |outcomes: &[&str]| {
            let text: Vec<String> = outcomes.iter().map(|one| line(one)).collect();
            table(&text.join("\n")).unwrap()["N01"].outcome.clone()
        };
        assert_eq!(said(&["stopped", LEAKED]), LEAKED);
        assert_eq!(said(&[LEAKED, "stopped"]), LEAKED);
        assert_eq!(said(&["stopped", "works"]), "works");
    }
}
