//! `agentcontainer bundle`: everything that a lockfile pins in one file, and from it, for machines without a network.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use engine::Engine;
use registry::client::{Client, Repository};
use registry::evidence::Note;
use registry::portable::{Export, Portable, PortableError};
use schema::digest::Digest;
use schema::lockfile::{Lockfile, Platform};
use serde_json::json;
use tokio::sync::mpsc;

use super::json;
use crate::files::Temporary;
use crate::loaded::Loaded;
use crate::lock;
use crate::organisation;
use crate::progress;
use crate::registries;
use crate::report::{self, Failure, escape};
use crate::trust;

/// What the engine is handed at a time, in bytes.
const PIECE: usize = 128 * 1024;
/// The name under which an engine keeps what came in a file, so that it is not swept up as nobody's.
const REPOSITORY: &str = "agentcontainer-imported";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write everything that is locked here, and everything that vouches for it, into one file
    Export(ExportArgs),
    /// Take everything from such a file: what is locked then verifies and runs without a network
    Import(ImportArgs),
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// The file to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A platform to export for, such as linux/arm64; this machine's unless said
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<Platform>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// The config whose lockfile is exported
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Approve what the config asks for without being asked
    #[arg(long)]
    yes: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// The file to read
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The config that it is for
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<u8, Failure> {
    match args.command {
        Command::Export(args) => export(args).await,
        Command::Import(args) => import(args).await,
    }
}

async fn export(args: ExportArgs) -> Result<u8, Failure> {
    let as_json = json(args.json);
    organisation::up_to_date().await?;
    let loaded = Loaded::read_to_lock(args.config.as_deref())?;
    // Registries are asked on the workspace's behalf.
    trust::require(&loaded, args.yes)?;
    let lockfile = locked(&loaded)?;
    let client = registries::client(&loaded.places, &loaded.host, false)?;
    lock::features::hold(&loaded, &client, &lockfile).await?;
    let platforms = match args.platform.as_slice() {
        [] => vec![Platform::here()],
        given => given.to_vec(),
    };
    let mut export = Export::new(&client);
    for (name, pin) in lockfile.pins().filter(|(_, pin)| !pin.local) {
        let held = client.hold(pin).await;
        held.map_err(|e| Failure::from(e).about(name.as_ref()))?;
    }
    for (name, pin) in lockfile.pins() {
        export
            .pin(&name, pin, &platforms)
            .await
            .map_err(|e| unwritten(e, &args.file))?;
    }
    for policy in &loaded.host.policy {
        let source = &policy.value.source;
        if let Some(manifest) = organisation::believed(&loaded.places, source)? {
            export
                .policy(&source.to_string(), source.reference(), &manifest)
                .await
                .map_err(|e| unwritten(e, &args.file))?;
        }
    }
    let all = export
        .finish(&lockfile.to_text())
        .map_err(|e| unwritten(e, &args.file))?;
    let size = write(&export, &args.file, args.force, all).await?;
    if as_json {
        report::out_json(
            &json!({ "file": args.file, "bytes": size, "pins": lockfile.pins().count(), "platforms": platforms.iter().map(ToString::to_string).collect::<Vec<_>>() }),
        );
    } else {
        report::out(format!(
            "wrote {}: {} pins, {size} bytes",
            args.file.display(),
            lockfile.pins().count()
        ));
    }
    Ok(0)
}

/// Whole or not at all.
async fn write(export: &Export<'_>, path: &Path, force: bool, all: u64) -> Result<u64, Failure> {
    if !force && fs::symlink_metadata(path).is_ok() {
        return Err(Failure::new(
            "file-exists",
            format!("{} is already there", path.display()),
        )
        .help("--force replaces it"));
    }
    let (temporary, file) = Temporary::beside(path)?;
    let mut out = BufWriter::with_capacity(PIECE, file);
    let bar = progress::bytes("exporting", all);
    export
        .write(&mut out, &mut |n| bar.set_position(n))
        .await
        .map_err(|e| unwritten(e, path))?;
    let kept = out
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| {
            file.sync_all()?;
            let size = file.metadata()?.len();
            if force {
                fs::rename(temporary.path(), path)?;
            } else {
                fs::hard_link(temporary.path(), path)?;
            }
            Ok(size)
        });
    bar.finish_and_clear();
    kept.map_err(|e| Failure::io("write", path, &e))
}

fn locked(loaded: &Loaded) -> Result<Lockfile, Failure> {
    let path = lock::path(loaded, false);
    let lockfile = lock::read(&path)?.ok_or_else(|| {
        Failure::new(
            "not-locked",
            format!("{} is not there: nothing is locked", path.display()),
        )
        .help("`agentcontainer lock` makes it")
    })?;
    lock::about(loaded, &lockfile, "the lockfile")?;
    Ok(lockfile)
}

