//! Tasks of the project: `cargo xtask TASK`. One file a task; what several of them need is in `paths`, `sh` and `elf`.
#![forbid(unsafe_code)]

mod agents;
mod bench;
mod demo;
mod dist;
mod ebpf;
mod elf;
mod engine;
mod fuzz;
mod image;
mod lint;
mod paths;
mod proto;
mod redteam;
mod setup;
mod sh;
mod test;
mod vm;

use clap::{Parser, Subcommand};

/// Set-up, builds, demo and proof of agentcontainer.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
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
    /// Install what is missing on Debian or Ubuntu, and start an engine
    Setup(setup::Arguments),
    /// Set up, build, and show the main job end to end
    Demo(demo::Arguments),
    /// Run the unit tests, then the end-to-end tests against the built binary
    Test(test::Arguments),
    /// Try every written-down way out against the built binary, and print what stopped it
    Redteam(redteam::Arguments),
    /// Check what needs no engine: format, lints, generated files, the eBPF object, dependencies, file heads
    Lint(lint::Arguments),
    /// Run every fuzz target for a while
    Fuzz(fuzz::Arguments),
    /// Measure speed and memory, each as a ratio within one run; docs/performance.md keeps the last result
    Bench(bench::Arguments),
    /// Boot other kernels in QEMU and run tests there with the tree's binaries
    Vm(vm::Arguments),
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
        Task::Setup(arguments) => setup::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Redteam(arguments) => redteam::run(&arguments),
        Task::Lint(arguments) => lint::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Vm(arguments) => vm::run(&arguments),
        Task::Proto => proto::run(),
    }
}
