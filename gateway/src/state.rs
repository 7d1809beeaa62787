//! What one session's gateway knows and decides by: the policy of one generation, the names behind the addresses, the
//! connections that are open. There is one intent type and one decision, whichever way the bytes came in. A connection is
//! decided and entered under one lock with the policy's swap, so that none slips between two generations.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::v1::{self, SnapshotDocument};
use policy::{Compiled, Decision, EffectivePolicy, Origin, PolicyError, RequestRules};
use schema::gateway::Resolver as ResolverSetting;
use schema::host::{HostName, HostPattern};
use schema::net::{Protocol, Transport};
use schema::request::RateLimit;
use tokio::sync::Notify;

use crate::bucket::Bucket;
use crate::credentials::{Credentials, Secret};
use crate::http::head::{Authority, Host, Scheme};
use crate::inspect::Chain;
use crate::limits;
use crate::plan;
use crate::resolve::{Resolver, System};
use crate::tls::upstream::Roots;

/// Where a connection wants to go: the one thing that is decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    pub place: Place,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Name(HostName),
    Address(Ipv4Addr),
}

/// The one decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    Allow(Granted),
    Deny(Denied),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub protocol: Protocol,
    pub rule: audit::Rule,
    /// What rules say about its requests.
    pub requests: Option<Arc<RequestRules>>,
    /// Nothing of it is read, and `rule` wants a person asked before it is dialled.
    pub asked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    pub code: &'static str,
    pub rule: Option<audit::Rule>,
}

/// A denial as `http://agentcontainer.internal/` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Shown {
    pub host: String,
    pub port: Option<u16>,
    pub reason: String,
    /// By which a person is asked about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    #[serde(rename = "secondsAgo", serialize_with = "seconds_ago")]
    pub at: Instant,
}

/// Something that waits for a person, as `http://agentcontainer.internal/` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Waiting {
    pub question: String,
    pub what: String,
    pub rule: audit::Rule,
    #[serde(rename = "secondsLeft", serialize_with = "seconds_left")]
    pub until: Instant,
}

impl Waiting {
    pub fn seconds_left(&self) -> u64 {
        let left = self.until.saturating_duration_since(Instant::now());
        left.as_secs()
    }
}

fn seconds_left<S: serde::Serializer>(until: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    let left = until.saturating_duration_since(Instant::now());
    serializer.serialize_u64(left.as_secs())
}

/// Shown for as long as it lives.
pub struct Shows<'a> {
    state: &'a State,
    id: u64,
}

impl Drop for Shows<'_> {
    fn drop(&mut self) {
        self.state.lock().waiting.remove(&self.id);
    }
}

fn seconds_ago<S: serde::Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.elapsed().as_secs())
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot does not decode")]
    Decode,
    #[error("the snapshot's generation is not the one that was announced")]
    Generation,
    #[error("the snapshot's policy: {0}")]
    Policy(#[from] PolicyError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the snapshot has a name that is not canonical or an address that is not synthetic")]
    Name,
}

/// One generation.
pub struct Active {
    pub generation: u32,
    pub session: String,
    pub policy: EffectivePolicy,
    compiled: Compiled,
    pub resolver: Resolver,
    /// What upstreams are verified with.
    pub roots: Roots,
    pub inspectors: Arc<Chain>,
    /// Hosts that rules name in full, and what wildcards stand below: for the bounds on names an agent chooses.
    exact: HashSet<HostName>,
    bases: HashSet<HostName>,
}

impl Active {
    fn new(
        generation: u32,
        session: String,
        policy: EffectivePolicy,
        roots: Roots,
        secrets: &[Secret],
        system: &System,
    ) -> Self {
        let mut exact = HashSet::new();
        let mut bases = HashSet::new();
        for layer in policy.network.layers() {
            let allowed = layer.allowed.iter().map(|rule| &rule.host);
            for host in allowed.chain(layer.rules.iter().map(|rule| &rule.host)) {
                match host {
                    HostPattern::Exact(name) => exact.insert(name.clone()),
                    HostPattern::Wildcard(base) => bases.insert(base.clone()),
                };
            }
        }
        let resolver = match &policy.gateway.resolver {
            ResolverSetting::System => Resolver::system(system),
            ResolverSetting::Address(address) => Resolver::address(*address),
        };
        let known = secrets.iter().map(|secret| secret.placeholder.clone());
        let known = known.filter(|known| !known.is_empty());
        Self {
            generation,
            session,
            inspectors: Arc::new(Chain::new(
                &policy.inspection,
                known.map(String::into_bytes).collect(),
            )),
            compiled: policy.compile(),
            policy,
            resolver,
            roots,
            exact,
            bases,
        }
    }

