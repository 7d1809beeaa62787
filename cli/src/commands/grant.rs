//! `agentcontainer grant`: the person's word that a workspace may use a credential, where its value comes from and which hosts
//! may see it; or, with `--secret`, that it may have a value inside as a file. What is left out is taken from the grant there is or asked for on the terminal; a workspace's own wish
//! is never taken for the person's word.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schema::config::agent::{self, Domain};
use schema::config::secret::DIRECTORY;
use schema::config::{Wanted, discover};
use schema::credential::{CredentialName, MAX_HOSTS, Source};
use schema::hostconfig::{Grant, SecretGrant};
use schema::remote::Remote;
use schema::request::MAX_IN_RULE;
use serde_json::json;

use super::json;
use crate::places::Places;
use crate::record::ago;
use crate::report::{self, Failure, escape};
use crate::{credentials, grants, loaded, trust};

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["name", "list", "revoke"])))]
pub struct Args {
    /// The credential or secret, as agentcontainer.json names it
    name: Option<String>,
    /// Where its value comes from: env://VARIABLE, file:///PATH, exec:///PATH ARGUMENT…, stdin, keyring://SERVICE/ACCOUNT,
    /// op://VAULT/ITEM/FIELD, vault://HOST/MOUNT/PATH#FIELD, github-device://HOST/CLIENT_ID
    #[arg(long, value_name = "URI", requires = "name")]
    source: Option<String>,
    /// It is a secret: a file inside, which the agent can read
    #[arg(long, requires = "name", conflicts_with_all = ["hosts", "paths", "methods", "own_repository", "header", "format", "query", "env"])]
    secret: bool,
    /// The hosts that may see it: name, *.name, name:port; several between commas
    #[arg(long, value_name = "HOST,…", value_delimiter = ',', requires = "name")]
    hosts: Vec<String>,
    /// The paths that it may go to at those hosts, such as '/repos/acme/**'; several between commas. What is left out is every path, but
    /// for github, which is for the repository that the workspace's remote origin names
    #[arg(long, value_name = "GLOB,…", value_delimiter = ',', requires = "name")]
    paths: Vec<String>,
    /// The methods of the requests that it may go with, such as GET,HEAD; '*' takes back what was said before
    #[arg(
        long,
        value_name = "METHOD,…",
        value_delimiter = ',',
        requires = "name"
    )]
    methods: Vec<String>,
    /// Takes back what --paths said before: for github, the repository that the workspace's remote origin names again
    #[arg(long, requires = "name", conflicts_with = "paths")]
    own_repository: bool,
    /// The workspace it is for; this directory when left out
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// The header it stands in; Authorization when left out
    #[arg(long, requires = "name")]
    header: Option<String>,
    /// The header's value, with {} for the credential's; 'Bearer {}' when left out
    #[arg(long, requires = "name")]
    format: Option<String>,
    /// The parameter of a URL's query that its placeholder may be the value of as well
    #[arg(long, value_name = "PARAMETER", requires = "name")]
    query: Option<String>,
    /// The variable that holds its placeholder inside, where the workspace names none
    #[arg(long, value_name = "VARIABLE", requires = "name")]
    env: Option<String>,
    /// List what was granted, to every workspace
    #[arg(long)]
    list: bool,
    /// Take a grant of this workspace back
    #[arg(long, value_name = "NAME")]
    revoke: Option<String>,
    /// With --list: as JSON, one array
    #[arg(long, requires = "list")]
    json: bool,
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let places = Places::from_env()?;
    if args.list {
        list(&places, as_json);
        return Ok(0);
    }
    let workspace = match &args.workspace {
        // One that is gone is named by the path it had.
        Some(path) if args.revoke.is_some() => path.canonicalize().unwrap_or_else(|_| path.clone()),
        Some(path) => path
            .canonicalize()
            .map_err(|e| Failure::io("find", path, &e))?,
        None => loaded::workspace()?,
    };
    match (&args.revoke, &args.name) {
        (Some(name), _) => revoke(&places, &workspace, &parsed("credential-name", name)?).await,
        (None, Some(name)) if args.secret => secret(
            &places,
            &workspace,
            &parsed("credential-name", name)?,
            args.source.as_deref(),
        ),
        (None, Some(name)) => grant(&places, &workspace, &parsed("credential-name", name)?, args),
        (None, None) => Ok(report::OURS),
    }
}