fn unwritten(error: PortableError, path: &Path) -> Failure {
    match error {
        PortableError::Registry(error) => error.into(),
        error => refused(error, path),
    }
}

fn refused(error: PortableError, path: &Path) -> Failure {
    let code = match error {
        PortableError::Local(_) => "bundle-local",
        PortableError::Platform { .. } => "platform",
        PortableError::Digest { .. } => "digest-mismatch",
        PortableError::Io(_) => "io",
        _ => "bundle",
    };
    Failure::new(code, error.to_string()).about(path.display().to_string())
}

/// An export from a file, read through.
type Opened = Portable<BufReader<File>>;

async fn import(args: ImportArgs) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let loaded = Loaded::read_without_host_policies(args.config.as_deref())?;
    let path = args.file.as_path();
    let file = File::open(path).map_err(|e| Failure::io("open", path, &e))?;
    let meta = file.metadata().map_err(|e| Failure::io("open", path, &e))?;
    if !meta.is_file() {
        return Err(Failure::new(
            "bundle",
            format!("{} is no file", path.display()),
        ));
    }
    let bar = progress::bytes("reading", meta.len());
    let mut opened = Portable::open(BufReader::with_capacity(PIECE, file), &mut |n| {
        bar.set_position(n);
    })
    .map_err(|e| refused(e, path).help("nothing of it was taken"))?;
    bar.finish_and_clear();
    let lockfile = Lockfile::parse(
        &opened.lockfile,
        &format!("the lockfile in {}", path.display()),
    )?;
    lock::about(&loaded, &lockfile, "what was exported")?;
    let beside = lock::path(&loaded, false);
    let found = lock::read(&beside)?;
    if found.as_ref().is_some_and(|found| *found != lockfile) {
        return Err(Failure::new(
            "lock-differs",
            format!(
                "{} pins something else than what was exported",
                beside.display()
            ),
        )
        .help("export again where it was locked; or remove the lockfile, and the exported one takes its place"));
    }
    // Whoever is not there takes nothing.
    let engine = Engine::connect(loaded.host.engine().clone()).await?;
    let images = keep(&loaded, &mut opened, &lockfile, path)?;
    let client = registries::client(&loaded.places, &loaded.host, true)?;
    for (name, pin) in lockfile.pins() {
        client
            .hold(pin)
            .await
            .map_err(|e| Failure::from(e).about(name.as_ref()))?;
    }
    // Whoever rules here is heard before anything is handed on.
    let policies = policies(&loaded, &opened).await?;
    let noted = Noted::add(&client, &opened, &lockfile)?;
    let held = held(args.config.as_deref(), &client, &lockfile).await;
    if held.is_err() {
        noted.take_back(&client);
    }
    held?;
    let mut file = Some(opened);
    for image in &images {
        let opened = file
            .take()
            .ok_or_else(|| Failure::new("internal", "the file is gone"))?;
        file = Some(load(&engine, opened, image, path).await?);
    }
    let written = lock::write(&beside, &lockfile)?;
    if as_json {
        report::out_json(&json!({
            "lockfile": beside,
            "written": written,
            "images": images.iter().map(|image| image.id).collect::<Vec<_>>(),
            "policies": policies,
        }));
        return Ok(0);
    }
    for image in &images {
        report::out(format!("loaded {}", image.id));
    }
    for policy in &policies {
        report::out(format!("believed {}", escape(policy)));
    }
    if written {
        report::note(format!("wrote {}", beside.display()));
    }
    Ok(0)
}

/// An image that is handed to the engine.
struct Brought {
    manifest: Digest,
    id: Digest,
    layers: Vec<Digest>,
}

/// Puts everything but the layers of images into the cache; what is left for the engine.
fn keep(
    loaded: &Loaded,
    opened: &mut Opened,
    lockfile: &Lockfile,
    path: &Path,
) -> Result<Vec<Brought>, Failure> {
    let unread = |e| refused(e, path);
    let mut images = Vec::new();
    for manifest in lockfile.image.platforms.values() {
        if !opened.holds(manifest) {
            continue;
        }
        if let Some((id, layers)) = opened.image(manifest).map_err(unread)? {
            images.push(Brought {
                manifest: *manifest,
                id,
                layers,
            });
        }
    }
    if images.is_empty() || !opened.holds(&lockfile.image.digest) {
        return Err(refused(PortableError::Missing(lockfile.image.digest), path));
    }
    let cache = registries::cache(&loaded.places);
    let all: Vec<Digest> = opened.digests().copied().collect();
    for digest in all {
        if images.iter().any(|image| image.layers.contains(&digest)) {
            continue;
        }
        let mut reader = opened.reader(&digest).map_err(unread)?;
        match cache.put_from(&digest, &mut reader) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Failure::new(
                    "digest-mismatch",
                    format!("{} changed while it was read", path.display()),
                ));
            }
            Err(e) => return Err(Failure::io("write", &cache.path(&digest), &e)),
        }
    }
    Ok(images)
}

