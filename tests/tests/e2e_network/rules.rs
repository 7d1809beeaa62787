//! Allowed and denied by name, port, wildcard and network.

use agentcontainer_tests::peer::{INNER_PORT, Inner, NameServer};
use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::{Workspace, rig};

use crate::standard::{name, standard, workspace};

#[test]
fn an_allowed_name_is_answered_on_80_and_on_443() {
    let host = name();
    let out = workspace().allow(&[&host]).inside(&format!(
        "curl -sS --max-time 30 http://{host}/hello && curl -sS --max-time 30 https://{host}/hello"
    ));
    assert_eq!(out.ok(), format!("hello from {host}\nhello from {host}"));
    assert_eq!(standard().requests(&host).len(), 2);
}

#[test]
fn a_name_that_nobody_allowed_gets_the_page_on_80_and_443_and_eperm_elsewhere() {
    let (host, receiver) = (name(), Receiver::start());
    let port = receiver.port();
    let out = workspace().host(&host, rig().bridge).inside(&format!(
        "curl -s -o page -w '%{{http_code}} %header{{x-agentcontainer-blocked}}\\n' --max-time 30 http://{host}/hello
         grep -c '{host}' page
         curl -s -o page -w '%{{http_code}} %header{{x-agentcontainer-blocked}}\\n' --max-time 30 https://{host}/hello
         python3 dial.py tcp {host} {port} x"
    ));
    let lines: Vec<&str> = out.ok().lines().collect();
    assert_eq!(lines[0], "403 not-listed", "{}", out.stdout);
    assert_ne!(lines[1], "0", "the page names the host: {}", out.stdout);
    assert_eq!(lines[2], "403 not-listed", "{}", out.stdout);
    assert_eq!(lines[3], "error connect EPERM", "{}", out.stdout);
    assert!(standard().requests(&host).is_empty());
    receiver.silent();
}

#[test]
fn a_name_with_a_port_opens_that_port_alone() {
    let (host, open, shut) = (name(), Receiver::start(), Receiver::start());
    let out = workspace().allow(&[&format!("{host}:{}", open.port())]).inside(&format!(
        "python3 dial.py tcp {host} {} through; python3 dial.py tcp {host} {} blocked; python3 dial.py udp {host} {} datagram",
        open.port(),
        shut.port(),
        open.port()
    ));
    assert_eq!(
        out.ok(),
        "answer through\nerror connect EPERM\nerror send EPERM"
    );
    assert!(open.heard_bytes(b"through") && !open.heard_bytes(b"datagram"));
    shut.silent();
}

#[test]
fn a_wildcard_opens_any_depth_below_it_and_neither_itself_nor_a_look_alike() {
    let (base, receiver) = (token("w"), Receiver::start());
    let port = receiver.port();
    let mut workspace = workspace().allow(&[&format!("*.{base}.test:{port}")]);
    let names = [
        format!("a.{base}.test"),
        format!("a.b.c.{base}.test"),
        format!("{base}.test"),
        format!("evil{base}.test"),
        format!("a.{base}.test.evil.test"),
    ];
    for name in &names {
        workspace = workspace.host(name, rig().bridge);
    }
    let script: String = names
        .iter()
        .enumerate()
        .map(|(index, name)| format!("python3 dial.py tcp {name} {port} say{index}\n"))
        .collect();
    let out = workspace.inside(&script);
    let denied = "error connect EPERM";
    assert_eq!(
        out.ok().lines().collect::<Vec<_>>(),
        ["answer say0", "answer say1", denied, denied, denied]
    );
    let heard: Vec<Vec<u8>> = receiver.heard().into_iter().map(|one| one.bytes).collect();
    assert_eq!(heard, [b"say0".to_vec(), b"say1".to_vec()]);
}

#[test]
fn a_denied_name_wins_over_the_wildcard_that_allows_it() {
    let (base, receiver) = (token("d"), Receiver::start());
    let port = receiver.port();
    let (good, bad) = (format!("good.{base}.test"), format!("bad.{base}.test"));
    let workspace = workspace()
        .allow(&[&format!("*.{base}.test:{port}")])
        .deny(&[&bad]);
    let out = workspace
        .host(&good, rig().bridge)
        .host(&bad, rig().bridge)
        .inside(&format!(
            "python3 dial.py tcp {good} {port} good; python3 dial.py tcp {bad} {port} bad"
        ));
    assert_eq!(out.ok(), "answer good\nerror connect EPERM");
    assert!(!receiver.heard_bytes(b"bad"));
}

