//! What a command works from: the workspace's config, the host's, and the policy that is their intersection. Read once, before
//! anything else happens; every mistake in them is reported at its place.

use api::v1;
use engine::git::{Outside, Repository};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use policy::organisation::{Limits, Requirements};
use policy::{EffectivePolicy, Review};
use schema::config::{Config, Wanted, discover};
use schema::diag::Diagnostic;
use schema::hostconfig::{self, HostConfig};
use schema::lockfile::Lockfile;
use schema::organisation::Organisation;
use schema::remote::Remote;

use crate::grants;
use crate::organisation;
use crate::places::Places;
use crate::report::Failure;

/// What becomes of a credential or a secret that the config names and nobody granted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ungranted {
    /// Nothing is started without it.
    Refused,
    /// Left out of the policy: what only locks and checks needs no value.
    LeftOut,
}

/// Everything that was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub places: Places,
    pub workspace: PathBuf,
    /// The workspace's owner.
    pub owner: (u32, u32),
    /// Where its git repository is.
    pub repository: Repository,
    pub config: Config,
    pub host: HostConfig,
    /// The policies above both.
    pub organisations: Vec<Organisation>,
    pub policy: EffectivePolicy,
    /// What the config's names stand for, once that was looked up.
    pub lock: Option<Lockfile>,
    /// What has to hold of what is run.
    pub requirements: Requirements,
    /// The container's, which are the policies' where the config names none.
    pub limits: Limits,
    /// No registry is asked, not even where something is required of what is run.
    pub offline: bool,
    /// What a person should know about how the policies changed what is asked for.
    pub remarks: Vec<String>,
    pub ungranted: Ungranted,
}

/// The current directory, without symbolic links: what a workspace is named by.
pub fn workspace() -> Result<PathBuf, Failure> {
    std::env::current_dir()
        .and_then(|dir| dir.canonicalize())
        .map_err(|e| Failure::io("find", Path::new("the current directory"), &e))
}

/// The host's configuration alone.
pub fn host() -> Result<HostConfig, Failure> {
    let paths = hostconfig::paths(|name| std::env::var(name).ok());
    hostconfig::load(&paths).map_err(Failure::from)
}

/// The same with what a person granted to this workspace.
pub fn host_for(places: &Places, workspace: &Path) -> Result<HostConfig, Failure> {
    let mut host = host()?;
    host.remote = remote_of(workspace);
    grants::add_to(&mut host, places, workspace)?;
    Ok(host)
}

/// The repository that a workspace's remote `origin` names, as its own configuration has it: nothing that this includes or rewrites counts.
pub fn remote_of(workspace: &Path) -> Option<Remote> {
    Remote::parse(&engine::git::origin(workspace)?)
}

impl Loaded {
    pub fn read(explicit: Option<&Path>) -> Result<Self, Failure> {
        Self::read_under(explicit, Vec::new())
    }

    /// For what starts nothing: a machine that only locks and checks holds nobody's credentials.
    pub fn read_to_lock(explicit: Option<&Path>) -> Result<Self, Failure> {
        Self::read_from(
            explicit,
            organisation::of_host,
            Ungranted::LeftOut,
            |workspace, wanted, _| Ok(discover::load(workspace, wanted)?),
        )
    }

    /// The same under further policies, from files.
    pub fn read_under(explicit: Option<&Path>, local: Vec<Organisation>) -> Result<Self, Failure> {
        Self::read_with(explicit, local, |workspace, wanted, _| {
            Ok(discover::load(workspace, wanted)?)
        })
    }

    /// For what brings the host's policies and starts nothing: as if there were none.
    pub fn read_without_host_policies(explicit: Option<&Path>) -> Result<Self, Failure> {
        Self::read_from(
            explicit,
            |_, _| Ok(Vec::new()),
            Ungranted::LeftOut,
            |workspace, wanted, _| Ok(discover::load(workspace, wanted)?),
        )
    }

