//! Programs that nothing lists, where a person is asked about them: each start is denied at once, and a question made of the kernel's record of
//! it. An answer puts that one path into the table that the kernel looks up in, beside what was listed when the container started: first so
//! that nobody inside changes it any more, and once it is found to be what was asked about, so that it is started while it is that very file.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::v1::{self, to_gateway};
use audit::{Event, Kind, Verdict};
use enforcer_common::files::{Act, FileEvent, FileReason, MAX_NAME};
use policy::{EffectivePolicy, FileRight};
use schema::program::ProgramName;
use tokio::time::timeout;

use super::held_files::blocking;
use super::{Session, State, wait_for_running_programs};
use crate::approvals::{NoQuestion, Outcome, Question, Request, Start, What};
use crate::events;
use crate::files::table::{Rule, Say};
use crate::files::{self, Begun, FilesError, Seen, Unfit};
use crate::kernel::Kernel;
use crate::process;
use crate::store;

/// Most programs that a container's answers may add.
const MAX_APPROVED: usize = 256;
/// How long it may take to look at a file.
const LOOK: Duration = Duration::from_secs(2);

/// What may be started in a container that runs.
#[derive(Debug)]
pub(super) struct Listed {
    /// Its init, and that one's network namespace.
    pid: u32,
    network: (u64, u64),
    begun: Arc<Begun>,
    approved: Vec<Approved>,
    /// What a person said no to, and until when nobody is asked again.
    denied: HashMap<ProgramName, Instant>,
}

/// What a person's answer is about.
#[derive(Clone, Debug)]
struct Approved {
    program: ProgramName,
    say: Say,
    /// Started by the next start alone.
    once: bool,
    question: String,
    rule: audit::Rule,
}

/// Why nobody is asked.
#[derive(Debug, thiserror::Error)]
enum Unasked {
    #[error(transparent)]
    NotAsked(#[from] policy::NotAsked),
    #[error("nobody is asked here")]
    Nobody,
    #[error("its path is too long, or not one that a rule could have")]
    Path,
    #[error("the enforcer was started again a moment ago")]
    Restarted,
    #[error("the container's answers allow as much as they may")]
    Full,
    #[error("a person said no a moment ago")]
    Refused,
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("looking at it took too long")]
    Slow,
    #[error("{}", .0.told())]
    Outcome(Outcome),
}

// === impl Listed ===

impl Listed {
    pub(super) fn new(pid: u32, network: (u64, u64), begun: Begun) -> Self {
        Self {
            pid,
            network,
            begun: Arc::new(begun),
            approved: Vec::new(),
            denied: HashMap::new(),
        }
    }

    /// Whether a person said no to it, so lately that nobody is asked again.
    fn is_denied(&mut self, program: &ProgramName) -> bool {
        let now = Instant::now();
        self.denied.retain(|_, until| *until > now);
        self.denied.contains_key(program)
    }

    fn numbers(&self) -> impl Iterator<Item = u16> {
        self.approved
            .iter()
            .filter_map(|approved| match approved.say {
                Say::Approved(number) => Some(number),
                _ => None,
            })
    }

    /// A number that nothing has, after the last one that something was given.
    fn number(&self, last: &mut u16) -> u16 {
        let taken = |number| self.numbers().any(|other| other == number);
        let mut next = *last;
        loop {
            next = next.checked_add(1).unwrap_or(1);
            if !taken(next) {
                *last = next;
                return next;
            }
        }
    }
}

// === impl Approved ===

impl Approved {
    fn rule(&self) -> Rule {
        let path = self.program.path().unwrap_or_default();
        Rule {
            path: path.split('/').map(str::to_owned).collect(),
            say: self.say,
        }
    }
}

impl From<store::Approved> for Approved {
    fn from(kept: store::Approved) -> Self {
        Self {
            program: kept.program,
            say: Say::Approved(kept.number),
            once: false,
            question: kept.question,
            rule: kept.rule,
        }
    }
}

// === impl State ===

impl State {
    /// What may be started in the container that has these rules, if that one runs still.
    fn listed_as(&mut self, begun: Option<&Arc<Begun>>) -> Result<&mut Listed, FilesError> {
        let same =
            |listed: &&mut Listed| begun.is_some_and(|begun| Arc::ptr_eq(&listed.begun, begun));
        let listed = self.listed.as_mut().filter(same);
        listed.ok_or(FilesError::NoContainer)
    }

