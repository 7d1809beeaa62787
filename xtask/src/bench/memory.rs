//! What enforcer and gateway hold: idle, with a thousand connections, and after them. PSS counts a page that two
//! processes share by halves; RSS counts it for both.

use std::fs;

use anyhow::{Context, Result};

use super::report;
use super::rig::{self, NAME, Rig, TCP_BULK, TLS_BULK};

const CONNECTIONS: u32 = 1000;

pub fn run(rig: &Rig) -> Result<()> {
    report::head(
        "Memory (RSS / PSS / of that anonymous, MiB)",
        &["when", "enforcer", "gateway"],
    );
    let mut session = rig.session("memory", &rig::policy(2), "0-1")?;
    let address = session.address()?;
    let gateway = session.gateway()?;
    let show = |when: &str| -> Result<()> {
        std::thread::sleep(std::time::Duration::from_millis(500));
        report::row(&[
            when.to_owned(),
            memory(rig.enforcer_pid())?,
            memory(gateway)?,
        ]);
        Ok(())
    };
    show("idle, one session")?;
    session.ask(&format!("hold {address}:{TCP_BULK} {}", CONNECTIONS / 2))?;
    session.ask(&format!(
        "hold {address}:{TLS_BULK}/{NAME} {}",
        CONNECTIONS / 2
    ))?;
    show("1,000 connections open, half `tcp`, half `tls`")?;
    session.ask("drop")?;
    show("after they closed")?;
    Ok(())
}

pub fn memory(pid: u32) -> Result<String> {
    // proc_pid_smaps_rollup(5), in KiB.
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        Ok(number
            .with_context(|| format!("no {name}"))?
            .parse::<f64>()?
            / 1024.0)
    };
    Ok(format!(
        "{:.1} / {:.1} / {:.1}",
        field("Rss:")?,
        field("Pss:")?,
        field("Anonymous:")?
    ))
}
