//! Which registry npm in an image asks: read from its files and variables, in npm's own order, and nothing of the image is run.
//! Its user's `.npmrc` is left aside; the default is read from npm's own definitions.

use std::collections::BTreeMap;

/// The longest `.npmrc`, an image's or a project's, in bytes.
pub const MAX_NPMRC: usize = 64 * 1024;
/// The longest file in which npm says its defaults, in bytes.
pub const MAX_DEFINITIONS: usize = 512 * 1024;

/// Below npm's own directory: since npm 9, Debian's way of it, npm 7 and 8, npm 6.
const DEFINITIONS: &[&str] = &[
    "node_modules/@npmcli/config/lib/definitions/definitions.js",
    "../@npmcli/config/lib/definitions/definitions.js",
    "lib/utils/config/definitions.js",
    "lib/config/defaults.js",
];

/// What npm would ask, given where the links of its program end. `read` gives as many of a file's first bytes. `None` where it
/// cannot be told: something is longer than is read, or npm does not lie as npm does.
pub async fn registry<E>(
    env: &BTreeMap<String, String>,
    program: &str,
    mut read: impl AsyncFnMut(&str, usize) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<String>, E> {
    if let Some(url) = variable(env, "npm_config_registry") {
        return Ok(Some(url.to_owned()));
    }
    let root = program.strip_suffix("/bin/npm-cli.js");
    let mut files = Vec::new();
    match variable(env, "npm_config_globalconfig") {
        Some(file) => files.push(file.to_owned()),
        None => {
            let prefix = root.and_then(|root| root.strip_suffix("/lib/node_modules/npm"));
            files.extend(prefix.map(|prefix| format!("{prefix}/etc/npmrc")));
            files.extend(["/usr/local/etc/npmrc", "/etc/npmrc"].map(str::to_owned));
        }
    }
    files.extend(root.map(|root| format!("{root}/npmrc")));
    for file in files {
        let bytes = read(&file, MAX_NPMRC + 1).await?.unwrap_or_default();
        if bytes.len() > MAX_NPMRC {
            return Ok(None);
        }
        if let Some(url) = registry_in(&String::from_utf8_lossy(&bytes)) {
            return Ok(Some(url));
        }
    }
    for file in root.map_or(&[][..], |_| DEFINITIONS) {
        let at = format!("{}/{file}", root.unwrap_or_default());
        let bytes = read(&at, MAX_DEFINITIONS + 1).await?.unwrap_or_default();
        if bytes.len() > MAX_DEFINITIONS {
            return Ok(None);
        }
        if let Some(url) = default_in(&String::from_utf8_lossy(&bytes)) {
            return Ok(Some(url));
        }
    }
    Ok(None)
}

/// npm reads its variables in any case, and an empty one is none.
fn variable<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let mut named = env
        .iter()
        .filter(|(n, v)| n.eq_ignore_ascii_case(name) && !v.is_empty());
    named.next().map(|(_, value)| value.as_str())
}

