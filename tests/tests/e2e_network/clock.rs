//! A machine whose clock is set while a session runs. It sets the clock: for a machine of its own, as `cargo xtask vm` makes one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agentcontainer_tests::outcome::DEADLINE;
use agentcontainer_tests::place::token;

use crate::standard::{name, standard, workspace};

/// Keeps one connection, and asks by it whenever a file says so.
const KEEPS: &str = r#"
import http.client, os, ssl, sys, time
kept = http.client.HTTPSConnection(sys.argv[1], context=ssl.create_default_context())
for n in range(4):
    while not os.path.exists(f"ask-{n}"): time.sleep(0.05)
    kept.request("GET", f"/hello?kept-{n}")
    answer = kept.getresponse()
    answer.read()
    open("part", "w").write(str(answer.status))
    os.rename("part", f"answer-{n}")
"#;

/// The clock, with what it is ahead of the time since boot; put back with it.
struct Clock {
    began: Instant,
    at: Duration,
}

impl Clock {
    fn new() -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let began = Instant::now();
        Self { began, at }
    }

    /// That many hours ahead of what it would be.
    fn ahead(&self, hours: u64) {
        let to = self.at + self.began.elapsed() + Duration::from_secs(hours * 3600);
        let to = format!("@{}", to.as_secs());
        let set = Command::new("date").args(["--utc", "--set", &to]).output();
        assert!(set.unwrap().status.success());
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.ahead(0);
    }
}

fn asked(directory: &Path, number: usize) -> String {
    fs::write(directory.join(format!("ask-{number}")), "").unwrap();
    let began = Instant::now();
    loop {
        if let Ok(answer) = fs::read_to_string(directory.join(format!("answer-{number}"))) {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE, "{number} is not answered");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "sets the machine's clock: cargo xtask vm"]
fn what_is_open_goes_on_and_what_is_new_is_trusted_when_the_clock_is_set() {
    let (host, other) = (name(), name());
    let workspace = workspace().allow(&[&host]);
    workspace.put("keeps.py", KEEPS);
    // Before the clock is: its certificate begins now.
    standard();
    let clock = Clock::new();
    let session = workspace.session(&token("clock"));
    session
        .inside(&format!("python3 keeps.py {host} >/dev/null 2>&1 &"))
        .status(0);
    let directory = workspace.path();
    let code = |name: &str| {
        let words = format!(
            "curl -s -o /dev/null -w '%{{http_code}}' --max-time 60 https://{name}/hello?new"
        );
        session.inside(&words).stdout
    };
    // Ahead by more than a leaf is good for, back again to where that is not good yet, and ahead once more.
    for (number, hours) in [0, 72, 1, 240].into_iter().enumerate() {
        clock.ahead(hours);
        assert_eq!(code(&host), "200", "{hours} hours ahead");
        assert_eq!(asked(&directory, number), "200", "{hours} hours ahead");
        assert_eq!(code(&other), "403", "{hours} hours ahead");
    }
    let requests = standard().requests(&host);
    assert_eq!(requests.len(), 8, "{requests:#?}");
    let events = workspace.events(&session.id());
    let order: Vec<u64> = events
        .iter()
        .filter_map(|event| event["seq"].as_u64())
        .collect();
    assert!(order.len() >= 12 && order.is_sorted(), "{order:?}");
    drop(session);
}