#[test]
fn a_network_opens_its_addresses_at_its_port_and_no_other() {
    let (open, shut) = (Receiver::start(), Receiver::start());
    let bridge = rig().bridge;
    let out = workspace().network(&format!("{bridge}:{}", open.port())).inside(&format!(
        "python3 dial.py tcp {bridge} {} through; python3 dial.py tcp {bridge} {} blocked; python3 dial.py tcp 203.0.113.9 {} blocked",
        open.port(),
        shut.port(),
        open.port()
    ));
    assert_eq!(
        out.ok(),
        "answer through\nerror connect EPERM\nerror connect EPERM"
    );
    assert!(open.heard_bytes(b"through"));
    shut.silent();
}

#[test]
fn a_raw_address_is_eperm_although_an_allowed_name_leads_there() {
    let (host, receiver) = (name(), Receiver::start());
    let out = workspace()
        .allow(&[&format!("{host}:{}", receiver.port())])
        .inside(&format!(
            "python3 dial.py tcp {} {} x",
            rig().bridge,
            receiver.port()
        ));
    assert_eq!(out.ok(), "error connect EPERM");
    receiver.silent();
}

/// A workspace with a sidecar of its own, beside which these addresses answer.
fn beside(addresses: &[&str]) -> (Workspace, Inner) {
    let workspace = Workspace::new().with_own_state().without_private_networks();
    workspace.put("dial.py", include_str!("../../probe/dial.py"));
    workspace.write();
    let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
    (workspace, Inner::start(&sidecar, addresses))
}

#[test]
fn a_network_with_a_prefix_opens_what_is_in_it_and_nothing_beside_it() {
    let (first, last, beyond) = ("10.77.0.1", "10.77.0.2", "10.77.0.5");
    let (workspace, inner) = beside(&[first, last, beyond]);
    let dial =
        |address: &str, port: u16| format!("python3 dial.py tcp {address} {port} {address};");
    let out = workspace
        .network(&format!("10.77.0.0/30:{INNER_PORT}"))
        .inside(
            &[
                dial(first, INNER_PORT),
                dial(last, INNER_PORT),
                dial(beyond, INNER_PORT),
                dial(first, INNER_PORT + 1),
                dial("10.76.255.255", INNER_PORT),
                dial("10.77.0.4", INNER_PORT),
            ]
            .concat(),
        );
    let eperm = "error connect EPERM";
    let answers = [first, last].map(|address| format!("answer {address}"));
    assert_eq!(
        out.ok().lines().collect::<Vec<_>>(),
        [&answers[0], &answers[1], eperm, eperm, eperm, eperm]
    );
    assert_eq!(inner.heard(first), [first]);
    assert_eq!(inner.heard(last), [last]);
    assert_eq!(inner.heard(beyond), [""; 0]);
}

#[test]
fn a_name_that_leads_to_a_private_network_nobody_named_is_refused_after_resolution() {
    let (private, metadata, host) = ("10.77.1.1", "169.254.169.254", name());
    let (mut workspace, inner) = beside(&[private, metadata]);
    workspace = workspace.allow_without_host(&format!("{host}:{INNER_PORT}"));
    let mut dial = |word: &str, address: &str, network: &[&str]| {
        let names = NameServer::start(address.parse().unwrap());
        let line = format!("resolver = \"{}:{}\"", rig().bridge, names.port);
        workspace.set_gateway(&line, network);
        let command = format!("python3 dial.py tcp {host} {INNER_PORT} {word}");
        workspace.inside(&command).ok().to_owned()
    };
    // The resolver's word alone opens nothing, the host's opens its network, and nothing opens a metadata service.
    assert!(!dial("closed", private, &[]).contains("answer"));
    assert_eq!(inner.heard(private), [""; 0]);
    assert_eq!(dial("open", private, &["10.77.0.0/16"]), "answer open");
    assert_eq!(inner.heard(private), ["open"]);
    assert!(!dial("never", metadata, &["169.254.0.0/16"]).contains("answer"));
    assert_eq!(inner.heard(metadata), [""; 0]);
}

#[test]
fn the_wire_must_say_the_name_it_was_dialled_by() {
    let (host, other) = (name(), name());
    let out = workspace().allow(&[&host]).host(&other, rig().bridge).inside(&format!(
        "curl -s -o /dev/null -w '%{{http_code}}\\n' --max-time 30 -H 'Host: {other}' http://{host}/hello
         curl -sS --max-time 30 -k --resolve {other}:443:$(getent ahosts {host} | awk 'NR==1{{print $1}}') https://{other}/hello 2>&1 | grep -c 'unrecognized name'"
    ));
    assert_eq!(out.stdout.trim(), "421\n1", "{}", out.stderr);
    assert!(standard().requests(&other).is_empty() && standard().requests(&host).is_empty());
}
