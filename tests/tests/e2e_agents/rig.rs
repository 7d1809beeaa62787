//! What the tests of this binary share: the stand-ins, an image with npm, a package of an agent that is none, and workspaces of
//! people who have a key in their environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use agentcontainer_tests::place::token;
use agentcontainer_tests::services::{NAMES, Services};
use agentcontainer_tests::{Outcome, Workspace, docker, outcome, rig};

/// Has npm, which names the stand-in as its registry, and no agent.
pub const IMAGE: &str = "agentcontainer-agents:latest";
/// The version of the package that is no agent.
pub const FAKE: &str = "0.0.1";

/// Says what its surroundings are, and asks the model.
const FAKE_AGENT: &str = r#"#!/usr/bin/env node
const file = (path) => { try { return require('fs').readFileSync(path, 'utf8') } catch (error) { return error.code } }
const state = process.env.CLAUDE_CONFIG_DIR
console.log(JSON.stringify({
  arguments: process.argv.slice(2), key: process.env.ANTHROPIC_API_KEY, directory: process.cwd(),
  instructions: file(state + '/CLAUDE.md'), before: file(state + '/mark'), settings: file(state + '/.claude.json'),
  updates: process.env.DISABLE_AUTOUPDATER,
}))
require('fs').writeFileSync(state + '/mark', 'here')
try { require('fs').writeFileSync(__filename, ''); console.log('program written') } catch (error) { console.log(error.code) }
fetch('https://api.anthropic.com/v1/messages', { method: 'POST', headers: { 'x-api-key': process.env.ANTHROPIC_API_KEY }, body: '{}' })
  .then(async (answer) => console.log(answer.status, (await answer.text()).includes('the stand-in answers')))
  .then(() => fetch('https://npm.registry.test/')).then((answer) => console.log('registry', answer.status))
"#;

pub struct Shared {
    pub services: Services,
    /// What the registry serves.
    packages: PathBuf,
}

pub fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let real = std::env::var_os("AGENTCONTAINER_TEST_PACKAGES")
            .expect("no packages: run the tests with `cargo xtask test`");
        let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join(token("packages"));
        fs::create_dir_all(&packages).unwrap();
        for file in fs::read_dir(real).unwrap().flatten() {
            if file.path().extension().is_some_and(|kind| kind == "tgz") {
                std::os::unix::fs::symlink(file.path(), packages.join(file.file_name())).unwrap();
            }
        }
        pack_fake(&packages);
        Shared {
            services: Services::start(&packages),
            packages,
        }
    })
}

fn pack_fake(into: &Path) {
    pack_agent(into, "fake", FAKE, "", &[]);
    pack_greets(into, "1.0.0");
}

/// The package that is no agent, with these words in one of its files.
fn pack_agent(into: &Path, file: &str, version: &str, words: &str, needs: &[(&str, &str)]) {
    pack_with(into, file, version, words, needs, &[]);
}

type Needs<'a> = [(&'a str, &'a str)];

fn pack_with(
    into: &Path,
    file: &str,
    version: &str,
    words: &str,
    needs: &Needs<'_>,
    optional: &Needs<'_>,
) {
    let [needs, optional] = [needs, optional].map(|all| {
        all.iter()
            .copied()
            .collect::<std::collections::BTreeMap<_, _>>()
    });
    let manifest = serde_json::json!({
        "name": "@anthropic-ai/claude-code", "version": version, "bin": { "claude": "claude.js" }, "dependencies": needs,
        "optionalDependencies": optional,
        // Scripts of packages are off.
        "scripts": { "postinstall": "touch /tmp/script-ran; exit 1" },
    });
    let finish = "require('fs').renameSync('agent.js', 'claude.js'); require('fs').chmodSync('claude.js', 0o755)";
    let files = [
        ("package.json", manifest.to_string()),
        ("claude.js", "not finished".to_owned()),
        ("agent.js", format!("{FAKE_AGENT}{words}")),
        ("install.cjs", finish.to_owned()),
    ];
    pack(into, file, &files);
}

fn pack_greets(into: &Path, version: &str) {
    let manifest = serde_json::json!({ "name": "greets", "version": version, "bin": { "greets": "greets.js" } });
    let greets = "#!/usr/bin/env node\nconsole.log('hello from a package')\n";
    let files = [
        ("package.json", manifest.to_string()),
        ("greets.js", greets.to_owned()),
    ];
    pack(into, &format!("greets-{version}"), &files);
}