    pub fn decide(&self, intent: &Intent) -> Ruling {
        let decision = match &intent.place {
            Place::Name(name) => self.compiled.decide(name, intent.port, Transport::Tcp),
            Place::Address(address) => {
                self.compiled
                    .decide_address(*address, intent.port, Transport::Tcp)
            }
        };
        let rule = |rule: policy::RuleRef<'_>| audit::Rule {
            name: rule.name.to_owned(),
            origin: rule.origin.to_string(),
        };
        let asks = matches!(decision, Decision::Ask(_));
        match decision {
            Decision::Allow(grant) | Decision::Ask(grant) => {
                let read = matches!(grant.protocol, Protocol::Http | Protocol::Https);
                let requests = match &intent.place {
                    Place::Name(name) if read => self.compiled.requests(name, intent.port),
                    _ => None,
                };
                Ruling::Allow(Granted {
                    protocol: grant.protocol,
                    rule: rule(grant.rule),
                    requests: requests.map(Arc::new),
                    asked: asks && !read,
                })
            }
            Decision::Deny(denial) => Ruling::Deny(Denied {
                code: denial.reason.code(),
                rule: denial.rule.map(rule),
            }),
        }
    }

    /// Whether any port of a name may be dialled.
    pub fn is_listed(&self, name: &HostName) -> bool {
        !self.compiled.ports(name).is_empty()
    }

    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Whether a person may be asked about a name that nothing lists.
    pub fn may_ask(&self, name: &HostName) -> bool {
        [443, 80].into_iter().any(|port| {
            let decision = self.compiled.decide(name, port, Transport::Tcp);
            matches!(decision, Decision::Ask(_))
        })
    }

    /// Whether part of a name is the agent's own, under a wildcard.
    pub fn is_chosen(&self, place: &Place) -> bool {
        matches!(place, Place::Name(name) if self.chosen_bytes(name) > 0)
    }

    /// How many bytes of a name the agent chose: 0 for one that a rule names in full.
    fn chosen_bytes(&self, name: &HostName) -> usize {
        if self.exact.contains(name) {
            return 0;
        }
        let base = name.parents().find(|parent| self.bases.contains(*parent));
        name.as_str().len() - base.map_or(0, str::len)
    }
}

struct Names {
    by_address: HashMap<Ipv4Addr, HostName>,
    by_name: HashMap<HostName, Ipv4Addr>,
}

struct Inner {
    active: Arc<Active>,
    /// Beside it: a connection keeps the generation that it was admitted by, and is to keep no value.
    credentials: Arc<Credentials>,
    names: Names,
    open: HashMap<u64, Open>,
    next: u64,
    denials: VecDeque<Shown>,
    waiting: BTreeMap<u64, Waiting>,
    /// Programs that were not started, by the question about each.
    refused: BTreeMap<String, Waiting>,
    chosen: HashSet<HostName>,
}

impl Inner {
    fn show(&mut self, denial: Shown) {
        if self.denials.len() == limits::SHOWN_DENIALS {
            self.denials.pop_front();
        }
        self.denials.push_back(denial);
    }
}

struct Open {
    intent: Intent,
    granted: Granted,
    /// Credentials that were sent on it.
    carries: Vec<String>,
    revoked: Arc<Notify>,
}

/// Shared by all connections of the session.
pub struct State {
    inner: Mutex<Inner>,
    /// Some connection ended.
    closed: Notify,
    system: System,
    choosing: Bucket,
    /// Values of credentials, and the generation that brought them.
    secrets: Mutex<(u32, Vec<Secret>)>,
    /// How often each rule that bounds it was used: by where it stands and what it says.
    rates: Mutex<HashMap<(Origin, RateLimit), Bucket>>,
}

