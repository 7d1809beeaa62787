//! The web servers on ports 80 and 443 that the tests of this binary share, each test with a host name of its own.

use std::sync::OnceLock;

use agentcontainer_tests::peer::{Authority, Web};
use agentcontainer_tests::place::token;
use agentcontainer_tests::{Workspace, rig};
use serde_json::Value;

pub struct Standard {
    pub http: Web,
    pub https: Web,
    pub ca: Authority,
}

pub fn standard() -> &'static Standard {
    static STANDARD: OnceLock<Standard> = OnceLock::new();
    STANDARD.get_or_init(|| {
        let ca = Authority::for_names(&["*.std.test", "github.com", "*.github.com", "localhost"]);
        let root = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        Standard {
            http: Web::start(rig().bridge, 80, None, Some(root)),
            https: Web::start(rig().bridge, 443, Some(&ca), Some(root)),
            ca,
        }
    })
}

impl Standard {
    /// The requests for a name, whichever server heard them.
    pub fn requests(&self, name: &str) -> Vec<Value> {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let all = self
            .http
            .requests()
            .into_iter()
            .chain(self.https.requests());
        all.filter(|one| {
            one["host"]
                .as_str()
                .is_some_and(|host| host.starts_with(name))
                || one["sni"] == name
        })
        .collect()
    }
}

/// A host name that no other test uses; the TLS server has a certificate for it.
pub fn name() -> String {
    format!("{}.std.test", token("h"))
}

/// A workspace on a host that trusts the servers' authority; `ca.pem` is that authority, for clients that a `tls` rule lets see it.
pub fn workspace() -> Workspace {
    let root = standard().ca.root();
    let workspace =
        Workspace::new().gateway_line(&format!("ca_bundles = [\"{}\"]", root.display()));
    std::fs::copy(root, workspace.path().join("ca.pem")).unwrap();
    workspace.put("dial.py", include_str!("../../probe/dial.py"));
    workspace
}