/// What an `.npmrc` names for packages of no scope of its own.
pub fn registry_in(npmrc: &str) -> Option<String> {
    let value = |line: &str| {
        let (key, value) = line.trim().split_once('=')?;
        (key.trim() == "registry").then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    npmrc.lines().filter_map(value).next_back()
}

/// The default of `registry` where npm defines what can be configured.
fn default_in(definitions: &str) -> Option<String> {
    let lines = definitions.lines().map(str::trim);
    let quoted = |value: &str| {
        let value = value.trim().trim_end_matches(',');
        let inner = value.strip_prefix(['\'', '"'])?.strip_suffix(['\'', '"'])?;
        inner.starts_with("https://").then(|| inner.to_owned())
    };
    let mut inside = false;
    for line in lines {
        if let Some(url) = line.strip_prefix("registry:").and_then(quoted) {
            return Some(url);
        }
        let begins = line.starts_with("registry:") || line.starts_with("define(");
        if begins || line.contains("Definition(") {
            inside = line.contains("'registry'") || line.contains("\"registry\"");
        }
        if let (true, Some(value)) = (inside, line.strip_prefix("default:")) {
            return quoted(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::convert::Infallible;

    const NPM: &str = "/usr/local/lib/node_modules/npm/bin/npm-cli.js";

    fn told(env: &[(&str, &str)], program: &str, files: &[(&str, String)]) -> Option<String> {
        let env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let env: BTreeMap<_, _> = env.collect();
        let read = async |path: &str, most: usize| -> Result<Option<Vec<u8>>, Infallible> {
            let found = files.iter().find(|(at, _)| *at == path);
            Ok(found.map(|(_, text)| text.bytes().take(most).collect()))
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(registry(&env, program, read)).unwrap()
    }

    #[test]
    fn a_variable_comes_before_the_global_file_and_that_before_npms_own_and_its_default() {
        let at = |path: &'static str, url: &str| (path, format!("audit=false\nregistry={url}\n"));
        let default = (
            "/usr/local/lib/node_modules/npm/node_modules/@npmcli/config/lib/definitions/definitions.js",
            "  registry: new Definition('registry', {\n    default: 'https://default.test/',\n"
                .to_owned(),
        );
        let own = at("/usr/local/lib/node_modules/npm/npmrc", "https://own.test/");
        let etc = at("/etc/npmrc", "https://etc.test/");
        let global = at("/usr/local/etc/npmrc", "https://global.test/");
        let named = at("/named", "https://named.test/");
        let files = [default, own, etc, global, named];
        let says = |env: &[(&str, &str)], known: usize| told(env, NPM, &files[..known]);
        assert_eq!(says(&[], 0), None);
        assert_eq!(says(&[], 1).unwrap(), "https://default.test/");
        assert_eq!(says(&[], 2).unwrap(), "https://own.test/");
        assert_eq!(says(&[], 3).unwrap(), "https://etc.test/");
        assert_eq!(says(&[], 4).unwrap(), "https://global.test/");
        let named = [("npm_config_globalconfig", "/named")];
        assert_eq!(says(&named, 5).unwrap(), "https://named.test/");
        let variable = [("NPM_CONFIG_REGISTRY", "https://variable.test/")];
        assert_eq!(says(&variable, 5).unwrap(), "https://variable.test/");
        assert_eq!(
            says(&[("NPM_CONFIG_REGISTRY", "")], 5).unwrap(),
            "https://global.test/"
        );
        // What does not lie as npm does has no default that we know of.
        assert_eq!(told(&[], "/usr/bin/npm", &files[..2]), None);
    }

    #[test]
    fn the_default_is_the_registrys_own_however_npm_writes_it() {
        let next = "new Definition('replace-registry-host', {\n default: 'https://no.test/',\n";
        for text in [
            "x: new Definition('x', {\n default: 'https://no.test/',\n}),\nregistry: new Definition('registry', {\n default: 'https://yes.test/',\n",
            "define('x', {\n  default: \"https://no.test/\",\n})\ndefine('registry', {\n  default: 'https://yes.test/',\n",
            "  proxy: null,\n  registry: 'https://yes.test/',\n",
        ] {
            assert_eq!(default_in(text).unwrap(), "https://yes.test/", "{text}");
        }
        let none = format!("registry: new Definition('registry', {{\n{next}");
        assert_eq!(default_in(&none), None);
        assert_eq!(default_in("define('registry', {\n default: null,\n"), None);
    }

    #[test]
    fn what_is_longer_than_is_read_names_nothing() {
        let text = |most: usize| {
            let line = "registry=https://x.test/\n";
            format!("{line}{}", "#".repeat(most - line.len()))
        };
        let npmrc = |most| told(&[], NPM, &[("/etc/npmrc", text(most))]);
        assert!(npmrc(MAX_NPMRC).is_some());
        assert!(npmrc(MAX_NPMRC + 1).is_none());
        let at = "/usr/local/lib/node_modules/npm/lib/config/defaults.js";
        let defaults = |most| {
            let line = "registry: 'https://x.test/',\n";
            told(
                &[],
                NPM,
                &[(at, format!("{line}{}", "/".repeat(most - line.len())))],
            )
        };
        assert!(defaults(MAX_DEFINITIONS).is_some());
        assert!(defaults(MAX_DEFINITIONS + 1).is_none());
    }
}
