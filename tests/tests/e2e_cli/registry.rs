//! Pulls with the person's own credentials, from a registry that wants some: what it is sent is heard there.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use agentcontainer_tests::Workspace;
use agentcontainer_tests::outcome::{self, DEADLINE};
use serde_json::json;

/// A registry that has nothing; what `Authorization` says is heard.
fn registry() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let (heard, hear) = channel();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let heard = heard.clone();
            std::thread::spawn(move || serve(client, &heard));
        }
    });
    (at, hear)
}

fn serve(mut client: TcpStream, heard: &Sender<String>) {
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
    // An engine tries TLS first.
    let Some(Ok(first)) = lines.next() else {
        let _ = client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        return;
    };
    let mut known = false;
    for line in lines.map_while(Result::ok).take_while(|l| !l.is_empty()) {
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            known = true;
            let _ = heard.send(value.to_owned());
        }
    }
    let status = match (known, first.contains(" /v2/ ")) {
        (false, _) => "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"",
        (true, true) => "200 OK",
        (true, false) => "404 Not Found",
    };
    let _ = write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Length: 2\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{{}}"
    );
}

/// Runs an image of the registry, with this as the person's docker configuration.
fn run(at: &str, config: &serde_json::Value, helper: Option<&str>) -> String {
    let workspace = Workspace::new().host_table(&format!("[registries.{at:?}]\nplain_http = true"));
    workspace.put(
        "agentcontainer.json",
        json!({ "image": format!("{at}/private/agent:1") }).to_string(),
    );
    workspace.write_host_config();
    let home = workspace.path().with_file_name("home");
    std::fs::create_dir(home.join(".docker")).unwrap();
    std::fs::write(home.join(".docker/config.json"), config.to_string()).unwrap();
    let mut command = workspace.command(["run", "--yes", "--", "true"]);
    if let Some(script) = helper {
        let path = home.join("docker-credential-mine");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let others = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{others}", shown(&home)));
    }
    let out = outcome::finish(command, DEADLINE);
    out.status(125).says("private/agent");
    out.stderr
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn an_image_is_pulled_with_what_the_person_is_logged_in_with() {
    // ada:secret
    const BASIC: &str = "YWRhOnNlY3JldA==";
    let (at, heard) = registry();
    run(
        &at,
        &json!({ "auths": { "other.test": { "auth": BASIC } } }),
        None,
    );
    assert!(heard.try_recv().is_err(), "another registry's");
    run(
        &at,
        &json!({ "auths": { at.as_str(): { "auth": BASIC } } }),
        None,
    );
    assert_eq!(heard.try_recv().unwrap(), format!("Basic {BASIC}"));

    let (at, heard) = registry();
    let keeps = format!(
        "#!/bin/sh\nread server; test \"$1 $server\" = 'get {at}' && echo '{{\"ServerURL\":\"{at}\",\"Username\":\"ada\",\"Secret\":\"secret\"}}'\n"
    );
    let config = json!({ "credHelpers": { at.as_str(): "mine" } });
    run(&at, &config, Some(&keeps));
    assert_eq!(heard.try_recv().unwrap(), format!("Basic {BASIC}"));
    let said = run(&at, &config, Some("#!/bin/sh\necho no key; exit 1\n"));
    assert!(said.contains("docker-credential-mine: no key"), "{said}");
}
