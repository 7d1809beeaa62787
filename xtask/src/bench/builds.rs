//! What rules about files and programs cost ordinary work: a status of git, an installation of npm and a build of cargo, in sessions that
//! differ in their rules alone, by turns. Which layer carries them here is said first; with BPF LSM it is another (`cargo xtask vm 6.12 bench`).

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Effort;
use super::report::{self, Series};
use super::start::Place;
use crate::{agents, image, sh};

/// One kind of work.
struct Work {
    name: &'static str,
    image: &'static str,
    /// In an empty directory.
    prepare: &'static str,
    measured: &'static str,
    /// What it starts, beside the shell that measures.
    programs: &'static [&'static str],
}

const WORKS: [Work; 4] = [
    Work {
        name: "`git status`, 5,000 files, ten times",
        image: image::TEST,
        prepare: "git init -q .; for d in $(seq 50); do mkdir d$d; for f in $(seq 100); do echo $d $f >d$d/f$f; done; done
            git add -A; git -c user.email=a@b.c -c user.name=a commit -qm all; git status",
        measured: "for n in 1 2 3 4 5 6 7 8 9 10; do git status --porcelain; done",
        programs: &["git"],
    },
    Work {
        name: "`javac`, 120 classes",
        image: image::TEST,
        prepare: r#"mkdir s; for c in $(seq 120); do
            echo "class C$c { java.util.List<String> of(String s) { return java.util.Arrays.stream(s.split(\" \")).map(w -> w + $c).toList(); } }" >s/C$c.java; done"#,
        measured: "rm -rf o; javac -d o s/*.java",
        programs: &["javac", "rm"],
    },
    Work {
        name: "`npm ci`, 60 packages with 40 files each",
        image: agents::IMAGE,
        prepare: r#"mkdir t; list=; for p in $(seq 60); do mkdir -p package
            for f in $(seq 40); do echo "module.exports = $f" >package/m$f.js; done
            echo "{\"name\":\"p$p\",\"version\":\"1.0.0\"}" >package/package.json
            tar -czf t/p$p.tgz package; rm -r package; list="$list,\"p$p\":\"file:t/p$p.tgz\""; done
            echo "{\"name\":\"all\",\"version\":\"1.0.0\",\"dependencies\":{${list#,}}}" >package.json
            npm install --package-lock-only --offline --silent --no-audit --no-fund"#,
        measured: "npm ci --offline --silent --no-audit --no-fund",
        programs: &["npm", "node", "env"],
    },
    Work {
        name: "`cargo build`, 8 crates",
        image: image::CLIENTS,
        prepare: r##"list=; needs=; for c in $(seq 8); do mkdir -p c$c/src
            printf '[package]\nname = "c%s"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\n%b' $c "$needs" >c$c/Cargo.toml
            for f in $(seq 60); do echo "#[derive(Clone, Debug, PartialEq, Default)] pub struct S$f { pub a: Vec<u8>, pub b: Option<String> }
            pub fn f$f(of: &str) -> usize { of.split(' ').map(|word| format!(\"{word:?} {:?}\", S$f::default()).len()).sum() }"; done >c$c/src/lib.rs
            needs="${needs}c$c = { path = \"../c$c\" }\n"; list="$list, \"c$c\""; done
            printf '[workspace]\nresolver = "2"\nmembers = [%s]\n' "${list#, }" >Cargo.toml
            echo 'fn main() { println!("{}", c1::f1("a b") + c7::f60("c")) }' >c8/src/main.rs; cargo build --offline --quiet"##,
        measured: "rm -r target; cargo build --offline --quiet",
        programs: &["cargo", "rustc", "cc", "ld", "rm"],
    },
];

/// What measures.
const SHELL: [&str; 5] = ["bash", "sh", "date", "sleep", "sync"];
/// The most that rules name here.
const PATHS: usize = 400;
const BASE: &str = "none";

pub fn run(host: &str, guest: bool, effort: Effort) -> Result<()> {
    for work in &WORKS {
        match work.image {
            image::TEST if guest => (),
            _ if guest => {
                println!(
                    "\nleft out: {}: its image is not in this machine",
                    work.name
                );
                continue;
            }
            agents::IMAGE => agents::image(host)?,
            name => image::ensure(host, name)?,
        }
        measure(host, work, effort)?;
    }
    Ok(())
}

/// Rules by name: about files beside the work, and the whole list of what it starts.
fn rules(host: &str, work: &Work) -> Result<Vec<(&'static str, Value)>> {
    let paths = |count: usize| {
        let one = |kind: &str| -> Vec<String> {
            let many = (0..count / 2).map(|n| format!("{kind}/file-{n}"));
            many.collect()
        };
        json!({ "filesystem": { "readOnlyPaths": one("kept"), "deniedPaths": one("denied") } })
    };
    let mut programs: Vec<String> = [&SHELL, work.programs]
        .concat()
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    // What compilers and git start by paths of their own.
    let script =
        "cc -print-prog-name=collect2 2>/dev/null; git --exec-path 2>/dev/null | sed 's,$,/git,'";
    let mut docker = sh::command(
        "docker",
        [
            "--host",
            host,
            "run",
            "--rm",
            "--network",
            "none",
            work.image,
            "sh",
            "-c",
            script,
        ],
    );
    let own = sh::output(&mut docker)?;
    programs.extend(
        own.lines()
            .filter(|path| path.starts_with('/'))
            .map(str::to_owned),
    );
    Ok(vec![
        (BASE, json!({})),
        ("10 paths", paths(10)),
        ("400 paths", paths(PATHS)),
        (
            "list of programs",
            json!({ "tools": { "allowedBinaries": programs } }),
        ),
    ])
}

fn measure(host: &str, work: &Work, effort: Effort) -> Result<()> {
    let place = Place::new(host, work.image)?;
    for kind in ["kept", "denied"] {
        for n in 0..PATHS / 2 {
            place.put(&format!("{kind}/file-{n}"), "")?;
        }
    }
    place.give_away()?;
    let rules = rules(host, work)?;
    for (n, (_, capabilities)) in rules.iter().enumerate() {
        place.configure(
            &json!({ "image": work.image, "agent": { "capabilities": capabilities } }),
        )?;
        let name = name(n);
        place.cli(&[
            "run", "--yes", "--lock", "-d", "--name", &name, "--", "sleep", "infinity",
        ])?;
    }
    // They share the workspace.
    let prepare = format!(
        "set -eu; export HOME=/tmp; mkdir -p bench; cd bench; {}",
        work.prepare
    );
    place.cli(&["exec", &name(0), "--", "bash", "-c", &prepare])?;
    let script = format!(
        "set -eu; export HOME=/tmp; cd bench; a=$(date +%s%N); {}; b=$(date +%s%N); echo $((b-a))",
        work.measured
    );
    let mut series: Vec<Vec<f64>> = vec![Vec::new(); rules.len()];
    for round in 0..=effort.rounds {
        for (n, of) in series.iter_mut().enumerate() {
            let said = place.cli(&["exec", &name(n), "--", "bash", "-c", &script])?;
            let whole: f64 = said.trim().parse().context("no time")?;
            ensure!(whole > 0.0, "no time");
            // The first one fills caches.
            if round > 0 {
                of.push(whole);
            }
        }
    }
    report::head(
        &format!("Under rules about files and programs: {}", work.name),
        &["rules", "whole", "ratio"],
    );
    let series: Vec<Series> = series.into_iter().map(Series).collect();
    let Some(base) = series.first() else {
        return Ok(());
    };
    for ((name, _), of) in rules.iter().zip(&series) {
        report::row(&[
            (*name).to_owned(),
            report::time(of.median()),
            of.ratio(base),
        ]);
    }
    Ok(())
}

fn name(n: usize) -> String {
    format!("builds{n}")
}
