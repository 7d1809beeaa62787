//! A session's side of what waits for a person: a gateway's question is checked, attributed, recorded and put on the queue;
//! whatever ends it (an answer, time, another policy, the asker gone) is recorded first and told then.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::v1;
use audit::{Event, Kind, Verdict};
use schema::host::HostName;
use schema::net::Protocol;
use tokio::sync::mpsc;

use super::gateway_link::key;
use super::listed::NotStarted;
use super::{Generation, Session};
use crate::approvals::{Broker, NoQuestion, Outcome, Question, Reach, Request, Taken, What};
use crate::attribution::Attribution;

/// Bytes of a target that a question may have: as many as the gateway reads of one.
const MAX_TARGET: usize = 16 * 1024;
const MAX_METHOD: usize = 32;

/// What a gateway asks, until it is answered: by the gateway's number the question's id.
pub(super) struct Asked {
    open: HashMap<u64, String>,
    tell: mpsc::UnboundedSender<v1::Answered>,
    pub(super) told: mpsc::UnboundedReceiver<v1::Answered>,
}

/// Why an answer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    NoQuestion(#[from] NoQuestion),
    #[error("question {0} was withdrawn: the policy has changed since it was asked")]
    Stale(String),
    #[error("the event log takes no more events, so question {0} was denied")]
    NotRecorded(String),
    #[error(
        "this session's answers allow as much as they may; question {0} is still open, and can be allowed once"
    )]
    TooMany(String),
    #[error("question {id} was denied: {why}")]
    Unfit { id: String, why: String },
    #[error("question {id} was answered, and the kernel does not hold what it allows: {why}")]
    NotHeld { id: String, why: String },
}

impl Default for Asked {
    fn default() -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        Self {
            open: HashMap::new(),
            tell,
            told,
        }
    }
}

/// A person's answer, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub allow: bool,
    /// The same things too, until the session ends.
    pub session: bool,
    /// By the kernel's word.
    pub by: Option<u32>,
}