/// A version of the package that is no agent, which needs another, as a registry publishes both; taken back when this value goes.
pub struct Published(&'static str);

const BUILDS: [(&str, &str); 2] = [("builds", "linux"), ("builds-elsewhere", "darwin")];
/// What the latter needs, for any platform.
const NEEDED_ELSEWHERE: &str = "needed-elsewhere";

impl Published {
    pub fn new(version: &'static str) -> Self {
        let this = Self(version);
        this.with_bytes("");
        this
    }

    /// The same version with other bytes.
    pub fn with_bytes(&self, words: &str) {
        let needs = [("greets", "^1.0.0")];
        pack_agent(&shared().packages, self.0, self.0, words, &needs);
    }

    /// With a build for this platform and one for another, which npm may do without.
    pub fn with_builds(&self) {
        let needs = [("greets", "^1.0.0")];
        let builds = BUILDS.map(|(name, _)| (name, "1.0.0"));
        pack_with(&shared().packages, self.0, self.0, "", &needs, &builds);
        self.with_bytes_of_builds("");
    }

    /// The same builds with these words in them.
    pub fn with_bytes_of_builds(&self, words: &str) {
        for (name, os) in BUILDS {
            let needs = (name == BUILDS[1].0).then_some((NEEDED_ELSEWHERE, "1.0.0"));
            let needs: BTreeMap<&str, &str> = needs.into_iter().collect();
            let manifest = serde_json::json!({ "name": name, "version": "1.0.0", "os": [os], "dependencies": needs });
            let files = [
                ("package.json", manifest.to_string()),
                ("build", words.to_owned()),
            ];
            pack(&shared().packages, name, &files);
        }
        let manifest = serde_json::json!({ "name": NEEDED_ELSEWHERE, "version": "1.0.0" });
        let files = [("package.json", manifest.to_string())];
        pack(&shared().packages, NEEDED_ELSEWHERE, &files);
    }

    /// A later version of what it needs.
    pub fn with_later(&self) {
        pack_greets(&shared().packages, "1.1.0");
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        for name in [
            self.0,
            "greets-1.1.0",
            "builds",
            "builds-elsewhere",
            NEEDED_ELSEWHERE,
        ] {
            let _ = fs::remove_file(shared().packages.join(format!("{name}.tgz")));
        }
    }
}

/// Makes a package's tarball there.
fn pack(into: &Path, name: &str, files: &[(&str, String)]) {
    let dir = into.join(name).join("package");
    fs::create_dir_all(&dir).unwrap();
    for (file, text) in files {
        fs::write(dir.join(file), text).unwrap();
    }
    let packed = Command::new("tar")
        .arg("-C")
        .arg(into.join(name))
        .arg("-czf")
        .arg(into.join(format!("{name}.part")))
        .arg("package")
        .status();
    assert!(packed.unwrap().success());
    let whole = into.join(format!("{name}.tgz"));
    fs::rename(into.join(format!("{name}.part")), whole).unwrap();
    fs::remove_dir_all(into.join(name)).unwrap();
}

/// An image with this program at /usr/local/bin/claude.
pub fn image_with_agent() -> String {
    let name = format!("agentcontainer-{}", token("agent"));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
    fs::write(&file, FAKE_AGENT).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let container = docker::run(&["create", IMAGE, "true"]);
    let to = format!("{container}:/usr/local/bin/claude");
    docker::run(&["cp", file.to_str().unwrap(), &to]);
    docker::run(&["commit", &container, &name]);
    docker::run(&["rm", &container]);
    name
}

/// Of the shape of a key, and found nowhere else.
pub fn key() -> String {
    let random = token("").replace(|c: char| !c.is_ascii_alphanumeric(), "");
    format!(
        "sk-ant-api03-{:Z<80}",
        format!("{random}AbCdEfGhIjKlMnOpQrStUvWx")
    )
}

/// A workspace on a host where the stand-ins are what their names lead to, with state of its own; its volumes go with it.
pub struct Desk {
    pub workspace: Workspace,
    before: BTreeSet<String>,
}

pub fn desk() -> Desk {
    let root = shared().services.ca.root();
    shared().services.forget();
    let mut workspace = Workspace::new()
        .with_own_state()
        .gateway_line(&format!("ca_bundles = [\"{}\"]", root.display()));
    for name in NAMES {
        workspace = workspace.host(name, rig().bridge);
    }
    Desk {
        workspace,
        before: volumes(),
    }
}

/// The volumes of agents that the engine has.
fn volumes() -> BTreeSet<String> {
    let listed = docker::run(&[
        "volume",
        "ls",
        "--quiet",
        "--filter",
        "label=dev.agentcontainer.agent",
    ]);
    listed.lines().map(str::to_owned).collect()
}

impl Desk {
    /// The CLI with the key in the environment; the host's config is written, the workspace has what the test put there.
    pub fn cli(&self, key: Option<&str>, words: &[&str]) -> Outcome {
        outcome::finish(self.command(key, words), outcome::DEADLINE)
    }

    pub fn command(&self, key: Option<&str>, words: &[&str]) -> Command {
        self.workspace.write_host_config();
        let mut command = self.workspace.command(words);
        if let Some(key) = key {
            command.env("ANTHROPIC_API_KEY", key);
        }
        command
    }

    /// Volumes that came since.
    pub fn volumes(&self) -> Vec<String> {
        volumes().difference(&self.before).cloned().collect()
    }

    pub fn path(&self) -> PathBuf {
        self.workspace.path()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for volume in self.volumes() {
            docker::attempt(&["volume", "rm", &volume]);
        }
    }
}