/// A connection's entry. While it lives, a policy that takes the right away makes [`Entry::revoked`] return.
pub struct Entry {
    state: Arc<State>,
    id: u64,
    revoked: Arc<Notify>,
    pub active: Arc<Active>,
    /// The agent's, to be looked at while it waits for a person.
    pub socket: RawFd,
}

impl Entry {
    pub async fn revoked(&self) {
        self.revoked.notified().await;
    }

    /// Notes that these credentials are about to be sent on it, so that it ends when one of them is taken away.
    ///
    /// # Errors
    /// The name of one that was taken away meanwhile.
    pub fn carry(&self, names: &[String]) -> Result<(), String> {
        if names.is_empty() {
            return Ok(());
        }
        let mut inner = self.state.lock();
        let credentials = Arc::clone(&inner.credentials);
        let Some(open) = inner.open.get_mut(&self.id) else {
            return Ok(());
        };
        for name in names {
            if !credentials.carries(name, &open.intent) {
                return Err(name.clone());
            }
            if !open.carries.contains(name) {
                open.carries.push(name.clone());
            }
        }
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.state.lock().open.remove(&self.id);
        self.state.closed.notify_waiters();
    }
}

/// Why a name under a wildcard is not resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChosenRefusal {
    #[error(
        "more than {} bytes of the name were chosen under a wildcard",
        limits::WILDCARD_CHOSEN_BYTES
    )]
    Long,
    #[error(
        "this session has used {} names under wildcards",
        limits::WILDCARD_NAMES
    )]
    Many,
    #[error("too many new names under wildcards at once")]
    Fast,
}

