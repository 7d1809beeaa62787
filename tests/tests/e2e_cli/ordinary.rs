//! Ordinary work under a strict policy about files and programs: whatever layer this kernel has for it, nothing of the work is denied.

use agentcontainer_tests::Workspace;
use agentcontainer_tests::place::token;
use serde_json::{Value, json};

/// Git against a repository on the same disk, a virtual environment, scripts, a compiled class, a makefile, an editor and a terminal in the
/// background. Every line must do its part.
const WORK: &str = r#"
set -eu
export HOME=/tmp/home; mkdir -p $HOME; cd /tmp/home
git config --global user.email a@b.c; git config --global user.name a
git init -q --bare hub.git
git clone -q hub.git work 2>/dev/null; cd work
echo one >file; git add file; git commit -qm one; git checkout -qb topic; echo two >>file; git commit -qam two
git push -q -u origin topic; git log --oneline origin/topic | wc -l
git stash list; git rebase -q HEAD~1; git status --short; git gc -q
cd ..; rm -rf again; git clone -q --branch topic hub.git again; cat again/file
python3 -m venv --without-pip --symlinks env; env/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'
python3 -c 'import subprocess; print(subprocess.run(["bash", "-c", "echo $((6*7))"], capture_output=True, text=True).stdout.strip())'
echo 'console.log(require("child_process").execFileSync("sh", ["-c", "echo from node"]).toString().trim())' >a.js; node a.js
echo 'class Hello { public static void main(String[] a) { System.out.println("from java"); } }' >Hello.java; java Hello.java
printf 'all: out\nout: a.js\n\tcp a.js out\n' >Makefile; make -s; ls out
printf 'ihello\033:wq\n' | vim.tiny -e -s -u NONE -c 'normal ifrom vim' -c 'wq' note 2>/dev/null || true; cat note
tmux -L t new-session -d 'echo from tmux >tmux.out'; for n in $(seq 100); do [ -s tmux.out ] && break; sleep 0.1; done; cat tmux.out
grep -c root /etc/passwd; date +%Y >/dev/null; printf 'b\na\n' | sort | head -1
cd "$WORKSPACE"; echo change >>notes.txt; cat src/main.rs; mkdir -p build; cp src/main.rs build/; mv build/main.rs build/m.rs; find . -name '*.rs' | sort | xargs
echo worked
"#;

const SAID: &str = "2\none\ntwo\nTrue\n42\nfrom node\nfrom java\nout\nfrom vim\nfrom tmux\n1\na\nfn main() {}\n./build/m.rs ./src/main.rs\nworked\n";

/// What the work starts; a shell among them, so that it can be written down at all.
const STARTED: &[&str] = &[
    "bash",
    "sh",
    "env",
    "git",
    "/usr/lib/git-core/git",
    "python3",
    "node",
    "java",
    "make",
    "vim.tiny",
    // What tmux starts.
    "/usr/lib/x86_64-linux-gnu/utempter/utempter",
    "tmux",
    "cat",
    "cp",
    "mv",
    "rm",
    "mkdir",
    "true",
    "ls",
    "wc",
    "grep",
    "date",
    "sort",
    "head",
    "find",
    "xargs",
    "sleep",
    "seq",
    "echo",
    "sed",
    "uname",
    "basename",
];

#[test]
fn ordinary_work_goes_on_under_a_strict_policy() {
    let capabilities = json!({
        "filesystem": {
            "readOnlyPaths": ["/etc", "/usr", "src"],
            "writablePaths": [],
            "deniedPaths": [".env", "/etc/shadow"],
        },
        "tools": { "allowedBinaries": STARTED, "deniedBinaries": ["curl", "openssl"] },
    });
    let workspace = Workspace::new().key("agent", json!({ "capabilities": capabilities }));
    workspace.put("src/main.rs", "fn main() {}\n");
    workspace.put(".env", "SECRET=1\n");
    workspace.put("notes.txt", "");
    let owned = std::process::Command::new("chown")
        .args(["-R", "1000:1000"])
        .arg(workspace.path())
        .status();
    assert!(owned.unwrap().success());
    let session = workspace.session(&token("work"));
    let script = format!("WORKSPACE=$PWD\n{WORK}");
    let id = session.id();
    let out = session.inside(&script);
    let denied = workspace.denials(&id);
    assert_eq!(out.stdout, SAID, "{}\n{denied:#?}", out.stderr);
    assert_eq!(denied, [] as [Value; 0]);
    // The control: what the policy is about is refused, and on record.
    for tried in [
        "cat .env",
        "echo x >src/main.rs",
        "id",
        "apt-get update",
        "curl --version",
    ] {
        let out = session.inside(tried);
        assert!(out.status != 0 && out.stdout.is_empty(), "{tried}: {out:?}");
    }
    let denied = workspace.denials(&id);
    for binary in ["/usr/bin/id", "/usr/bin/apt-get"] {
        assert!(
            denied.iter().any(|event| event["binary"] == binary),
            "{binary}: {denied:#?}"
        );
    }
}