    /// For the next enforcer. Where it cannot be written, a person is asked again by that one.
    fn keep_approved(&mut self) {
        let kept = |one: &Approved| match one.say {
            Say::Approved(number) if !one.once => Some(store::Approved {
                program: one.program.clone(),
                number,
                question: one.question.clone(),
                rule: one.rule.clone(),
            }),
            _ => None,
        };
        let listed = self.listed.iter().flat_map(|listed| &listed.approved);
        let approved: Vec<store::Approved> = listed.filter_map(kept).collect();
        if approved == self.record.approved {
            return;
        }
        self.record.approved = approved;
        if let Err(error) = self.save() {
            tracing::error!(%error, "what a person allowed is not kept for the next enforcer");
        }
    }
}

/// Whether a person may be asked about it, which takes a while.
pub(super) fn asks(event: &FileEvent) -> bool {
    let reasons = [FileReason::NotListed, FileReason::Changed];
    let asked = reasons.iter().any(|reason| *reason as u8 == event.reason);
    asked && event.act == Act::Execute as u8
}

impl Session {
    /// After an enforcer's restart: what may be started is known again, as it was found when the container started and as it was answered since.
    pub(super) async fn ask_again(&self, pid: u32, network: (u64, u64)) -> Result<(), FilesError> {
        let _one = self.listing.lock().await;
        let number = blocking(pid, move || files::number(pid, network)).await?;
        let mut state = self.state.lock().await;
        // Another container may have come meanwhile, with its own.
        let held = state.kernel.as_ref().and_then(Kernel::held_namespace);
        let is_held =
            |begun: &Begun| begun.listed && begun.namespace == number && held == Some(number);
        let begun = state.record.begun.clone().filter(is_held);
        let (Some(begun), None) = (begun, &state.listed) else {
            return Ok(());
        };
        let programs = state.kernel.as_mut().and_then(Kernel::files);
        let programs = programs.ok_or(FilesError::NotAsked)?;
        let there = programs.approved();
        let there = there.map_err(|error| FilesError::Kernel(error.to_string()))?;
        let stays = |kept: &&store::Approved| there.contains(&kept.number);
        let kept = state.record.approved.iter().filter(stays);
        let approved: Vec<Approved> = kept.cloned().map(Approved::from).collect();
        state.numbered = there.last().copied().unwrap_or_default();
        let mut listed = Listed::new(pid, network, begun);
        listed.approved = approved;
        state.listed = Some(listed);
        Ok(())
    }

    /// The record of what the programs about files decided; a person is asked where a rule wants that.
    pub(super) async fn decided(self: &Arc<Self>, event: &FileEvent) -> Event {
        let mut record = events::file_record(event);
        if asks(event) {
            match self.ask_to_start(event, &record).await {
                Ok((question, rule)) => {
                    record.approval = Some(question);
                    record.rule = Some(rule);
                }
                Err(Unasked::NotAsked(policy::NotAsked::NoRule)) => {}
                Err(why) => record.detail = Some(format!("execute; nobody is asked: {why}")),
            }
        }
        if event.reason == FileReason::Once as u8 {
            self.started_once(&mut record).await;
        }
        record
    }

