//! What waits for a person's word: one queue for all sessions of this enforcer, and what was allowed for as long as a
//! session lasts. It knows nothing of HTTP: whoever holds something asks here, and is told through what it gave with the
//! question. Everything is in memory: what was held by an enforcer that ended is denied by its end. Recording is the
//! session's (`session::asking`), showing and answering the control channel's (`service`).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::v1;
use schema::program::ProgramName;
use tokio::sync::broadcast;

use crate::files::Seen;
use crate::process::Ancestor;

/// Questions of one session that wait at once; more are denied.
pub const MAX_HELD: usize = 32;
/// Questions that one session may ask in a burst, and a second after it: a person reads them.
pub const BURST: f64 = 64.0;
pub const PER_SECOND: f64 = 4.0;
/// What one session's answers allow for as long as it lasts.
pub const MAX_KEPT: usize = 1024;
/// Questions whose end is remembered, so that a late answer is told why it came too late.
const MAX_GONE: usize = 256;
/// Changes that a reader may be behind; one that is further is told to begin again.
const MAX_BEHIND: usize = 1024;
/// Characters of an id: no two look alike, and none is a vowel.
const ALPHABET: &[u8; 27] = b"23456789bcdfghjkmnpqrstvwxz";
const ID_LENGTH: usize = 5;

/// One thing that one process wants to do now, and the rule that wants a person asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub session: String,
    pub workspace: String,
    pub generation: u32,
    pub rule: audit::Rule,
    pub what: What,
    pub asker: Option<audit::Process>,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is held meanwhile.
    Reach(Reach),
    /// It was denied, and may be tried again.
    Start(Start),
}

/// A connection, or a request on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    pub kind: audit::Kind,
    pub host: String,
    pub port: u16,
    pub protocol: String,
    /// Of a request, else empty; like `target`, its path and query.
    pub method: String,
    pub target: String,
}

/// A program that nothing lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Where the kernel found it.
    pub program: ProgramName,
    /// What is there now.
    pub seen: Seen,
    /// The asker's own command line; empty where it has gone.
    pub line: Vec<String>,
    /// Whose child the asker is, and so on.
    pub parents: Vec<Ancestor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub id: String,
    pub request: Request,
    pub asked: SystemTime,
    pub expires: SystemTime,
    /// The same by the clock that nobody sets.
    pub until: Instant,
    pub since: Instant,
}

/// How a question ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    /// And whatever is the same until the session ends.
    AllowedForSession,
    Denied,
    Timeout,
    Limit,
    Withdrawn,
    /// It is another program by now than was asked about.
    Changed,
    NotRecorded,
}

/// Tells whoever holds it.
pub type Reply = Box<dyn FnOnce(&Question, Outcome) + Send>;

/// A question that was taken off the queue: nobody else can answer it now.
pub struct Taken {
    pub question: Question,
    pub reply: Reply,
}

/// Why there is nothing to answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoQuestion {
    #[error("there is no question {0:?}")]
    Unknown(String),
    #[error("question {id} is over: {how}")]
    Over { id: String, how: &'static str },
}

/// What readers are told.
#[derive(Clone, Debug)]
pub enum Change {
    Open(Box<Question>),
    Gone {
        id: String,
        session: String,
        how: &'static str,
    },
}

/// What an answer for the session is about, as it was shown, without the query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    session: String,
    rule: (String, String),
    same: Same,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Same {
    /// Host, port, protocol, method and path.
    Reach(String, u16, String, String, String),
    Start(ProgramName),
}