impl State {
    /// Knows nothing and denies everything until the first snapshot.
    ///
    /// # Errors
    /// The cryptography cannot be set up.
    pub fn new(system: System) -> Result<Arc<Self>, rustls::Error> {
        let active = Active::new(
            0,
            String::new(),
            EffectivePolicy::deny_all(),
            Roots::new([])?,
            &[],
            &System::default(),
        );
        Ok(Arc::new(Self {
            inner: Mutex::new(Inner {
                active: Arc::new(active),
                credentials: Arc::default(),
                names: Names {
                    by_address: HashMap::new(),
                    by_name: HashMap::new(),
                },
                open: HashMap::new(),
                next: 0,
                denials: VecDeque::new(),
                waiting: BTreeMap::new(),
                refused: BTreeMap::new(),
                chosen: HashSet::new(),
            }),
            closed: Notify::new(),
            system,
            secrets: Mutex::default(),
            rates: Mutex::default(),
            choosing: Bucket::new(
                limits::WILDCARD_BURST,
                limits::WILDCARD_PER_SECOND,
                Instant::now(),
            ),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under this lock is a single insertion or assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn active(&self) -> Arc<Active> {
        Arc::clone(&self.lock().active)
    }

    /// What is exchanged now.
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.lock().credentials)
    }

    /// Decides by a new generation from now on, and returns once the connections that lost their right are closed.
    ///
    /// # Errors
    /// The document is not whole: nothing has changed.
    pub async fn apply(
        &self,
        generation: u32,
        document: SnapshotDocument,
    ) -> Result<(), SnapshotError> {
        if document.generation != generation {
            return Err(SnapshotError::Generation);
        }
        let mut names = Vec::with_capacity(document.names.len());
        for name in &document.names {
            let address = Ipv4Addr::from_bits(name.address);
            let host = HostName::parse(&name.name).map_err(|_| SnapshotError::Name)?;
            if !is_handed_out(address) || host.as_str() != name.name {
                return Err(SnapshotError::Name);
            }
            names.push((host, address));
        }
        let policy = EffectivePolicy::from_json(&document.policy)?;
        // They come with the first snapshot and stay for the session.
        let roots = if document.roots.is_empty() {
            self.active().roots.clone()
        } else {
            Roots::new(document.roots.iter().map(Vec::as_slice))?
        };
        let secrets = {
            let mut kept = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
            // One that was overtaken would bring back what was taken away since.
            if !document.secrets.is_empty() && generation >= kept.0 {
                let mut all: Vec<Secret> = document.secrets.into_iter().map(Secret::from).collect();
                for secret in &mut all {
                    if let Some(earlier) = kept.1.iter().find(|s| s.name == secret.name) {
                        secret.succeed(earlier);
                    }
                }
                *kept = (generation, all);
            }
            kept.1.clone()
        };
        // A first snapshot may have been overtaken by a policy change: what it brings besides is taken, its policy is not.
        let before = self.active();
        let (generation, policy) = if generation < before.generation {
            (before.generation, before.policy.clone())
        } else {
            (generation, policy)
        };
        let active = Arc::new(Active::new(
            generation,
            document.session,
            policy,
            roots,
            &secrets,
            &self.system,
        ));
        let stricter = active
            .policy
            .inspection
            .is_stricter_than(&before.policy.inspection);
        let credentials = Arc::new(Credentials::new(&active.policy.credentials, &secrets));
        drop(secrets);
        let carries_lost = |open: &Open| {
            let mut carries = open.carries.iter();
            carries.any(|name| !credentials.carries(name, &open.intent))
        };
        let revoked: Vec<u64> = {
            let mut inner = self.lock();
            for (host, address) in names {
                inner.names.insert(host, address);
            }
            inner.active = Arc::clone(&active);
            inner.credentials = Arc::clone(&credentials);
            inner
                .open
                .iter()
                .filter(|(_, open)| {
                    // What is open would go on as it was looked at when it began.
                    let unread = stricter
                        && matches!(open.granted.protocol, Protocol::Http | Protocol::Https);
                    unread
                        || carries_lost(open)
                        || !matches!(active.decide(&open.intent),
                        Ruling::Allow(granted) if granted.protocol == open.granted.protocol
                            && granted.requests == open.granted.requests
                            && still_unasked(&granted, &open.granted))
                })
                .map(|(&id, open)| {
                    open.revoked.notify_one();
                    id
                })
                .collect()
        };
        self.wait_closed(&revoked).await;
        Ok(())
    }

    /// Cancelling a connection is one poll of its task, on whichever thread that is. There is no bound: a policy counts as applied when they
    /// are closed and not before, and an enforcer that waits too long for it ends this gateway.
    async fn wait_closed(&self, ids: &[u64]) {
        loop {
            let notified = self.closed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let inner = self.lock();
                if !ids.iter().any(|id| inner.open.contains_key(id)) {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Decides, and enters what is allowed.
    pub fn admit(self: &Arc<Self>, intent: &Intent) -> Result<(Granted, Entry), Denied> {
        let mut inner = self.lock();
        let granted = match inner.active.decide(intent) {
            Ruling::Allow(granted) => granted,
            Ruling::Deny(denied) => return Err(denied),
        };
        inner.next += 1;
        let id = inner.next;
        let revoked = Arc::new(Notify::new());
        inner.open.insert(
            id,
            Open {
                intent: intent.clone(),
                granted: granted.clone(),
                carries: Vec::new(),
                revoked: Arc::clone(&revoked),
            },
        );
        let active = Arc::clone(&inner.active);
        drop(inner);
        Ok((
            granted,
            Entry {
                state: Arc::clone(self),
                id,
                revoked,
                active,
                socket: -1,
            },
        ))
    }

    pub fn open_connections(&self) -> usize {
        self.lock().open.len()
    }

    pub fn name_of(&self, address: Ipv4Addr) -> Option<HostName> {
        self.lock().names.by_address.get(&address).cloned()
    }

    pub fn address_of(&self, name: &HostName) -> Option<Ipv4Addr> {
        self.lock().names.by_name.get(name).copied()
    }

    /// Enters what the enforcer answered. False: it is no address for a name.
    pub fn add_name(&self, name: &HostName, address: Ipv4Addr) -> bool {
        is_handed_out(address) && self.lock().names.insert(name.clone(), address)
    }

    pub fn denied(&self, host: String, port: Option<u16>, reason: &str) {
        self.lock().show(Shown {
            host,
            port,
            reason: reason.to_owned(),
            question: None,
            at: Instant::now(),
        });
    }

    /// Shows a program that was not started, and for as long as it waits that a person is asked about it.
    pub fn refused(&self, refused: v1::Refused) {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.refused.retain(|_, waiting| waiting.until > now);
        inner.show(Shown {
            host: refused.program.clone(),
            port: None,
            reason: "not-listed".to_owned(),
            question: Some(refused.question.clone()),
            at: now,
        });
        let waiting = Waiting {
            question: refused.question.clone(),
            what: format!("start {}", refused.program),
            rule: audit::Rule {
                name: refused.rule,
                origin: refused.origin,
            },
            until: now + Duration::from_secs(refused.seconds.into()),
        };
        inner.refused.insert(refused.question, waiting);
    }

    /// That question does not wait any more.
    pub fn over(&self, question: &str) {
        self.lock().refused.remove(question);
    }

    /// Shows what waits for a person for as long as what comes back lives.
    pub fn waits(&self, waiting: Waiting) -> Shows<'_> {
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        inner.waiting.insert(id, waiting);
        Shows { state: self, id }
    }

    pub fn waiting(&self) -> Vec<Waiting> {
        let inner = self.lock();
        let all = inner.waiting.values().chain(inner.refused.values());
        all.cloned().collect()
    }

    pub fn denials(&self) -> Vec<Shown> {
        self.lock().denials.iter().cloned().collect()
    }

    /// Counts a request by a rule that bounds how often. False: not now.
    pub fn within(&self, origin: &Origin, rate: RateLimit) -> bool {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() > limits::RATES {
            rates.clear();
        }
        let now = Instant::now();
        rates
            .entry((origin.clone(), rate))
            .or_insert_with(|| Bucket::new(rate.burst, rate.per_second, now))
            .take(now)
    }

    /// Counts a name before it is resolved. Names that rules spell out are free.
    pub fn choose(&self, active: &Active, name: &HostName) -> Result<(), ChosenRefusal> {
        let bytes = active.chosen_bytes(name);
        if bytes == 0 {
            return Ok(());
        }
        if bytes > limits::WILDCARD_CHOSEN_BYTES {
            return Err(ChosenRefusal::Long);
        }
        let mut inner = self.lock();
        if inner.chosen.contains(name) {
            return Ok(());
        }
        if inner.chosen.len() >= limits::WILDCARD_NAMES {
            return Err(ChosenRefusal::Many);
        }
        if !self.choosing.take(Instant::now()) {
            return Err(ChosenRefusal::Fast);
        }
        inner.chosen.insert(name.clone());
        Ok(())
    }
}

/// Whether what was carried unasked, or was asked about by a rule, still is by what is said now.
fn still_unasked(now: &Granted, then: &Granted) -> bool {
    now.asked == then.asked && (!now.asked || now.rule == then.rule)
}

impl ChosenRefusal {
    pub fn code(self) -> &'static str {
        match self {
            Self::Long => "wildcard-name-too-long",
            Self::Many => "wildcard-names-exhausted",
            Self::Fast => "wildcard-names-rate",
        }
    }
}

impl Names {
    /// A name keeps its address and an address its name for the life of the session; anything else is refused.
    fn insert(&mut self, name: HostName, address: Ipv4Addr) -> bool {
        match (self.by_name.get(&name), self.by_address.get(&address)) {
            (None, None) => {
                self.by_name.insert(name.clone(), address);
                self.by_address.insert(address, name);
                true
            }
            (Some(known), Some(_)) => *known == address,
            _ => false,
        }
    }
}

fn is_handed_out(address: Ipv4Addr) -> bool {
    plan::is_synthetic(address) && address >= plan::FIRST
}

impl Intent {
    pub fn authority(&self, scheme: Scheme) -> Authority {
        let host = match &self.place {
            Place::Name(name) => Host::Name(name.clone()),
            Place::Address(address) => Host::Address(*address),
        };
        Authority {
            host,
            port: self.port,
            scheme,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