    /// The same with a config that `load` makes, and grants that it adds.
    pub fn read_with(
        explicit: Option<&Path>,
        local: Vec<Organisation>,
        load: impl FnOnce(&Path, Wanted<'_>, &mut HostConfig) -> Result<Config, Failure>,
    ) -> Result<Self, Failure> {
        let policies = |places: &Places, host: &HostConfig| {
            let mut organisations = organisation::of_host(places, host)?;
            organisations.extend(local);
            Ok(organisations)
        };
        Self::read_from(explicit, policies, Ungranted::Refused, load)
    }

    fn read_from(
        explicit: Option<&Path>,
        policies: impl FnOnce(&Places, &HostConfig) -> Result<Vec<Organisation>, Failure>,
        ungranted: Ungranted,
        load: impl FnOnce(&Path, Wanted<'_>, &mut HostConfig) -> Result<Config, Failure>,
    ) -> Result<Self, Failure> {
        let places = Places::from_env()?;
        let workspace = workspace()?;
        let wanted = explicit.map_or(Wanted::First, |path| Wanted::said(path, &workspace));
        let file = match wanted {
            Wanted::File(path) => Some(
                path.canonicalize()
                    .map_err(|e| Failure::io("read", path, &e))?,
            ),
            _ => None,
        };
        let wanted = file.as_deref().map_or(wanted, Wanted::File);
        let mut host = host_for(&places, &workspace)?;
        let config = load(&workspace, wanted, &mut host)?;
        let organisations = policies(&places, &host)?;
        let held = hold(&config, &host, &organisations, ungranted)?;
        let meta =
            std::fs::metadata(&workspace).map_err(|e| Failure::io("inspect", &workspace, &e))?;
        Ok(Self {
            places,
            owner: (meta.uid(), meta.gid()),
            repository: Repository::of(&workspace),
            workspace,
            config,
            host,
            organisations,
            policy: held.policy,
            requirements: held.requirements,
            limits: held.limits,
            remarks: held.remarks,
            lock: None,
            ungranted,
            offline: false,
        })
    }

    /// What a person is asked to approve: the config, and what of this machine comes with the workspace.
    pub fn review(&self) -> Review {
        let outside = self.repository.outside();
        let scoped = crate::credentials::scoped(&self.host, &self.policy);
        Review::of(&self.config).with(outside.map(Outside::asked).into_iter().chain(scoped))
    }

    /// For what only shows: under the workspace's own policy, where its lockfile pins one that is here. `run` fetches it and does not
    /// go on without it.
    pub fn hold_under_own(&mut self) -> Result<(), Failure> {
        if self.config.agent.policy.source.is_none() {
            return Ok(());
        }
        let path = crate::lock::path(self, false);
        let found = crate::lock::read(&path).ok().flatten();
        match found.and_then(|lock| organisation::of_workspace_here(self, &lock)) {
            Some(document) => self.hold_under(document),
            None => {
                self.remarks.push(
                    "the workspace's own policy is not here: it may leave less than is shown"
                        .to_owned(),
                );
                Ok(())
            }
        }
    }

    /// Once more, under one more policy.
    pub fn hold_under(&mut self, document: Organisation) -> Result<(), Failure> {
        if !self.organisations.contains(&document) {
            self.organisations.push(document);
        }
        let held = hold(
            &self.config,
            &self.host,
            &self.organisations,
            self.ungranted,
        )?;
        self.policy = held.policy;
        self.requirements = held.requirements;
        self.limits = held.limits;
        self.remarks = held.remarks;
        Ok(())
    }

    /// For what starts something: every rule about files and programs is one that this host has a layer for, by its enforcer's word.
    pub fn check_carried(&self, status: &v1::StatusReply) -> Result<(), Failure> {
        let there = |name: &str| match status.capabilities.iter().find(|c| c.name == name) {
            Some(layer) if layer.there => Ok(()),
            Some(layer) => Err(layer.detail.as_str()),
            None => Err("the enforcer does not know of it"),
        };
        let layers = policy::Layers {
            lsm: there("lsm"),
            starts: there("starts"),
        };
        match self.policy.not_carried(&layers) {
            errors if errors.is_empty() => Ok(()),
            errors => Err(errors.into()),
        }
    }

    /// The policy of another config in this one's place, held to the same.
    pub fn held(&self, config: &Config) -> Result<EffectivePolicy, Vec<Diagnostic>> {
        policy::organisation::hold(config, &self.host, &self.organisations).map(|held| held.policy)
    }
}

fn hold(
    config: &Config,
    host: &HostConfig,
    organisations: &[Organisation],
    ungranted: Ungranted,
) -> Result<policy::organisation::Held, Failure> {
    if ungranted == Ungranted::Refused {
        return Ok(policy::organisation::hold(config, host, organisations)?);
    }
    let mut granted = config.clone();
    granted
        .agent
        .credentials
        .retain(|name, _| host.credentials.contains_key(name));
    granted
        .agent
        .secrets
        .retain(|name, _| host.secrets.contains_key(name));
    Ok(policy::organisation::hold(&granted, host, organisations)?)
}