#[derive(Default)]
struct Inner {
    open: BTreeMap<String, Taken>,
    /// Ids of questions that are not open yet.
    drawn: HashSet<String>,
    kept: HashMap<Key, String>,
    gone: VecDeque<(String, &'static str)>,
    buckets: HashMap<String, (f64, Instant)>,
}

/// The queue.
pub struct Broker {
    inner: Mutex<Inner>,
    changes: broadcast::Sender<Change>,
}

// === impl Outcome ===

impl Outcome {
    /// Stable, of its event; what the asker is told is [`Self::told`].
    pub fn code(self) -> &'static str {
        match self {
            Self::Allowed => "approval-allowed",
            Self::AllowedForSession => "approval-allowed-session",
            Self::Denied => "approval-denied",
            Self::Timeout => "approval-timeout",
            Self::Limit => "approval-limit",
            Self::Withdrawn => "approval-withdrawn",
            Self::Changed => "approval-changed",
            Self::NotRecorded => "not-recorded",
        }
    }

    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed | Self::AllowedForSession)
    }

    pub fn told(self) -> &'static str {
        match self {
            Self::Allowed | Self::AllowedForSession => "allowed",
            other => other.code(),
        }
    }
}

// === impl Question ===

impl From<&Question> for v1::Question {
    fn from(question: &Question) -> Self {
        let request = &question.request;
        let since_1970 = |time: SystemTime| {
            let passed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
        };
        Self {
            id: question.id.clone(),
            session: request.session.clone(),
            workspace: request.workspace.clone(),
            rule: request.rule.name.clone(),
            origin: request.rule.origin.clone(),
            generation: request.generation,
            asker: request.asker.as_ref().map(|process| v1::Asker {
                pid: process.pid.unwrap_or_default(),
                host_pid: process.host_pid,
                uid: process.uid,
                program: process.program.clone().unwrap_or_default(),
                comm: process.comm.clone(),
            }),
            asked_ms: since_1970(question.asked),
            expires_ms: since_1970(question.expires),
            ..request.what.shown()
        }
    }
}

// === impl What ===

impl What {
    fn shown(&self) -> v1::Question {
        match self {
            Self::Reach(reach) => v1::Question {
                kind: match reach.kind {
                    audit::Kind::Request => "request".to_owned(),
                    _ => "connect".to_owned(),
                },
                host: reach.host.clone(),
                port: reach.port.into(),
                protocol: reach.protocol.clone(),
                method: reach.method.clone(),
                target: reach.target.clone(),
                ..v1::Question::default()
            },
            Self::Start(start) => v1::Question {
                kind: "exec".to_owned(),
                program: start.program.to_string(),
                line: start.line.clone(),
                parents: start.parents.iter().map(v1::Ancestor::from).collect(),
                ..v1::Question::default()
            },
        }
    }

    fn same(&self) -> Same {
        match self {
            Self::Reach(reach) => {
                let path = reach.target.split('?').next().unwrap_or_default();
                Same::Reach(
                    reach.host.clone(),
                    reach.port,
                    reach.protocol.clone(),
                    reach.method.clone(),
                    path.to_owned(),
                )
            }
            Self::Start(start) => Same::Start(start.program.clone()),
        }
    }
}

impl From<&Ancestor> for v1::Ancestor {
    fn from(ancestor: &Ancestor) -> Self {
        Self {
            pid: ancestor.pid,
            program: ancestor.program.clone(),
            line: ancestor.line.clone(),
        }
    }
}

impl Request {
    fn key(&self) -> Key {
        Key {
            session: self.session.clone(),
            rule: (self.rule.name.clone(), self.rule.origin.clone()),
            same: self.what.same(),
        }
    }

    /// The program that it is about.
    pub fn start(&self) -> Option<&Start> {
        match &self.what {
            What::Start(start) => Some(start),
            What::Reach(_) => None,
        }
    }
}

// === impl Broker ===

impl Default for Broker {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changes: broadcast::Sender::new(MAX_BEHIND),
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

impl Broker {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No change under this lock can panic halfway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The question by which this was allowed for the session, if one was.
    pub fn covers(&self, request: &Request) -> Option<String> {
        self.lock().kept.get(&request.key()).cloned()
    }

