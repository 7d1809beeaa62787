//! Tasks of the project: `cargo xtask TASK`. One file a task.

mod proto;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("proto") => proto::run(),
        other => anyhow::bail!("unknown task {other:?}"),
    }
}