impl Session {
    /// A gateway's question. What is answered at once is told at once.
    pub(super) async fn ask(
        &self,
        ask: v1::Ask,
        asked: &mut Asked,
        attribution: &mut Attribution,
    ) -> v1::Answered {
        let answered = |question: &str, outcome: &str, seconds| v1::Answered {
            id: ask.id,
            question: question.to_owned(),
            outcome: outcome.to_owned(),
            seconds,
        };
        let (number, flow) = (ask.id, ask.flow);
        let (request, limit) = match self.checked(&ask, attribution, flow).await {
            Some(checked) => checked,
            None => return answered("", Outcome::Withdrawn.told(), 0),
        };
        if let Some(question) = self.broker.covers(&request) {
            return answered(&question, Outcome::Allowed.told(), 0);
        }
        let tell = asked.tell.clone();
        let reply = Box::new(move |question: &Question, outcome: Outcome| {
            // A gateway that is gone has reset what it held.
            let _ = tell.send(v1::Answered {
                id: number,
                question: question.id.clone(),
                outcome: outcome.told().to_owned(),
                seconds: 0,
            });
        });
        let record = |question: &Question| {
            self.write(event(question, Verdict::Ask, "approval-asked"))
                .is_ok()
        };
        match self.broker.ask(request, limit, record, reply) {
            Ok(question) => {
                let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX);
                let held = answered(&question.id, "held", seconds);
                asked.open.insert(number, question.id);
                held
            }
            Err(outcome) => answered("", outcome.told(), 0),
        }
    }

    /// The question in words that do not depend on the gateway's honesty: a rule of the policy's own, a canonical name, the
    /// process that the kernel saw. `None`: it is by no policy that is in force.
    async fn checked(
        &self,
        ask: &v1::Ask,
        attribution: &mut Attribution,
        flow: Option<v1::Flow>,
    ) -> Option<(Request, Duration)> {
        let state = self.state.lock().await;
        let by = |generation: &&Generation| generation.number == ask.generation;
        let generation = Some(&state.current)
            .filter(by)
            .or(state.pending.as_ref().filter(by))?;
        let rules = generation.document.asks();
        let known = |(name, origin): &(String, &policy::Origin)| {
            *name == ask.rule && origin.to_string() == ask.origin
        };
        let canonical = HostName::parse(&ask.host).is_ok_and(|name| name.as_str() == ask.host)
            || ask.host.parse::<Ipv4Addr>().is_ok();
        let fits = ask.target.len() <= MAX_TARGET && ask.method.len() <= MAX_METHOD;
        let mut protocols = Protocol::ALL.iter();
        let protocol = protocols.find(|p| p.as_str() == ask.protocol)?;
        if !canonical || !fits || !rules.iter().any(known) {
            tracing::warn!(session = %self.id, "the gateway asked about what no rule asks");
            return None;
        }
        let seconds = generation.document.gateway.approval_seconds;
        let kind = match ask.kind.as_str() {
            "request" => Kind::Request,
            _ => Kind::Connect,
        };
        let mut process = Event::new(Kind::Approval, Verdict::Ask, "");
        if let Some(flow) = flow {
            let opener = || state.maps.process(&key(&flow));
            attribution.attribute(&mut process, flow.connection, true, opener);
        }
        let request = Request {
            session: self.id.to_string(),
            workspace: self.workspace.clone(),
            generation: generation.number,
            rule: audit::Rule {
                name: ask.rule.clone(),
                origin: ask.origin.clone(),
            },
            what: What::Reach(Reach {
                kind,
                host: ask.host.clone(),
                port: u16::try_from(ask.port).ok()?,
                protocol: protocol.as_str().to_owned(),
                method: ask.method.clone(),
                target: ask.target.clone(),
            }),
            asker: process.process,
        };
        let seconds = seconds.unwrap_or(policy::APPROVAL_SECONDS);
        Some((request, Duration::from_secs(seconds.into())))
    }

    /// Takes a person's answer.
    ///
    /// # Errors
    /// There is nothing to answer any more, or the answer cannot be recorded, and then it is no.
    pub async fn answer(
        self: &Arc<Self>,
        id: &str,
        answer: Answer,
    ) -> Result<Question, AnswerError> {
        let question = self.broker.look(id)?;
        let current = self.state.lock().await.current.number;
        if question.request.generation < current {
            self.withdraw(std::slice::from_ref(&question.id));
            return Err(AnswerError::Stale(question.id));
        }
        let keep = answer.allow && answer.session;
        if keep && !self.broker.may_keep(&question) {
            return Err(AnswerError::TooMany(question.id));
        }
        let outcome = match (answer.allow, answer.session) {
            (true, false) => Outcome::Allowed,
            (true, true) => Outcome::AllowedForSession,
            (false, _) => Outcome::Denied,
        };
        if let Some(start) = question.request.start().filter(|_| answer.allow) {
            let started = self.allow_start(&question, start, outcome, answer.by);
            return started.await.map(|()| question.clone()).map_err(|error| {
                let (id, why) = (id.to_owned(), error.to_string());
                match error {
                    NotStarted::NoQuestion(gone) => gone.into(),
                    NotStarted::Unfit(_) => AnswerError::Unfit { id, why },
                    NotStarted::NotHeld(_) => AnswerError::NotHeld { id, why },
                    NotStarted::NotRecorded => AnswerError::NotRecorded(id),
                }
            });
        }
        if let Some(start) = question.request.start() {
            self.deny_start(&question, start).await;
        }
        let taken = self.broker.take(id)?;
        let settled = self
            .settle(taken, outcome, answer.by)
            .map_err(|()| AnswerError::NotRecorded(id.to_owned()));
        if settled.is_ok() && keep {
            // A policy that came meanwhile has looked at what was kept before this was.
            let current = self.state.lock().await.current.clone();
            if question.request.generation < current.number {
                self.ask_by(&current);
            }
        }
        settled.map(|()| question)
    }

    /// Ends a question: on record first. What cannot be recorded is denied.
    pub(super) fn settle(&self, taken: Taken, outcome: Outcome, by: Option<u32>) -> Result<(), ()> {
        let verdict = if outcome.is_allowed() {
            Verdict::Allow
        } else {
            Verdict::Deny
        };
        let record = |question: &Question| {
            let mut event = event(question, verdict, outcome.code());
            event.by = by;
            let held = question.since.elapsed().as_millis();
            event.held_ms = u64::try_from(held).ok();
            self.write(event).is_ok()
        };
        match self.broker.settle(taken, outcome, record) {
            true => Ok(()),
            false => Err(()),
        }
    }

    pub(super) fn end_all(&self, ids: &[String], outcome: Outcome) {
        for id in ids {
            if let Ok(taken) = self.broker.take(id) {
                let _ = self.settle(taken, outcome, None);
            }
        }
    }

    fn withdraw(&self, ids: &[String]) {
        self.end_all(ids, Outcome::Withdrawn);
    }

    /// Whoever asked has gone.
    pub(super) fn withdraw_asked(&self, number: u64, asked: &mut Asked) {
        if let Some(id) = asked.open.remove(&number) {
            self.withdraw(&[id]);
        }
    }

    /// A gateway that is gone holds nothing.
    pub(super) fn withdraw_all(&self) {
        self.withdraw(&self.broker.find(self.id.as_str(), |_| true));
    }

    /// Another policy decides: what an earlier one asked is asked no more, and what answers to its rules allow goes with them.
    pub(super) fn ask_by(&self, generation: &Generation) {
        let id = self.id.as_str();
        let earlier = |question: &Question| question.request.generation < generation.number;
        self.withdraw(&self.broker.find(id, earlier));
        let rules = generation.document.asks();
        let there = |name: &str, origin: &str| {
            let mut rules = rules.iter();
            // What is said of programs is the same for as long as the session lasts.
            name == policy::text::PROGRAMS_ASKED
                || rules.any(|(rule, at)| rule == name && at.to_string() == origin)
        };
        self.broker.retain(id, there);
    }

    /// Denies what has waited long enough.
    pub(super) fn expire(&self) {
        let now = Instant::now();
        let over = |question: &Question| question.until <= now;
        let ids = self.broker.find(self.id.as_str(), over);
        self.end_all(&ids, Outcome::Timeout);
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.broker
    }
}