    /// Puts a question on the queue. `record` writes it down before anybody sees it; what it cannot write is not asked.
    /// One session asks one question after the other.
    ///
    /// # Errors
    /// The outcome at once.
    pub fn ask(
        &self,
        request: Request,
        limit: Duration,
        record: impl FnOnce(&Question) -> bool,
        reply: Reply,
    ) -> Result<Question, Outcome> {
        self.begin(&request.session)?;
        self.put(request, limit, record, reply)
    }

    /// Counts as a question of this session's, before anything is done for it; [`Self::put`] comes next, where it comes to that.
    ///
    /// # Errors
    /// There is no room for another.
    pub fn begin(&self, session: &str) -> Result<(), Outcome> {
        let mut inner = self.lock();
        match inner.has_room(session) && inner.may_ask(session, Instant::now()) {
            true => Ok(()),
            false => Err(Outcome::Limit),
        }
    }

    /// As [`Self::ask`], for what was begun.
    ///
    /// # Errors
    /// The outcome at once.
    pub fn put(
        &self,
        request: Request,
        limit: Duration,
        record: impl FnOnce(&Question) -> bool,
        reply: Reply,
    ) -> Result<Question, Outcome> {
        let (asked, since) = (SystemTime::now(), Instant::now());
        let id = {
            let mut inner = self.lock();
            if !inner.has_room(&request.session) {
                return Err(Outcome::Limit);
            }
            inner.new_id(draw).ok_or(Outcome::Limit)?
        };
        let question = Question {
            id,
            request,
            asked,
            expires: asked + limit,
            until: since + limit,
            since,
        };
        if !record(&question) {
            self.lock().drawn.remove(&question.id);
            return Err(Outcome::NotRecorded);
        }
        let taken = Taken {
            question: question.clone(),
            reply,
        };
        let mut inner = self.lock();
        inner.drawn.remove(&question.id);
        inner.open.insert(question.id.clone(), taken);
        // Under the lock, so that whoever lists and then listens misses nothing.
        let _ = self.changes.send(Change::Open(Box::new(question.clone())));
        Ok(question)
    }

    /// Takes a question off the queue, for whoever ends it.
    ///
    /// # Errors
    /// It is not open: it never was, or it has ended.
    pub fn take(&self, id: &str) -> Result<Taken, NoQuestion> {
        let mut inner = self.lock();
        match inner.open.remove(id) {
            Some(taken) => Ok(taken),
            None => Err(inner.over(id)),
        }
    }

    /// The question as it stands, which somebody else may take meanwhile.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn look(&self, id: &str) -> Result<Question, NoQuestion> {
        let inner = self.lock();
        match inner.open.get(id) {
            Some(taken) => Ok(taken.question.clone()),
            None => Err(inner.over(id)),
        }
    }

    /// Tells whoever holds it and everybody who looks on.
    pub fn end(&self, taken: Taken, outcome: Outcome) {
        let Taken { question, reply } = taken;
        let mut inner = self.lock();
        if inner.gone.len() >= MAX_GONE {
            inner.gone.pop_front();
        }
        inner.gone.push_back((question.id.clone(), outcome.code()));
        let _ = self.changes.send(Change::Gone {
            id: question.id.clone(),
            session: question.request.session.clone(),
            how: outcome.code(),
        });
        drop(inner);
        reply(&question, outcome);
    }

    /// Ends a question as `record` has written it down: before that it has no effect, and what cannot be written is denied. Whether
    /// it was.
    pub fn settle(
        &self,
        taken: Taken,
        outcome: Outcome,
        record: impl FnOnce(&Question) -> bool,
    ) -> bool {
        let written = record(&taken.question);
        if written && outcome == Outcome::AllowedForSession {
            // Where others have filled it meanwhile, the same is asked about again.
            self.keep(&taken.question);
        }
        let said = if written || !outcome.is_allowed() {
            outcome
        } else {
            Outcome::NotRecorded
        };
        self.end(taken, said);
        written
    }

    /// Whether the session's answers may allow more for its life.
    pub fn may_keep(&self, question: &Question) -> bool {
        self.lock().may_keep(&question.request.session)
    }