fn grant(
    places: &Places,
    workspace: &Path,
    name: &CredentialName,
    args: &Args,
) -> Result<u8, Failure> {
    let host = loaded::host_for(places, workspace)?;
    let before = host.credentials.get(name).map(|grant| &grant.value);
    let asked = asked(workspace, name);
    let asked = asked.as_ref();
    let source = match (&args.source, before) {
        (Some(text), _) => parsed("credential-source", text)?,
        (None, Some(grant)) => grant.source.clone(),
        (None, None) => offer(name, asked)?,
    };
    let hosts = match (args.hosts.as_slice(), before) {
        ([], Some(grant)) => grant.hosts.clone(),
        ([], None) => wished(name, asked, &source)?,
        (some, _) => some
            .iter()
            .map(|host| {
                host.parse()
                    .map_err(|e| Failure::new("credential-host", format!("{}: {e}", escape(host))))
            })
            .collect::<Result<_, _>>()?,
    };
    if hosts.len() > MAX_HOSTS {
        return Err(Failure::new(
            "too-many",
            format!(
                "{} hosts, the limit of one grant is {MAX_HOSTS}",
                hosts.len()
            ),
        ));
    }
    if args.paths.len() > MAX_IN_RULE {
        return Err(Failure::new(
            "too-many",
            format!(
                "{} paths, the limit of one grant is {MAX_IN_RULE}",
                args.paths.len()
            ),
        ));
    }
    let paths = match (args.paths.as_slice(), before) {
        ([], _) if args.own_repository => Vec::new(),
        ([], before) => before.map(|grant| grant.paths.clone()).unwrap_or_default(),
        (some, _) => some
            .iter()
            .map(|path| parsed("credential-path", path))
            .collect::<Result<_, _>>()?,
    };
    let methods = match (args.methods.as_slice(), before) {
        ([every], _) if every == "*" => Vec::new(),
        ([], before) => before
            .map(|grant| grant.methods.clone())
            .unwrap_or_default(),
        (some, _) if some.len() > MAX_IN_RULE => {
            let words = format!(
                "{} methods, the limit of one grant is {MAX_IN_RULE}",
                some.len()
            );
            return Err(Failure::new("too-many", words));
        }
        (some, _) => some
            .iter()
            .map(|method| parsed("credential-method", method))
            .collect::<Result<_, _>>()?,
    };
    let granted = Grant {
        source,
        hosts,
        paths,
        methods,
        header: match &args.header {
            Some(text) => parsed("credential-header", text)?,
            None => before.map(|grant| grant.header.clone()).unwrap_or_default(),
        },
        format: match &args.format {
            Some(text) => parsed("credential-format", text)?,
            None => before.map(|grant| grant.format.clone()).unwrap_or_default(),
        },
        query: match &args.query {
            Some(text) => Some(parsed("credential-query", text)?),
            None => before.and_then(|grant| grant.query.clone()),
        },
        env: match &args.env {
            Some(text) => Some(parsed("credential-env", text)?),
            None => before.and_then(|grant| grant.env.clone()),
        },
    };
    grants::record(places, workspace, name, &granted)?;
    report::out(format!(
        "granted to {}: {name}, {}",
        escape(&workspace.display().to_string()),
        escape(&words(name, &granted, host.remote.as_ref())),
    ));
    Ok(0)
}

fn secret(
    places: &Places,
    workspace: &Path,
    name: &CredentialName,
    source: Option<&str>,
) -> Result<u8, Failure> {
    let source = match source {
        Some(text) => parsed("secret-source", text)?,
        None => wished_source(workspace, name)?,
    };
    let granted = SecretGrant { source };
    grants::record_secret(places, workspace, name, &granted)?;
    report::out(format!(
        "granted to {}: {name}, {}",
        escape(&workspace.display().to_string()),
        escape(&words_of_secret(name, &granted)),
    ));
    Ok(0)
}

