//! `agentcontainer-enforcer serve`: the sidecar's program. Everything else it is told over the control channel.

use std::process::ExitCode;

use enforcer::places::Places;
use enforcer::service;

fn main() -> ExitCode {
    enforcer::memory::keep_small();
    match std::env::args().nth(1).as_deref() {
        Some("serve") => {}
        Some("version") => {
            println!("{}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("usage: agentcontainer-enforcer serve | version");
            return ExitCode::from(125);
        }
    }
    if let Err(error) = run() {
        eprintln!("agentcontainer-enforcer: {error}");
        return ExitCode::from(125);
    }
    ExitCode::SUCCESS
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    enforcer::memory::keep_to_itself()?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let places = Places::from_env()?;
    // Sessions are few and wait most of the time.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(512 * 1024)
        .enable_all()
        .build()?;
    runtime.block_on(service::serve(places))?;
    Ok(())
}
