//! Behind a forward proxy that the host names: on a private network that nobody opened, found by `hosts` or by the resolver.

use agentcontainer_tests::peer::{NameServer, Proxy};
use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::{Workspace, rig};

/// What a program gets of a name that is allowed and of one that is not, where no network is open and the gateway is told this.
fn dial(proxy: &Proxy, place: impl FnOnce(Workspace, &str) -> Workspace, named: bool) {
    let (receiver, good, bad) = (
        Receiver::start(),
        format!("{}.test", token("good")),
        format!("{}.test", token("bad")),
    );
    let port = receiver.port();
    let host = format!("{}.test", token("proxy"));
    let workspace = Workspace::new()
        .without_private_networks()
        .allow_without_host(&format!("{good}:{port}"));
    let workspace = place(workspace, &host);
    let workspace = if named {
        workspace.gateway_line(&format!(
            "upstream_proxy = \"http://{host}:{}\"",
            proxy.port
        ))
    } else {
        workspace
    };
    workspace.put("dial.py", include_str!("../../probe/dial.py"));
    let out = workspace.inside(&format!(
        "python3 dial.py tcp {good} {port} good; python3 dial.py tcp {bad} {port} bad; python3 dial.py tcp {} {port} raw",
        rig().bridge
    ));
    let lines: Vec<&str> = out.ok().lines().collect();
    assert_eq!(lines[1..], ["error connect EPERM"; 2], "{}", out.stdout);
    assert!(!receiver.heard_bytes(b"bad") && !receiver.heard_bytes(b"raw"));
    if named {
        assert_eq!(lines[0], "answer good", "{}", out.stderr);
        assert!(receiver.heard_bytes(b"good"));
        assert_eq!(proxy.heard(), [format!("CONNECT {good}:{port}")]);
    } else {
        assert!(!lines[0].contains("answer"), "{}", out.stdout);
        receiver.silent();
        assert_eq!(proxy.heard(), [""; 0]);
    }
}

#[test]
fn a_proxy_that_the_host_places_is_reached_on_a_private_network() {
    let proxy = Proxy::start();
    let placed = |workspace: Workspace, host: &str| workspace.host(host, rig().bridge);
    dial(&proxy, placed, true);
}

#[test]
fn a_proxy_that_the_resolver_finds_is_reached_on_a_private_network() {
    let names = NameServer::start(rig().bridge);
    let line = format!("resolver = \"{}:{}\"", rig().bridge, names.port);
    let found = |workspace: Workspace, _: &str| workspace.gateway_line(&line);
    // Without a proxy what the same resolver says of the same network is refused.
    dial(&Proxy::start(), found, false);
    dial(&Proxy::start(), found, true);
}
