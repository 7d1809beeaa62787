//! What a rule says a person is asked about waits here: the question goes to the enforcer, the answer comes from there, and
//! until it has come nothing is resolved, dialled or sent. Whatever else ends the wait (time, a new policy, a client that
//! has gone, an enforcer that says nothing) is a refusal. Used by `http::forward` and by `connection`.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use api::v1;
use tokio::time::{sleep, timeout};

use crate::connection::Shared;
use crate::limits;
use crate::state::{Intent, Waiting};
use crate::sys;

/// The outcome of the control channel that is none yet.
const HELD: &str = "held";

/// What is asked about, beside where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub rule: &'a audit::Rule,
    pub generation: u32,
    pub protocol: &'a str,
    /// Method, and path with its query; of a connection nothing.
    pub request: Option<(&'a str, &'a str)>,
}

/// Where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub flow: v1::Flow,
    /// The client's socket; looked at, never read.
    pub socket: RawFd,
}

/// How long it waited, and by which question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Empty where nobody was asked.
    pub question: String,
    pub held_ms: u64,
}

/// Why it is not carried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a person denied it (question {0})")]
    Denied(String),
    #[error("nobody answered question {question} within {seconds} s")]
    Timeout { question: String, seconds: u32 },
    #[error("as much waits for a person as may")]
    Limit,
    #[error("question {0} was withdrawn: the policy changed, or what asked it closed its side")]
    Withdrawn(String),
    #[error("the event log takes no more events, and nobody is asked what is not recorded")]
    NotRecorded,
}

// === impl Refusal ===

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => "approval-denied",
            Self::Timeout { .. } => "approval-timeout",
            Self::Limit => "approval-limit",
            Self::Withdrawn(_) => "approval-withdrawn",
            Self::NotRecorded => "not-recorded",
        }
    }

    pub fn status(&self) -> u16 {
        match self {
            Self::NotRecorded => 503,
            _ => 403,
        }
    }

    fn of(outcome: &str, question: &str, seconds: u32) -> Self {
        let question = question.to_owned();
        match outcome {
            "approval-denied" => Self::Denied(question),
            "approval-timeout" => Self::Timeout { question, seconds },
            "approval-limit" => Self::Limit,
            "not-recorded" => Self::NotRecorded,
            _ => Self::Withdrawn(question),
        }
    }
}

/// Waits until a person allows it. What comes back beside the answer is for the record.
pub async fn ask(
    shared: &Shared,
    intent: &Intent,
    subject: Subject<'_>,
    from: Origin,
) -> (Held, Result<(), Refusal>) {
    let since = Instant::now();
    let mut held = Held::default();
    let mut answer = tokio::select! {
        biased;
        answer = answered(shared, intent, &subject, from.flow, &mut held.question) => answer,
        () = hung_up(from.socket) => Err(Refusal::Withdrawn(String::new())),
    };
    // What was allowed was allowed by the policy that asked.
    if answer.is_ok() && shared.state.active().generation != subject.generation {
        answer = Err(Refusal::Withdrawn(String::new()));
    }
    if let Err(Refusal::Withdrawn(question)) = &mut answer {
        question.clone_from(&held.question);
    }
    held.held_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    (held, answer)
}

async fn answered(
    shared: &Shared,
    intent: &Intent,
    subject: &Subject<'_>,
    flow: v1::Flow,
    question: &mut String,
) -> Result<(), Refusal> {
    let (method, target) = subject.request.unwrap_or_default();
    let withdrawn = || Refusal::Withdrawn(String::new());
    let mut talk = shared
        .channel
        .ask(v1::Ask {
            id: 0,
            flow: Some(flow),
            generation: subject.generation,
            rule: subject.rule.name.clone(),
            origin: subject.rule.origin.clone(),
            kind: match subject.request {
                Some(_) => "request".to_owned(),
                None => "connect".to_owned(),
            },
            host: intent.place.to_string(),
            port: intent.port.into(),
            protocol: subject.protocol.to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
        })
        .await
        .ok_or_else(withdrawn)?;
    let (mut patience, mut seconds) = (limits::RECORD_ANSWER, 0);
    let mut shown = None;
    loop {
        let said = timeout(patience, talk.next()).await;
        let Ok(Some(said)) = said else {
            return Err(withdrawn());
        };
        question.clone_from(&said.question);
        match said.outcome.as_str() {
            HELD => {
                seconds = said.seconds;
                // The enforcer ends it; this is for one that does not.
                patience = Duration::from_secs(seconds.into()) + limits::RECORD_ANSWER;
                shown = Some(shared.state.waits(Waiting {
                    question: said.question,
                    what: match subject.request {
                        Some((method, target)) => {
                            let target = target.split('?').next().unwrap_or_default();
                            format!("{method} {}:{}{target}", intent.place, intent.port)
                        }
                        None => format!("{} {}:{}", subject.protocol, intent.place, intent.port),
                    },
                    rule: subject.rule.clone(),
                    until: Instant::now() + Duration::from_secs(seconds.into()),
                }));
            }
            "allowed" => return Ok(()),
            outcome => {
                drop(shown);
                return Err(Refusal::of(outcome, question, seconds));
            }
        }
    }
}

/// Returns once the client has closed its side: HTTP/1 is served half closed, and so would not notice.
async fn hung_up(socket: RawFd) {
    loop {
        sleep(limits::HELD_LOOK).await;
        if sys::is_hung_up(socket) {
            return;
        }
    }
}