/// The source that the workspace would have, once the person has said so.
fn wished_source(workspace: &Path, name: &CredentialName) -> Result<Source, Failure> {
    let config = discover::load(workspace, Wanted::First).ok();
    let asked = config.as_ref().and_then(|config| {
        let source = config.agent.secrets.get(name)?.source.as_ref()?;
        Some(source.source().clone())
    });
    let unsaid = || {
        Failure::new(
            "secret-source",
            format!("where the value of {name} comes from was not said"),
        )
    };
    let Some(source) = asked else {
        return Err(unsaid().help("pass --source, such as --source op://VAULT/ITEM/FIELD"));
    };
    if !(std::io::stdin().is_terminal() && report::stderr_is_terminal()) {
        return Err(unsaid().help(format!(
            "the workspace asks for it from {}; pass --source",
            escape(&source.to_string())
        )));
    }
    let line = format!("this workspace would have {name} inside as a file, from {source}");
    if trust::ask(&[escape(&line)]) {
        Ok(source)
    } else {
        Err(Failure::new("not-granted", "nothing was granted"))
    }
}

fn words_of_secret(name: &CredentialName, grant: &SecretGrant) -> String {
    format!(
        "{} as the file {DIRECTORY}/{name}",
        credentials::source(&grant.source)
    )
}

/// What the workspace asks of it: only ever shown, and taken for the person's word when the person says so.
fn asked(workspace: &Path, name: &CredentialName) -> Option<agent::Credential> {
    let config = discover::load(workspace, Wanted::First).ok()?;
    let asked = config.agent.credentials.get(name)?;
    Some(asked.value.clone())
}

/// Sources that are likely, one of which the person picks.
fn offer(name: &CredentialName, asked: Option<&agent::Credential>) -> Result<Source, Failure> {
    let upper = name.as_str().replace('-', "_").to_uppercase();
    let mut likely: Vec<String> = asked
        .and_then(|asked| asked.env.as_ref())
        .map(|env| env.value.to_string())
        .into_iter()
        .chain(["", "_TOKEN", "_API_KEY"].map(|end| format!("{upper}{end}")))
        .collect();
    likely.dedup();
    let there: Vec<Source> = likely
        .iter()
        .filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
        .filter_map(|name| format!("env://{name}").parse().ok())
        .collect();
    if !(std::io::stdin().is_terminal() && report::stderr_is_terminal()) {
        let example = there
            .first()
            .map_or_else(|| format!("env://{}", likely[0]), ToString::to_string);
        return Err(Failure::new(
            "credential-source",
            format!("where the value of {name} comes from was not said"),
        )
        .help(format!("pass --source, such as --source {example}")));
    }
    report::note(format!("Where does the value of {name} come from?"));
    for (i, source) in there.iter().enumerate() {
        report::note(format!("  {}  {source}, which is set here", i + 1));
    }
    let answer = answer(
        "A number, or a source (env://… file:///… exec:///… keyring://… op://… vault://…): ",
    );
    let picked = answer.parse::<usize>().ok();
    match picked.and_then(|n| there.get(n.checked_sub(1)?)) {
        Some(source) => Ok(source.clone()),
        None => parsed("credential-source", &answer),
    }
}