impl Asked {
    /// What was told is asked no more.
    pub(super) fn answered(&mut self, number: u64) {
        self.open.remove(&number);
    }
}

pub(super) fn event(question: &Question, verdict: Verdict, reason: &str) -> Event {
    let request = &question.request;
    let mut event = Event::new(Kind::Approval, verdict, reason);
    event.layer = Some("enforcer".into());
    event.approval = Some(question.id.clone());
    event.rule = Some(request.rule.clone());
    event.process = request.asker.clone();
    match &request.what {
        What::Reach(reach) => tell_of(reach, &mut event),
        What::Start(start) => event.binary = Some(start.program.to_string()),
    }
    event
}

fn tell_of(reach: &Reach, event: &mut Event) {
    event.host = Some(reach.host.clone());
    event.port = Some(reach.port);
    event.protocol = Some(reach.protocol.clone());
    if reach.method.is_empty() {
        return;
    }
    event.method = Some(reach.method.clone());
    // The query is a person's to see, and not the record's.
    let (path, query) = match reach.target.split_once('?') {
        Some((path, _)) => (path, "?***"),
        None => (reach.target.as_str(), ""),
    };
    let path: String = path.chars().take(MAX_RECORDED).collect();
    event.url = Some(format!(
        "{}://{}:{}{path}{query}",
        reach.protocol, reach.host, reach.port
    ));
}

/// Characters of a path that an event keeps.
const MAX_RECORDED: usize = 2048;
