//! `doctor --fix`: what to change on this machine for its kernel to have BPF LSM. It is printed and never done: a kernel's command line is the
//! person's own to change.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Serialize;

/// Bytes of a kernel's configuration that are read.
const MAX_CONFIG: u64 = 4 << 20;
/// What the kernel puts first or last by itself, whatever the list says (security/security.c).
const BY_ITSELF: [&str; 3] = ["capability", "ima", "evm"];
/// Where neither the running kernel nor its configuration says a list.
const USUAL: &str = "landlock,lockdown,yama,integrity,apparmor,selinux";

/// What there is to change.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// What is the matter, or that nothing is.
    pub finding: String,
    /// Commands and lines, in their order; none where nothing on this machine changes it.
    pub steps: Vec<String>,
}

/// What is known of the machine.
#[derive(Debug, Default)]
pub struct Facts {
    /// `ID` and `ID_LIKE` of os-release(5).
    pub distribution: Vec<String>,
    /// `uname -r`.
    pub release: String,
    /// Lines of the kernel's configuration, where it can be read.
    pub config: Option<String>,
    /// The security modules of the running kernel, where securityfs is mounted.
    pub modules: Option<String>,
    /// The mode that the kernel is locked down in, in brackets among the others.
    pub lockdown: Option<String>,
}

// === impl Facts ===

impl Facts {
    pub fn gather() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).ok();
        let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
        let release = release.trim().to_owned();
        Self {
            distribution: text("/etc/os-release").map_or_else(Vec::new, |text| distribution(&text)),
            config: config(&release),
            release,
            modules: text("/sys/kernel/security/lsm").map(|list| list.trim().to_owned()),
            lockdown: text("/sys/kernel/security/lockdown"),
        }
    }

    /// `refused`: why the kernel takes no LSM programs, by the enforcer's word; none where it does.
    pub fn fix(&self, refused: Option<&str>) -> Fix {
        let Some(refused) = refused else {
            return Fix {
                finding: "BPF LSM is there: nothing to change".to_owned(),
                steps: Vec::new(),
            };
        };
        if self.setting("CONFIG_BPF_LSM").is_none() && self.config.is_some() {
            return Fix {
                finding: format!("the kernel {} was built without BPF LSM", self.release),
                steps: self.another_kernel(),
            };
        }
        let modules = self.modules.clone();
        let modules = modules.or_else(|| self.setting("CONFIG_LSM").map(str::to_owned));
        let modules = modules.unwrap_or_else(|| USUAL.to_owned());
        let names: Vec<&str> = modules
            .split(',')
            .filter(|name| !name.is_empty() && !BY_ITSELF.contains(name))
            .collect();
        if names.contains(&"bpf") {
            let lockdown = self.lockdown.as_deref().unwrap_or_default();
            let why = match lockdown.contains("[confidentiality]") {
                true => "it is locked down for confidentiality (lockdown= on its command line)",
                false => "what it runs in does not let such programs be loaded or attached",
            };
            return Fix {
                finding: format!(
                    "`bpf` is among the kernel's security modules, and it refuses the programs ({refused}): {why}"
                ),
                steps: Vec::new(),
            };
        }
        let list = format!("lsm={},bpf", names.join(","));
        let finding = format!(
            "the kernel {} has BPF LSM and does not start it: `bpf` is not among its security modules ({modules})",
            self.release
        );
        let steps = self.command_line(&list);
        Fix { finding, steps }
    }

    fn setting(&self, name: &str) -> Option<&str> {
        let mut lines = self.config.as_deref()?.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches('"'))
    }

    fn is_wsl(&self) -> bool {
        self.release.to_ascii_lowercase().contains("microsoft")
    }

    fn is_like(&self, names: &[&str]) -> bool {
        self.distribution
            .iter()
            .any(|id| names.contains(&id.as_str()))
    }

    fn command_line(&self, list: &str) -> Vec<String> {
        if self.is_wsl() {
            return vec![
                "in %UserProfile%\\.wslconfig on Windows, under [wsl2]:".to_owned(),
                format!("    kernelCommandLine = {list}"),
                "then, on Windows: wsl --shutdown".to_owned(),
            ];
        }
        if self.is_like(&["debian", "ubuntu"]) {
            return vec![
                format!(
                    "echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {list}\"' | sudo tee /etc/default/grub.d/60-bpf-lsm.cfg"
                ),
                "sudo update-grub".to_owned(),
                "sudo reboot".to_owned(),
            ];
        }
        if self.is_like(&["fedora", "rhel", "centos"]) {
            return vec![
                format!("sudo grubby --update-kernel=ALL --args='{list}'"),
                "sudo reboot".to_owned(),
            ];
        }
        vec![
            format!("add to the kernel's command line, where your boot loader keeps it: {list}"),
            "sudo reboot".to_owned(),
        ]
    }

    fn another_kernel(&self) -> Vec<String> {
        if self.is_wsl() {
            return vec![
                "build Microsoft's kernel with CONFIG_BPF_LSM=y, CONFIG_DEBUG_INFO_BTF=y, CONFIG_FUNCTION_TRACER=y and `bpf` in CONFIG_LSM".to_owned(),
                "in %UserProfile%\\.wslconfig on Windows, under [wsl2]:".to_owned(),
                "    kernel = C:\\\\path\\\\to\\\\bzImage".to_owned(),
                "then, on Windows: wsl --shutdown".to_owned(),
            ];
        }
        let package = [
            (&["ubuntu"][..], "sudo apt install linux-image-generic"),
            (&["debian"], "sudo apt install linux-image-amd64"),
            (&["fedora", "rhel", "centos"], "sudo dnf install kernel"),
        ];
        let package = package.iter().find(|(names, _)| self.is_like(names));
        let install = package.map_or("install your distribution's own kernel", |(_, step)| step);
        vec![install.to_owned(), "sudo reboot".to_owned()]
    }
}

fn distribution(text: &str) -> Vec<String> {
    let value = |key| {
        let lines = text.lines().filter_map(move |line| line.strip_prefix(key));
        lines.flat_map(|value| value.trim_matches(['"', '\'']).split_whitespace())
    };
    value("ID=")
        .chain(value("ID_LIKE="))
        .map(str::to_owned)
        .collect()
}

/// From where distributions put it, or from the kernel itself (CONFIG_IKCONFIG_PROC).
fn config(release: &str) -> Option<String> {
    let mut text = String::new();
    let boot = Path::new("/boot").join(format!("config-{release}"));
    let read = match File::open(boot) {
        Ok(file) => file.take(MAX_CONFIG).read_to_string(&mut text),
        Err(_) => {
            let file = File::open("/proc/config.gz").ok()?;
            let mut file = flate2::read::GzDecoder::new(file).take(MAX_CONFIG);
            file.read_to_string(&mut text)
        }
    };
    read.ok().map(|_| text)
}

#[cfg(test)]
#[path = "fix/tests.rs"]
mod tests;