/// The hosts that the workspace would have, once the person has said so.
fn wished(
    name: &CredentialName,
    asked: Option<&agent::Credential>,
    source: &Source,
) -> Result<Vec<Domain>, Failure> {
    let hosts: Vec<Domain> = asked
        .into_iter()
        .flat_map(|asked| asked.hosts.iter().map(|host| host.value.clone()))
        .collect();
    let shown: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let unsaid = || {
        Failure::new(
            "credential-host",
            format!("which hosts may see {name} was not said"),
        )
    };
    if hosts.is_empty() {
        return Err(unsaid().help("pass --hosts with the names that it is for"));
    }
    if !(std::io::stdin().is_terminal() && report::stderr_is_terminal()) {
        return Err(unsaid().help(format!(
            "the workspace asks for it at --hosts {}",
            policy::text::hosts(&shown)
        )));
    }
    let line = format!(
        "this workspace would send {name} ({}) to {}",
        credentials::source(source),
        shown.join(" ")
    );
    if trust::ask(&[line]) {
        Ok(hosts)
    } else {
        Err(Failure::new("not-granted", "nothing was granted"))
    }
}

fn answer(question: &str) -> String {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{question}");
    let _ = stderr.flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    answer.trim().to_owned()
}

/// What does not parse is not repeated: it may be the value, in the wrong place.
fn parsed<T: FromStr>(code: &'static str, text: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| Failure::new(code, error.to_string()))
}

fn words(name: &CredentialName, grant: &Grant, remote: Option<&Remote>) -> String {
    let hosts = credentials::places(name.as_str(), grant, remote);
    let mut words = format!(
        "{} for {} in {} as {:?}",
        credentials::source(&grant.source),
        hosts.join(" "),
        grant.header,
        grant.format.to_string()
    );
    if let Some(query) = &grant.query {
        words.push_str(&format!(" or as the query parameter {query}"));
    }
    if let Some(env) = &grant.env {
        words.push_str(&format!(", {env} holds its placeholder"));
    }
    words
}

async fn revoke(places: &Places, workspace: &Path, name: &CredentialName) -> Result<u8, Failure> {
    let shown = escape(&workspace.display().to_string());
    if !grants::revoke(places, workspace, name)? {
        return Err(Failure::new(
            "no-grant",
            format!("{name} was not granted to {shown}"),
        )
        .help("`agentcontainer grant --list` shows what was; what config.toml grants is taken back there"));
    }
    report::out(format!("revoked: {name} for {shown}"));
    let revoked = credentials::hand::revoke(places, name.as_str(), None, Some(workspace)).await;
    for holder in &revoked.taken {
        report::out(format!("revoked: {name} from {}", escape(holder.shown())));
    }
    for failure in &revoked.failed {
        failure.print();
    }
    Ok(u8::from(!revoked.failed.is_empty()))
}

fn list(places: &Places, as_json: bool) {
    let all = grants::all(places);
    let mut found = Vec::new();
    for (workspace, granted) in &all {
        let remote = loaded::remote_of(workspace);
        for one in &granted.secrets {
            if as_json {
                found.push(json!({
                    "workspace": workspace,
                    "name": one.name,
                    "kind": "secret",
                    "source": credentials::source(&one.grant.source),
                    "at": one.at,
                }));
                continue;
            }
            report::out(format!(
                "{}  {}  {}  {}",
                escape(&workspace.display().to_string()),
                one.name,
                escape(&words_of_secret(&one.name, &one.grant)),
                ago(one.at)
            ));
        }
        for one in &granted.credentials {
            if as_json {
                let hosts: Vec<String> = one.grant.hosts.iter().map(ToString::to_string).collect();
                found.push(json!({
                    "workspace": workspace,
                    "name": one.name,
                    "kind": "credential",
                    "source": credentials::source(&one.grant.source),
                    "hosts": hosts,
                    "paths": one.grant.paths,
                    "methods": one.grant.methods,
                    "header": one.grant.header,
                    "format": one.grant.format,
                    "query": one.grant.query,
                    "env": one.grant.env,
                    "at": one.at,
                }));
                continue;
            }
            report::out(format!(
                "{}  {}  {}  {}",
                escape(&workspace.display().to_string()),
                one.name,
                escape(&words(&one.name, &one.grant, remote.as_ref())),
                ago(one.at)
            ));
        }
    }
    if as_json {
        report::out_json(&found);
    } else if all.is_empty() {
        report::out("no workspace was granted a credential or a secret");
    }
}
