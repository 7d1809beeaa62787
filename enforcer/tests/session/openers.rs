//! Secrets that only some programs may open, as the kernel tells programs apart. Where it takes no LSM programs the same policy lets nothing start.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use audit::Verdict;
use enforcer::session::Session;
use policy::EffectivePolicy;
use serde_json::json;

use crate::files::{Case, said};
use crate::later::{carried, happens};
use crate::policy as parsed;
use crate::secrets::{both, file, inside, open_with};

/// `A` is for these programs, `B` for all.
fn gated(programs: &[&str]) -> EffectivePolicy {
    let origin = json!({ "file": "agentcontainer.json", "line": 2, "column": 3 });
    parsed(json!({
        "version": 1, "network": [{}], "gateway": {},
        "secrets": { "all": [
            { "name": "A", "programs": programs, "origin": origin },
            { "name": "B", "origin": origin },
        ] }
    }))
}

async fn open(case: &Case, programs: &[&str]) -> Arc<Session> {
    open_with(case, gated(programs), both()).await
}

fn copy(from: &str, case: &Case, to: &str) {
    case.put(to, "");
    std::fs::copy(from, case.workspace.join(to)).unwrap();
}

const SCRIPT: &str = r##"
try() { if "$@" 2>/dev/null; then echo " OPEN: $*"; fi; }
# The program, by a link to it, and by root's.
for name in bin/reader bin/link /proc/self/root$PWD/bin/reader; do $name /run/secrets/A; echo; done
# What is for all is, the list too.
cat /run/secrets/B; echo; ls /run/secrets | tr '\n' ' '; echo
# Another program, a copy of the same one, one that has its name, and one by the loader.
cp bin/reader bin/copy; mkdir -p other/bin; cp bin/reader other/bin/reader
try cat /run/secrets/A; try bin/copy /run/secrets/A; try other/bin/reader /run/secrets/A; try sh -c 'read x < /run/secrets/A'
try /lib64/ld-linux-x86-64.so.2 bin/reader /run/secrets/A; try bash -c 'exec -a bin/reader cat /run/secrets/A'
try sh -c 'echo x > /run/secrets/A'; try dd if=/dev/null of=/run/secrets/B
# Nobody inside changes the program.
try sh -c 'printf x >> bin/reader'; try rm -f bin/reader; try mv bin/reader bin/r; try cp bin/copy bin/reader; try ln bin/reader hard; try chmod 777 bin/reader; try truncate -s 0 bin/reader
python3 - <<'P'
import os, socket, subprocess
def way(name, f):
    try: f(); print("OPEN:", name)
    except OSError: pass