/// What the host's policies and the workspace's own demand of what came, by what is here and what came with it: nobody is asked.
async fn held(config: Option<&Path>, client: &Client, lockfile: &Lockfile) -> Result<(), Failure> {
    let mut loaded = Loaded::read_to_lock(config)?;
    loaded.offline = true;
    if let Some(document) = organisation::of_workspace(client, &loaded.config, lockfile).await? {
        loaded.hold_under(document)?;
    }
    lock::features::hold(&loaded, client, lockfile).await?;
    organisation::require(&loaded, &mut lockfile.clone()).await
}

/// What the file says lay beside one subject.
fn beside<'o>(opened: &'o Opened, repository: &Repository, subject: &Digest) -> Option<&'o Note> {
    let name = repository.to_string();
    let mut all = opened.document.beside.iter();
    all.find(|beside| beside.repository == name && beside.subject == *subject)
        .map(|beside| &beside.note)
}

/// What lies beside everything that is pinned, added to what was known; and that, in case it is not to stay.
struct Noted(Vec<(Repository, Digest, Option<Note>)>);

impl Noted {
    fn add(client: &Client, opened: &Opened, lockfile: &Lockfile) -> Result<Self, Failure> {
        let mut noted = Self(Vec::new());
        for (name, pin) in lockfile.pins() {
            let repository = Repository::of(&pin.reference);
            let Some(note) = beside(opened, &repository, &pin.digest) else {
                continue;
            };
            let before = client.note_of(&repository, &pin.digest);
            noted.0.push((repository.clone(), pin.digest, before));
            if let Err(e) = client.add_note(&repository, &pin.digest, note) {
                noted.take_back(client);
                let failure = Failure::new("io", format!("cannot write the cache: {e}"));
                return Err(failure.about(name));
            }
        }
        Ok(noted)
    }

    fn take_back(&self, client: &Client) {
        for (repository, subject, before) in self.0.iter().rev() {
            client.restore_note(repository, subject, before.as_ref());
        }
    }
}

/// Policies that this host names, believed if they hold here.
async fn policies(loaded: &Loaded, opened: &Opened) -> Result<Vec<String>, Failure> {
    let mut taken = Vec::new();
    for policy in &loaded.host.policy {
        let source = policy.value.source.to_string();
        let mut all = opened.document.policies.iter();
        let Some(found) = all.find(|found| found.source == source) else {
            continue;
        };
        let repository = Repository::of(policy.value.source.reference());
        let note = beside(opened, &repository, &found.manifest);
        let (places, host) = (&loaded.places, &loaded.host);
        organisation::take(places, host, policy, &found.manifest, note).await?;
        taken.push(source);
    }
    Ok(taken)
}

/// Hands an image to the engine, in the form that engines of every age load, and asks for it by its id.
async fn load(
    engine: &Engine,
    mut opened: Opened,
    image: &Brought,
    path: &Path,
) -> Result<Opened, Failure> {
    if engine.image_by_id(&image.id).await?.is_some() {
        return Ok(opened);
    }
    let (give, taken) = mpsc::channel(8);
    let manifest = image.manifest;
    let giving = tokio::task::spawn_blocking(move || {
        let mut pieces = BufWriter::with_capacity(PIECE, Pieces(give.clone()));
        let written = opened
            .archive(&manifest, (REPOSITORY, &manifest.hex()), &mut pieces)
            .and_then(|()| io::Write::flush(&mut pieces));
        if let Err(error) = written {
            let _ = give.blocking_send(Err(error));
        }
        opened
    });
    let loaded = engine.load(taken).await;
    let opened = giving
        .await
        .map_err(|e| Failure::new("internal", e.to_string()))?;
    loaded.map_err(|e| Failure::from(e).about(path.display().to_string()))?;
    for id in [&image.id, &image.manifest] {
        if engine.image_by_id(id).await?.is_some() {
            return Ok(opened);
        }
    }
    Err(Failure::new(
        "image-differs",
        format!(
            "the engine took the image and does not have it as {}",
            image.id
        ),
    ))
}

/// Hands on what is written.
struct Pieces(mpsc::Sender<io::Result<Vec<u8>>>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(bytes.to_vec()))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