    /// The question that waits about it, a new one where none does.
    async fn ask_to_start(
        self: &Arc<Self>,
        event: &FileEvent,
        record: &Event,
    ) -> Result<(String, audit::Rule), Unasked> {
        let document = Arc::clone(&self.state.lock().await.current.document);
        if document.programs.require_approval.is_none() {
            return Err(policy::NotAsked::NoRule.into());
        }
        let program = askable(event, record)?;
        let origin = document.programs.asks(&program)?;
        if document.unasked.is_some() {
            return Err(Unasked::Nobody);
        }
        // One after the other: what is asked about by the first is not looked at by the next.
        let _one = self.asking.lock().await;
        let (generation, masked, listed) = {
            let mut state = self.state.lock().await;
            let look = state.look();
            let generation = state.current.number;
            let masked = state.record.masked.clone();
            let listed = state.listed.as_mut().zip(look).map(|(listed, look)| {
                let refused = listed.is_denied(&program);
                let approved = listed.approved.clone();
                (listed.pid, listed.network, approved, look, refused)
            });
            (generation, masked, listed)
        };
        if masked.iter().any(|place| place.is_at(&program)) {
            return Err(policy::NotAsked::Denied.into());
        }
        let rule = audit::Rule {
            name: policy::text::PROGRAMS_ASKED.to_owned(),
            origin: origin.to_string(),
        };
        let same = |question: &Question| {
            let start = question.request.start();
            start.is_some_and(|start| start.program == program)
        };
        if let Some(waits) = self.broker.find(self.id.as_str(), same).pop() {
            return Ok((waits, rule));
        }
        let (pid, network, approved, look, refused) = listed.ok_or(Unasked::Restarted)?;
        // It is being answered about at this moment, or was since it was refused.
        let earlier = event.reason == FileReason::NotListed as u8;
        let answered = |one: &&Approved| {
            let frozen = matches!(one.say, Say::Right(_));
            one.program == program && (frozen || earlier && !one.once)
        };
        if let Some(answered) = approved.iter().find(answered) {
            return Ok((answered.question.clone(), rule));
        }
        if approved.len() >= MAX_APPROVED {
            return Err(Unasked::Full);
        }
        if refused {
            return Err(Unasked::Refused);
        }
        self.broker
            .begin(self.id.as_str())
            .map_err(Unasked::Outcome)?;
        let (asker, parent) = (event.process.tgid, event.parent);
        let (looked_for, rules) = (program.clone(), Arc::clone(&document));
        let looking = tokio::task::spawn_blocking(move || -> Result<_, Unasked> {
            let denied = &rules.programs.denied;
            if files::denies(pid, network, denied, &looked_for).map_err(Unfit::Files)? {
                return Err(policy::NotAsked::Denied.into());
            }
            let inside = process::mount_namespace(pid).unwrap_or_default();
            let own = process::mount_namespace(asker) == Some(inside);
            let line = if own {
                process::line(asker)
            } else {
                Vec::new()
            };
            let parents = process::ancestors(parent, inside);
            let seen = Seen::of(pid, network, &looked_for, &look)?;
            Ok((seen, line, parents))
        });
        let looked = timeout(LOOK, looking).await;
        let looked = looked.map_err(|_| Unasked::Slow)?;
        let (seen, line, parents) = looked.map_err(|_| Unasked::Slow)??;
        let request = Request {
            session: self.id.to_string(),
            workspace: self.workspace.clone(),
            generation,
            rule: rule.clone(),
            what: What::Start(Start {
                program,
                seen,
                line,
                parents,
            }),
            asker: record.process.clone(),
        };
        let question = self.put_on_queue(request, &document).await?;
        Ok((question.id, rule))
    }

    async fn put_on_queue(
        self: &Arc<Self>,
        request: Request,
        document: &EffectivePolicy,
    ) -> Result<Question, Unasked> {
        let seconds = document.gateway.approval_seconds;
        let seconds = seconds.unwrap_or(policy::APPROVAL_SECONDS);
        let limit = Duration::from_secs(seconds.into());
        let record = |question: &Question| {
            let asked = super::asking::event(question, Verdict::Ask, "approval-asked");
            self.write(asked).is_ok()
        };
        let session = Arc::clone(self);
        let reply = Box::new(move |question: &Question, _| {
            let over = v1::Over {
                question: question.id.clone(),
            };
            tokio::spawn(async move { session.show(to_gateway::Message::Over(over)).await });
        });
        let question = self.broker.put(request, limit, record, reply);
        let question = question.map_err(Unasked::Outcome)?;
        let request = &question.request;
        let refused = v1::Refused {
            program: request
                .start()
                .map_or_else(String::new, |start| start.program.to_string()),
            question: question.id.clone(),
            seconds,
            rule: request.rule.name.clone(),
            origin: request.rule.origin.clone(),
        };
        // Nobody holds it: no gateway's loop looks at the clock for it.
        let (session, until) = (Arc::clone(self), question.until);
        tokio::spawn(async move {
            session.show(to_gateway::Message::Refused(refused)).await;
            tokio::time::sleep_until(until.into()).await;
            session.expire();
        });
        Ok(question)
    }

    /// Nobody is asked again about what a person said no to, for as long as a question waits: a loop over one program would be a prompt without end.
    pub(super) async fn deny_start(&self, question: &Question, start: &Start) {
        let limit = question.until - question.since;
        let mut state = self.state.lock().await;
        if let Some(listed) = &mut state.listed
            && listed.denied.len() < MAX_APPROVED
        {
            let until = Instant::now() + limit;
            listed.denied.insert(start.program.clone(), until);
        }
    }