    /// Allows the same for as long as the session lasts. False: it allows as much as it may already.
    fn keep(&self, question: &Question) -> bool {
        let mut inner = self.lock();
        let may = inner.may_keep(&question.request.session);
        if may {
            inner
                .kept
                .insert(question.request.key(), question.id.clone());
        }
        may
    }

    /// Forgets what was allowed by rules that are no more.
    pub fn retain(&self, session: &str, there: impl Fn(&str, &str) -> bool) {
        let still = |key: &Key| key.session != session || there(&key.rule.0, &key.rule.1);
        self.lock().kept.retain(|key, _| still(key));
    }

    /// Forgets a session.
    pub fn forget(&self, session: &str) {
        let mut inner = self.lock();
        inner.kept.retain(|key, _| key.session != session);
        inner.buckets.remove(session);
    }

    /// What is open, the oldest first, and from now on what comes and goes.
    pub fn listen(&self, session: Option<&str>) -> (Vec<Question>, broadcast::Receiver<Change>) {
        let inner = self.lock();
        let fits = |question: &&Question| session.is_none_or(|s| question.request.session == s);
        let all = inner.open.values().map(|taken| &taken.question);
        let mut open: Vec<Question> = all.filter(fits).cloned().collect();
        open.sort_by_key(|question| question.since);
        (open, self.changes.subscribe())
    }

    /// Ids of a session's questions that are like this.
    pub fn find(&self, session: &str, like: impl Fn(&Question) -> bool) -> Vec<String> {
        let inner = self.lock();
        let all = inner.open.values().map(|taken| &taken.question);
        all.filter(|question| question.request.session == session && like(question))
            .map(|question| question.id.clone())
            .collect()
    }

    /// When the next of a session's questions has waited long enough.
    pub fn next_end(&self, session: &str) -> Option<Instant> {
        let inner = self.lock();
        let all = inner.open.values().map(|taken| &taken.question);
        all.filter(|question| question.request.session == session)
            .map(|question| question.until)
            .min()
    }
}

// === impl Inner ===

impl Inner {
    fn may_keep(&self, session: &str) -> bool {
        let kept = self.kept.keys().filter(|key| key.session == session);
        kept.count() < MAX_KEPT
    }

    fn has_room(&self, session: &str) -> bool {
        let of_session = |taken: &&Taken| taken.question.request.session == session;
        self.open.values().filter(of_session).count() < MAX_HELD
    }

    fn may_ask(&mut self, session: &str, now: Instant) -> bool {
        let (tokens, at) = self
            .buckets
            .entry(session.to_owned())
            .or_insert((BURST, now));
        let passed = now.saturating_duration_since(*at).as_secs_f64();
        *tokens = (*tokens + passed * PER_SECOND).min(BURST);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    fn over(&self, id: &str) -> NoQuestion {
        match self.gone.iter().find(|(gone, _)| gone == id) {
            Some((id, how)) => NoQuestion::Over {
                id: id.clone(),
                how,
            },
            None => NoQuestion::Unknown(id.to_owned()),
        }
    }

    /// One that nobody may still have in mind, nor is about to be told.
    fn new_id(&mut self, mut draw: impl FnMut() -> Option<String>) -> Option<String> {
        let id = (0..64).find_map(|_| {
            let id = draw()?;
            let known = self.open.contains_key(&id)
                || self.drawn.contains(&id)
                || self.gone.iter().any(|(gone, _)| *gone == id);
            (!known).then_some(id)
        })?;
        self.drawn.insert(id.clone());
        Some(id)
    }
}

fn draw() -> Option<String> {
    let mut bytes = [0; ID_LENGTH];
    getrandom::fill(&mut bytes).ok()?;
    let letter = |byte: u8| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]);
    Some(bytes.into_iter().map(letter).collect())
}

#[cfg(test)]
#[path = "approvals/tests.rs"]
mod tests;
