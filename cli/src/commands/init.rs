//! `agentcontainer init`: an agentcontainer.json from an existing devcontainer.json (its comments kept) and from what the
//! project's own files name. No host is known here: every one comes from a file of the project, and is shown with it.

mod derive;

use std::fs;
use std::path::Path;

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstRootNode};
use schema::image::ImageRef;

use crate::files;
use crate::loaded;
use crate::patch::input;
use crate::report::{self, Failure};
use derive::Derived;

/// Where a devcontainer.json is taken from, the first that is there.
const SOURCES: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];
/// What may not be there already.
const TARGETS: [&str; 2] = [".devcontainer/agentcontainer.json", "agentcontainer.json"];
const TARGET: &str = "agentcontainer.json";
/// The image of a project that names none.
const IMAGE: &str = "debian:stable";
/// The largest devcontainer.json that is read, in bytes.
const MAX_SOURCE: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image to run in
    #[arg(long)]
    image: Option<String>,
    /// Replace a config that is there
    #[arg(long)]
    force: bool,
    /// Print it in place of writing it
    #[arg(long)]
    print: bool,
}

pub fn run(args: &Args) -> Result<u8, Failure> {
    let workspace = loaded::workspace()?;
    if let Some(image) = &args.image {
        ImageRef::parse(image).map_err(|e| Failure::new("image", format!("{image}: {e}")))?;
    }
    if !args.force && !args.print {
        for target in TARGETS {
            if workspace.join(target).symlink_metadata().is_ok() {
                return Err(
                    Failure::new("config-exists", format!("{target} is already there"))
                        .help("--force replaces it; --print shows what would be written"),
                );
            }
        }
    }
    let derived = derive::derive(&workspace);
    let text = match source(&workspace)? {
        Some((name, text)) => {
            report::note(format!("from {name}"));
            convert(&text, args.image.as_deref(), &derived).ok_or_else(|| {
                Failure::new(
                    "syntax",
                    format!("{name} is not JSON with comments that holds an object"),
                )
            })?
        }
        None => fresh(args.image.as_deref().unwrap_or(IMAGE), &derived),
    };
    for (host, files) in &derived.hosts {
        report::note(format!(
            "allowed: {host} (named by {})",
            files.iter().cloned().collect::<Vec<_>>().join(", ")
        ));
    }
    for note in &derived.notes {
        report::note(format!("note: {note}"));
    }
    if let Err(diagnostics) = schema::config::parse(text.as_bytes(), TARGET) {
        for diagnostic in diagnostics {
            report::warning(format!("to be dealt with before it runs: {diagnostic}"));
        }
    }
    if args.print {
        report::out(text.trim_end());
        return Ok(0);
    }
    files::write(&workspace.join(TARGET), &text, args.force)?;
    report::note(format!(
        "wrote {TARGET}; read it, then `agentcontainer run`"
    ));
    Ok(0)
}

fn source(workspace: &Path) -> Result<Option<(&'static str, String)>, Failure> {
    for name in SOURCES {
        let path = workspace.join(name);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() > MAX_SOURCE || !meta.is_file() => {
                return Err(Failure::new(
                    "too-large",
                    format!("{name} is no file of at most {MAX_SOURCE} bytes"),
                ));
            }
            Ok(_) => {
                let text = fs::read_to_string(&path).map_err(|e| Failure::io("read", &path, &e))?;
                // Deep nesting is refused before a parser recurses into it.
                let plain = schema::config::parse(text.as_bytes(), name);
                if let Err(diagnostics) = plain
                    && diagnostics
                        .iter()
                        .any(|d| matches!(d.code, "too-deep" | "syntax"))
                {
                    return Err(diagnostics.into());
                }
                return Ok(Some((name, text)));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::io("read", &path, &e)),
        }
    }
    Ok(None)
}

fn words(values: impl Iterator<Item = String>) -> Vec<CstInputValue> {
    values.map(CstInputValue::String).collect()
}

/// The devcontainer's text with what an agent may do added; everything that was in it stays where it was.
fn convert(text: &str, image: Option<&str>, derived: &Derived) -> Option<String> {
    let root = CstRootNode::parse(text, &ParseOptions::default()).ok()?;
    let object = root.object_value()?;
    if let Some(image) = image {
        match object.get("image") {
            Some(property) => property.set_value(CstInputValue::String(image.to_owned())),
            None => {
                object.insert(0, "image", CstInputValue::String(image.to_owned()));
            }
        }
    }
    // What stood under customizations is the same object under its own key.
    if let Some(customizations) = object.object_value("customizations")
        && let Some(ours) = customizations.get("agentcontainer")
    {
        if let Some(value) = ours.value().and_then(|v| plain(&v.to_string()))
            && object.get("agent").is_none()
        {
            object.append("agent", input(&value));
        }
        ours.remove();
        if customizations.properties().is_empty()
            && let Some(empty) = object.get("customizations")
        {
            empty.remove();
        }
    }
    let mut at = object;
    for key in ["agent", "capabilities", "network", "egress"] {
        at = at.object_value_or_set(key);
    }
    let list = at.array_value_or_set("allowedDomains");
    let there: Vec<String> = list
        .elements()
        .iter()
        .filter_map(|e| e.as_string_lit()?.decoded_value().ok())
        .collect();
    for value in words(derived.hosts.keys().filter(|h| !there.contains(h)).cloned()) {
        list.append(value);
    }
    let mut text = root.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Some(text)
}

fn plain(text: &str) -> Option<serde_json::Value> {
    jsonc_parser::parse_to_serde_value(text, &ParseOptions::default()).ok()
}

/// A config where there was none.
fn fresh(image: &str, derived: &Derived) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let hosts: Vec<String> = derived
        .hosts
        .keys()
        .map(|h| format!("\n            {}", quote(h)))
        .collect();
    let list = if hosts.is_empty() {
        "[]".to_owned()
    } else {
        format!("[{}\n          ]", hosts.join(","))
    };
    format!(
        "{{\n  // What the agent runs in.\n  \"image\": {},\n  \"agent\": {{\n    \"capabilities\": {{\n      \"network\": {{\n        \
         \"egress\": {{\n          // Everything that it may reach: NAME is ports 443 and 80, NAME:PORT that port, *.NAME all below it.\n          \
         \"allowedDomains\": {list}\n        }}\n      }}\n    }}\n  }}\n}}\n",
        quote(image)
    )
}

#[cfg(test)]
mod tests;