    /// Has what a person allowed be started. It is allowed only as it was when it was asked about. The question waits until that is known, so
    /// that nobody is asked again about whatever is tried meanwhile.
    pub(super) async fn allow_start(
        self: &Arc<Self>,
        question: &Question,
        start: &Start,
        outcome: Outcome,
        by: Option<u32>,
    ) -> Result<(), NotStarted> {
        let _one = self.listing.lock().await;
        // Somebody else may have answered since.
        self.broker.look(&question.id)?;
        let mut approved = Approved {
            program: start.program.clone(),
            say: Say::Right(FileRight::ReadOnly),
            once: outcome != Outcome::AllowedForSession,
            question: question.id.clone(),
            rule: question.request.rule.clone(),
        };
        let begun = self.begun().await;
        let frozen = self.freeze(begun.as_ref(), &approved, start).await;
        let taken = match self.broker.take(&question.id) {
            Ok(taken) => taken,
            Err(gone) => {
                self.unlist(begun.as_ref(), &approved.program).await;
                return Err(gone.into());
            }
        };
        if let Err(why) = frozen {
            self.unlist(begun.as_ref(), &approved.program).await;
            let _ = self.settle(taken, Outcome::Changed, by);
            return Err(NotStarted::Unfit(why));
        }
        if self.settle(taken, outcome, by).is_err() {
            self.unlist(begun.as_ref(), &approved.program).await;
            return Err(NotStarted::NotRecorded);
        }
        if let Err(error) = self.thaw(begun.as_ref(), &mut approved, start).await {
            let mut event = Event::new(Kind::Exec, Verdict::Deny, "approval-not-held");
            event.layer = Some("lsm".into());
            event.approval = Some(approved.question);
            event.binary = Some(approved.program.to_string());
            event.detail = Some(error.to_string());
            let _ = self.write(event);
            self.unlist(begun.as_ref(), &approved.program).await;
            return Err(error.into());
        }
        if let (Say::Approved(number), true) = (approved.say, approved.once) {
            let (session, limit) = (Arc::clone(self), question.until - question.since);
            tokio::spawn(async move {
                tokio::time::sleep(limit).await;
                session.take_away(number).await;
            });
        }
        Ok(())
    }

    /// The container that runs now, by its rules. Between two looks another may take its place.
    async fn begun(&self) -> Option<Arc<Begun>> {
        let state = self.state.lock().await;
        state
            .listed
            .as_ref()
            .map(|listed| Arc::clone(&listed.begun))
    }

