#![allow(clippy::unwrap_used)]
use super::*;

const REFUSED: Option<&str> = Some("never asked");

fn facts(ids: &[&str], modules: Option<&str>, config: Option<&str>) -> Facts {
    Facts {
        distribution: ids.iter().map(|id| (*id).to_owned()).collect(),
        release: "6.8.0-45-generic".to_owned(),
        config: config.map(str::to_owned),
        modules: modules.map(str::to_owned),
        lockdown: None,
    }
}

const UBUNTU: &str = "lockdown,capability,landlock,yama,apparmor,ima,evm";
const WITH: &str = "CONFIG_BPF=y\nCONFIG_BPF_LSM=y\nCONFIG_LSM=\"landlock,lockdown,yama\"\n";

#[test]
fn where_bpf_is_not_started_the_list_that_is_there_is_made_longer() {
    let fix = facts(&["ubuntu", "debian"], Some(UBUNTU), Some(WITH)).fix(REFUSED);
    assert!(fix.finding.contains("does not start it"), "{fix:?}");
    assert_eq!(
        fix.steps,
        [
            "echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX lsm=lockdown,landlock,yama,apparmor,bpf\"' | sudo tee /etc/default/grub.d/60-bpf-lsm.cfg",
            "sudo update-grub",
            "sudo reboot"
        ]
    );
    let fix = facts(&["fedora"], Some("lockdown,capability,selinux"), Some(WITH)).fix(REFUSED);
    assert_eq!(
        fix.steps[0],
        "sudo grubby --update-kernel=ALL --args='lsm=lockdown,selinux,bpf'"
    );
    // Without securityfs, what the kernel was built with.
    let fix = facts(&["arch"], None, Some(WITH)).fix(REFUSED);
    assert!(
        fix.steps[0].ends_with(": lsm=landlock,lockdown,yama,bpf"),
        "{fix:?}"
    );
    let fix = facts(&[], None, None).fix(REFUSED);
    assert!(
        fix.steps[0].ends_with(&format!("lsm={USUAL},bpf")),
        "{fix:?}"
    );
}

#[test]
fn in_wsl_it_is_windows_that_says_the_command_line() {
    let mut facts = facts(&["ubuntu"], Some("capability,landlock"), Some(WITH));
    facts.release = "5.15.153.1-microsoft-standard-WSL2".to_owned();
    let fix = facts.fix(REFUSED);
    assert_eq!(fix.steps[1], "    kernelCommandLine = lsm=landlock,bpf");
    facts.config = Some("# CONFIG_BPF_LSM is not set\n".to_owned());
    let fix = facts.fix(REFUSED);
    assert!(fix.finding.contains("built without"), "{fix:?}");
    assert!(fix.steps[0].contains("CONFIG_BPF_LSM=y"), "{fix:?}");
}

#[test]
fn what_no_boot_changes_has_no_steps() {
    let mut facts = facts(&["debian"], Some("lockdown,capability,bpf"), Some(WITH));
    let fix = facts.fix(REFUSED);
    assert!(
        fix.finding.contains("what it runs in") && fix.steps.is_empty(),
        "{fix:?}"
    );
    facts.lockdown = Some("none integrity [confidentiality]\n".to_owned());
    assert!(facts.fix(REFUSED).finding.contains("confidentiality"));
    let fix = facts.fix(None);
    assert!(fix.finding.contains("nothing to change") && fix.steps.is_empty());
}

#[test]
fn a_kernel_without_it_is_exchanged() {
    let fix = facts(&["debian"], None, Some("CONFIG_BPF=y\n")).fix(REFUSED);
    assert_eq!(
        fix.steps,
        ["sudo apt install linux-image-amd64", "sudo reboot"]
    );
}

#[test]
fn a_distribution_is_known_by_what_it_is_like() {
    let text = "NAME=\"Pop!_OS\"\nID=pop\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=\"22.04\"\n";
    assert_eq!(distribution(text), ["pop", "ubuntu", "debian"]);
}