path = os.open("/run/secrets/A", os.O_PATH)
way("by its place", lambda: open("/proc/self/fd/%d" % path)); way("by the directory", lambda: os.open("A", os.O_RDONLY, dir_fd=os.open("/run/secrets", os.O_PATH)))
way("its directory away", lambda: os.rename("bin", "b")); way("by root", lambda: open("/proc/self/root/run/secrets/A")); way("by the program's path", lambda: subprocess.run(["bin/reader"], stdin=open("/run/secrets/A")))
# What the program is handed by nobody else it hands on to nobody either.
own, other = socket.socketpair(); child = subprocess.Popen(["bin/hand", "-c", """
import os, socket; s = socket.socket(fileno=0); socket.send_fds(s, [b"x"], [os.open("/run/secrets/A", os.O_RDONLY)])"""], stdin=other)
child.wait(); print("handed", child.returncode, socket.recv_fds(own, 1, 1)[1])
P
# It is the same program for as long as it is the same file.
echo > wait/rotate; for n in $(seq 200); do sleep 0.05; [ "$(bin/reader /run/secrets/A)" = second-value-of-a ] && break; done
bin/reader /run/secrets/A; echo; try cat /run/secrets/A
# Changed by the host it is another.
echo > wait/change; for n in $(seq 200); do sleep 0.05; [ -e wait/changed ] && break; done
try bin/reader /run/secrets/A; echo done
"##;

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_for_one_program_is_opened_by_no_other() {
    let case = Case::new("gate");
    copy("/usr/bin/cat", &case, "bin/reader");
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
    copy(python.to_str().unwrap(), &case, "bin/hand");
    std::os::unix::fs::symlink("reader", case.workspace.join("bin/link")).unwrap();
    case.put("wait/x", "");
    let (reader, hand) = (case.at("bin/reader"), case.at("bin/hand"));
    let programs = [&*reader, &*hand, "/usr/bin/no-such-program"];
    let words = "`agent.secrets.A.programs` lets these programs alone open /run/secrets/A";
    if !carried(&case, gated(&programs), words).await {
        return;
    }
    let session = open(&case, &programs).await;
    let (told, workspace) = (Arc::clone(&session), case.workspace.clone());
    let rotates = tokio::spawn(async move {
        let waits = async |name: &str| {
            for _ in 0..3000 {
                if workspace.join(name).exists() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        waits("wait/rotate").await;
        let again = vec![file("A", "second-value-of-a", 0)];
        let said = told.set_secret_files(again).await.unwrap();
        waits("wait/change").await;
        let reader = OpenOptions::new()
            .append(true)
            .open(workspace.join("bin/reader"));
        reader.unwrap().write_all(b"x").unwrap();
        std::fs::write(workspace.join("wait/changed"), "").unwrap();
        said
    });
    let text = said(&tokio::task::block_in_place(|| {
        inside(&case, &session, "0", SCRIPT)
    }));
    assert_eq!(rotates.await.unwrap(), [""; 0]);
    let first = "first-value-of-a\n".repeat(3);
    assert_eq!(
        text,
        format!("{first}value-of-b\nA B \nhanded 0 []\nsecond-value-of-a\ndone\n")
    );
    let recorded = |program: &str, detail: &str| {
        happens(&case, |event| {
            event.kind == audit::Kind::Secret
                && event.verdict == Verdict::Deny
                && event.reason == "secret-of-other-programs"
                && event.file.as_deref() == Some("/run/secrets/A")
                && event.layer.as_deref() == Some("lsm")
                && event.detail.as_deref() == Some(detail)
                && event.process.as_ref().is_some_and(|p| p.comm == program)
        });
    };
    recorded("cat", "open");
    recorded("copy", "open");
    recorded("python3", "receive a descriptor");
    happens(&case, |event| {
        event.reason == "secrets-held"
            && event.detail.as_deref()
                == Some(
                    "A for 2 programs alone; not in the image or the workspace: /usr/bin/no-such-program (A)",
                )
    });
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_no_program_that_a_secret_could_be_for() {
    let case = Case::new("gsc");
    case.put("bin/tool", "#!/usr/bin/env python3\nprint(1)\n");
    let tool = case.at("bin/tool");
    let words = "`agent.secrets.A.programs` lets these programs alone open /run/secrets/A";
    if !carried(&case, gated(&[&tool]), words).await {
        return;
    }
    let session = open(&case, &[&tool]).await;
    let text = said(&inside(&case, &session, "0", "echo started"));
    assert!(
        text.contains(&format!(
            "{tool}, a script: what runs it is python3, as which"
        )) && !text.contains("started\n"),
        "{text}"
    );
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_names_is_no_program_that_a_secret_could_be_for_and_another_version_is() {
    for (name, words) in [
        ("get", Some("which leads to")),
        ("twin", Some("with 2 names (hard links)")),
        ("reader3", None),
    ] {
        let case = Case::new(&format!("gn{name}"));
        copy("/usr/bin/cat", &case, "bin/box");
        copy("/usr/bin/cat", &case, "bin/twin");
        copy("/usr/bin/cat", &case, "bin/reader3.11");
        let at = |name: &str| case.workspace.join("bin").join(name);
        std::os::unix::fs::symlink("box", at("get")).unwrap();
        std::os::unix::fs::symlink("reader3.11", at("reader3")).unwrap();
        std::fs::hard_link(at("twin"), at("other")).unwrap();
        let program = case.at(&format!("bin/{name}"));
        let gated = gated(&[&program]);
        let lets = "`agent.secrets.A.programs` lets these programs alone open /run/secrets/A";
        if !carried(&case, gated, lets).await {
            return;
        }
        let session = open(&case, &[&program]).await;
        let script = format!(
            "bin/{name} /run/secrets/A; cat /run/secrets/A 2>/dev/null; echo; echo started"
        );
        let text = said(&inside(&case, &session, "0", &script));
        match words {
            Some(words) => assert!(
                text.contains(&format!("`programs` of a secret has {program}, "))
                    && text.contains(words)
                    && !text.contains("started\n"),
                "{text}"
            ),
            None => assert_eq!(text, "first-value-of-a\nstarted\n"),
        }
        assert!(
            name != "get" || text.contains(&case.at("bin/box")),
            "{text}"
        );
        session.close("test").await.unwrap();
    }
}