    /// From when this returns nobody inside changes it, and it is what it was.
    async fn freeze(
        &self,
        begun: Option<&Arc<Begun>>,
        approved: &Approved,
        start: &Start,
    ) -> Result<(), Unfit> {
        self.list(begun, approved.clone()).await?;
        let (pid, network, look) = {
            let mut state = self.state.lock().await;
            let look = state.look().ok_or(FilesError::NoContainer)?;
            let listed = state.listed_as(begun)?;
            (listed.pid, listed.network, look)
        };
        let (seen, program) = (start.seen, start.program.clone());
        let still = move || seen.is_still(pid, network, &program, &look);
        match timeout(LOOK, tokio::task::spawn_blocking(still)).await {
            Ok(Ok(looked)) => looked,
            _ => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    /// From when this returns it is started as often as the answer says, while it is the file that was looked at.
    async fn thaw(
        &self,
        begun: Option<&Arc<Begun>>,
        approved: &mut Approved,
        start: &Start,
    ) -> Result<(), FilesError> {
        let number = {
            let mut state = self.state.lock().await;
            let mut last = state.numbered;
            let number = state.listed_as(begun)?.number(&mut last);
            state.numbered = last;
            let programs = state.kernel.as_mut().and_then(Kernel::files);
            let programs = programs.ok_or(FilesError::NotAsked)?;
            programs
                .approve(number, start.seen.identity, approved.once)
                .map_err(|error| FilesError::Kernel(error.to_string()))?;
            number
        };
        approved.say = Say::Approved(number);
        self.list(begun, approved.clone()).await
    }

    /// Has an answer hold, in the place of an earlier one about the same program.
    async fn list(&self, begun: Option<&Arc<Begun>>, approved: Approved) -> Result<(), FilesError> {
        self.relist(begun, |all| {
            all.retain(|other| other.program != approved.program);
            all.push(approved);
        })
        .await
    }

    async fn unlist(&self, begun: Option<&Arc<Begun>>, program: &ProgramName) {
        let gone = self.relist(begun, |all| all.retain(|other| other.program != *program));
        if let Err(error) = gone.await {
            tracing::error!(session = %self.id, %error, "a program that was looked at stays as it is");
        }
    }

    /// Makes a table of what was listed and what was approved, and has the kernel look up in it from now on. Under the lock of listing.
    async fn relist(
        &self,
        begun: Option<&Arc<Begun>>,
        change: impl FnOnce(&mut Vec<Approved>),
    ) -> Result<(), FilesError> {
        let (pid, with, mut approved) = {
            let mut state = self.state.lock().await;
            let listed = state.listed_as(begun)?;
            let with = Arc::clone(&listed.begun);
            (listed.pid, with, listed.approved.clone())
        };
        change(&mut approved);
        let rules: Vec<Rule> = approved.iter().map(Approved::rule).collect();
        let table = blocking(pid, move || with.table(rules)).await?;
        {
            let mut state = self.state.lock().await;
            state.listed_as(begun)?;
            let programs = state.kernel.as_mut().and_then(Kernel::files);
            let programs = programs.ok_or(FilesError::NotAsked)?;
            programs
                .replace(&table)
                .map_err(|error| FilesError::Kernel(error.to_string()))?;
            state.listed_as(begun)?.approved = approved;
            state.keep_approved();
        }
        // Before the next table is put where whoever began before still looks.
        blocking(pid, || {
            wait_for_running_programs();
            Ok(())
        })
        .await?;
        // Numbers that the table does not have any more.
        let mut state = self.state.lock().await;
        let numbers = state.listed_as(begun)?.numbers().collect();
        let programs = state.kernel.as_mut().and_then(Kernel::files);
        let programs = programs.ok_or(FilesError::NotAsked)?;
        programs
            .approve_only(&numbers)
            .map_err(|error| FilesError::Kernel(error.to_string()))
    }

    /// What was to be started once was, or was not in time.
    async fn take_away(&self, number: u16) {
        let _one = self.listing.lock().await;
        let begun = self.begun().await;
        {
            let mut state = self.state.lock().await;
            let State { listed, kernel, .. } = &mut *state;
            let say = Say::Approved(number);
            let there = |listed: &Listed| listed.approved.iter().any(|one| one.say == say);
            if !listed.as_ref().is_some_and(there) {
                return;
            }
            if let Some(programs) = kernel.as_mut().and_then(Kernel::files) {
                programs.disapprove(number);
            }
        }
        let gone = self.relist(begun.as_ref(), |all| {
            all.retain(|one| one.say != Say::Approved(number))
        });
        if let Err(error) = gone.await {
            tracing::error!(session = %self.id, %error, "what was started once stays as it is, and is not started again");
        }
    }

    async fn started_once(self: &Arc<Self>, record: &mut Event) {
        let state = self.state.lock().await;
        let mut all = state.listed.iter().flat_map(|listed| &listed.approved);
        let is = |one: &&Approved| record.binary.as_deref() == Some(one.program.as_str());
        let Some(approved) = all.find(is) else {
            return;
        };
        record.approval = Some(approved.question.clone());
        record.rule = Some(approved.rule.clone());
        if let (Say::Approved(number), true) = (approved.say, approved.once) {
            let session = Arc::clone(self);
            tokio::spawn(async move { session.take_away(number).await });
        }
    }

    /// The container is gone, and so is whoever asked.
    pub(super) fn withdraw_starts(&self) {
        let starts = |question: &Question| question.request.start().is_some();
        self.end_all(
            &self.broker.find(self.id.as_str(), starts),
            Outcome::Withdrawn,
        );
    }
}

/// Why what a person allowed is not started all the same.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotStarted {
    #[error(transparent)]
    NoQuestion(#[from] NoQuestion),
    #[error(transparent)]
    Unfit(Unfit),
    #[error("the kernel does not hold it: {0}")]
    NotHeld(#[from] FilesError),
    #[error("it was not recorded")]
    NotRecorded,
}

/// The path of a record, where a rule can have it.
fn askable(event: &FileEvent, record: &Event) -> Result<ProgramName, Unasked> {
    let path = record.binary.as_deref().filter(|_| event.cut == 0);
    let fits =
        |name: &str| name.len() <= MAX_NAME && !name.contains(['*', char::REPLACEMENT_CHARACTER]);
    let path = path.filter(|path| path.split('/').all(fits));
    let program: Option<ProgramName> = path.and_then(|path| path.parse().ok());
    program.ok_or(Unasked::Path)
}
