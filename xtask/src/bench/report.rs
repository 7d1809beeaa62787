//! Figures of rounds into medians, ratios and the lines that docs/performance.md keeps.

use std::fs;

use anyhow::{Context, Result};

/// One figure over all rounds.
#[derive(Clone, Default)]
pub struct Series(pub Vec<f64>);

impl Series {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub fn quantile(&self, at: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let index = ((sorted.len().saturating_sub(1)) as f64 * at).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    /// Round by round: what was noise in one round is in both.
    pub fn over(&self, base: &Self) -> Self {
        Self(self.0.iter().zip(&base.0).map(|(a, b)| a / b).collect())
    }

    /// Median, and the middle half of the rounds.
    pub fn ratio(&self, base: &Self) -> String {
        let ratio = self.over(base);
        format!(
            "{:.2} ({:.2}–{:.2})",
            ratio.median(),
            ratio.quantile(0.25),
            ratio.quantile(0.75)
        )
    }
}

pub fn head(title: &str, columns: &[&str]) {
    println!("\n### {title}\n");
    row(columns);
    row(&vec!["---"; columns.len()]);
}

pub fn row<S: AsRef<str>>(cells: &[S]) {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    println!("| {} |", cells.join(" | "));
}

/// Nanoseconds for people.
pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e4 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

pub fn load_average() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

pub fn machine() -> Result<()> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("?", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let count = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut release = kernel.trim().splitn(3, ['.', '-']);
    let (major, minor) = (
        release.next().context("no kernel release")?,
        release.next().unwrap_or_default(),
    );
    let guest = if cpus.contains(" hypervisor ") {
        ", virtual machine"
    } else {
        ""
    };
    println!(
        "{count} × {model}, Linux {major}.{minor}{guest}; load average {}",
        load_average()?
    );
    Ok(())
}
