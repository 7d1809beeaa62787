//! Tasks of the project: `cargo xtask TASK`. One file a task; what several of them need is in `paths`, `sh` and `elf`.
#![forbid(unsafe_code)]

mod dist;
mod ebpf;
mod elf;
mod engine;
mod image;
mod paths;
mod proto;
mod sh;

use clap::{Parser, Subcommand};

/// Set-up, builds, demo and proof of agentcontainer.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the eBPF object and put it, with its manifest, where `cargo build` embeds it from
    Ebpf(ebpf::Arguments),
    /// Build target/dist/agentcontainer: one static, stripped file with every part inside
    Dist(dist::Arguments),
    /// Give the tests a container engine: the machine's own where that will do, else one of ours
    Engine(engine::Arguments),
    /// Make the images that demo and tests run, and load them into the engine
    Image(image::Arguments),
    /// Generate the control channel's Rust code from its .proto file
    Proto,
}

fn main() -> std::process::ExitCode {
    let done = match std::env::var_os(ebpf::WRAPPER) {
        Some(_) => ebpf::wrap_rustc(),
        None => run(Arguments::parse().task),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Ebpf(arguments) => ebpf::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Engine(arguments) => engine::run(&arguments),
        Task::Image(arguments) => image::run(&arguments),
        Task::Proto => proto::run(),
    }
}
