//! More than one program, more than one session, many starts.

use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::rig;

use crate::standard::{name, workspace};

#[test]
fn what_exec_starts_is_held_by_the_same_policy() {
    let (host, receiver) = (name(), Receiver::start());
    let workspace = workspace().allow(&[&format!("{host}:{}", receiver.port())]);
    let session = workspace.session(&token("s"));
    let out = session.inside(&format!(
        "python3 dial.py tcp {host} {port} by-name; python3 dial.py tcp {} {port} by-address",
        rig().bridge,
        port = receiver.port()
    ));
    assert_eq!(out.ok(), "answer by-name\nerror connect EPERM");
    assert!(receiver.heard_bytes(b"by-name") && !receiver.heard_bytes(b"by-address"));
}

#[test]
fn two_sessions_with_opposite_policies_do_not_lend_each_other_anything() {
    let (one, two, receiver) = (name(), name(), Receiver::start());
    let port = receiver.port();
    let workspaces = [
        workspace()
            .allow(&[&format!("{one}:{port}")])
            .host(&two, rig().bridge),
        workspace()
            .allow(&[&format!("{two}:{port}")])
            .host(&one, rig().bridge),
    ];
    let sessions = [
        workspaces[0].session(&token("s")),
        workspaces[1].session(&token("s")),
    ];
    for round in 0..3 {
        for (index, session) in sessions.iter().enumerate() {
            let out = session.inside(&format!(
                "python3 dial.py tcp {one} {port} s{index}r{round}one; python3 dial.py tcp {two} {port} s{index}r{round}two"
            ));
            let expected = if index == 0 {
                format!("answer s0r{round}one\nerror connect EPERM")
            } else {
                format!("error connect EPERM\nanswer s1r{round}two")
            };
            assert_eq!(out.ok(), expected);
        }
    }
    assert!(
        !receiver
            .heard()
            .iter()
            .any(|one| one.bytes.ends_with(b"two") && one.bytes.starts_with(b"s0"))
    );
    assert!(
        !receiver
            .heard()
            .iter()
            .any(|one| one.bytes.ends_with(b"one") && one.bytes.starts_with(b"s1"))
    );
}

/// The raw address never gets through, the name always does.
#[test]
fn a_hundred_starts_whose_first_act_is_to_dial() {
    let count = 100;
    let (host, allowed, denied) = (name(), Receiver::start(), Receiver::start());
    let workspace = workspace().allow(&[&format!("{host}:{}", allowed.port())]);
    let script = format!(
        "(exec 3<>/dev/tcp/{bridge}/{denied} && echo leak >&3) 2>/dev/null && echo LEAKED
         exec 3<>/dev/tcp/{host}/{allowed} && echo $0 >&3 && read -r -u 3 back && echo back $back",
        bridge = rig().bridge,
        denied = denied.port(),
        allowed = allowed.port()
    );
    for number in 0..count {
        let out = workspace.run(&["bash", "-c", &script, &format!("start{number}.")]);
        assert_eq!(
            out.ok(),
            format!("back start{number}."),
            "start {number}: {}",
            out.stderr
        );
    }
    denied.silent();
    assert_eq!(allowed.heard().len(), count);
}
