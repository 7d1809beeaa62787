//! The prompt of a foreground `run`: what its session holds for a person is asked at the person's own terminal, never at the
//! program's. So it is there only where the program inside has no terminal and our standard input is none either; while it is
//! open, nothing that the program writes reaches the screen, so that the program cannot write over what is being asked.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::LazyLock;
use std::time::Duration;

use api::v1::{self, approval::Change};
use nix::sys::termios::{FlushArg, tcflush};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, MutexGuard};

use crate::channel::Enforcer;
use crate::report;
use crate::{channel, question};

/// How often it is looked whether the terminal is ours to read.
const LOOK: Duration = Duration::from_millis(300);
/// How long a question that stands where another one stood is shown before an answer is taken.
const SETTLE: Duration = Duration::from_millis(1500);
/// What comes before a question, so that it is seen and is the last thing on the screen, whatever the program left there: an unfinished
/// sequence is ended (CAN, ST); margins, modes, character sets and colours are undone (DECSTR, SGR 0, UTF-8, OSC 104, 110, 111); the
/// cursor goes below everything.
const START: &str = "\x18\x1b\\\x1b[!p\x1b[0m\x1b%G\x1b[?5l\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b[999;1H\r\n\x1b[J";
/// The longest line that is read.
const MAX_ANSWER: usize = 256;

/// Whoever holds it may write to the screen: the relay for each piece of output, the prompt for as long as it is open.
static SCREEN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

/// Waits for the screen.
pub async fn screen() -> MutexGuard<'static, ()> {
    SCREEN.lock().await
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Once,
    Session,
    Deny,
}

/// Asks at the terminal for as long as the session runs; where there is none to ask at, says once that something waits.
/// `tty`: the program inside has a terminal, and then nothing is written to it.
pub async fn ask(mut enforcer: Enforcer, session: String, tty: bool) {
    if tty {
        return;
    }
    let terminal = if io::stdin().is_terminal() {
        None
    } else {
        Terminal::open()
    };
    loop {
        // An enforcer that is gone has denied what it held; what is asked after it is back is asked here too.
        let _ = follow(&mut enforcer, &session, terminal.as_ref()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn follow(
    enforcer: &mut Enforcer,
    session: &str,
    terminal: Option<&Terminal>,
) -> Result<(), report::Failure> {
    let mut stream = question::open(enforcer, session, true).await?;
    let mut waiting: VecDeque<v1::Question> = VecDeque::new();
    // Somebody else ended the question that the person may have been about to answer.
    let mut swapped = false;
    loop {
        let asked = waiting.front().cloned().zip(terminal);
        let Some((question, terminal)) = asked else {
            match next(&mut stream).await? {
                Some(change) => note(change, &mut waiting, terminal),
                None => return Ok(()),
            }
            continue;
        };
        let asking = terminal.ask(&question, swapped);
        tokio::pin!(asking);
        let said = loop {
            tokio::select! {
                said = &mut asking => break Some(said),
                change = next(&mut stream) => match change? {
                    Some(change) => note(change, &mut waiting, Some(terminal)),
                    None => return Ok(()),
                },
            }
            // What else comes and goes leaves this one, and what was typed, as it is.
            if waiting.front().is_none_or(|front| front.id != question.id) {
                break None;
            }
        };
        swapped = said.is_none();
        let Some(said) = said else { continue };
        waiting.pop_front();
        let Ok(said) = said else { return Ok(()) };
        let (allow, whole) = (said != Said::Deny, said == Said::Session);
        if let Err(failure) = question::answer(enforcer, &question.id, allow, whole).await {
            for diagnostic in failure.diagnostics {
                report::warning(diagnostic);
            }
        }
    }
}

async fn next(
    stream: &mut tonic::Streaming<v1::Approval>,
) -> Result<Option<v1::Approval>, report::Failure> {
    let next = stream.message().await;
    next.map_err(|status| channel::refused("go on with what waits", &status))
}

/// Keeps the queue, and says what the person is to know of it.
fn note(approval: v1::Approval, waiting: &mut VecDeque<v1::Question>, terminal: Option<&Terminal>) {
    match approval.change {
        Some(Change::Open(question)) => {
            if terminal.is_none() && report::stderr_is_terminal() {
                report::note(format!(
                    "{} waits for you: `agentcontainer approve {}`, or deny",
                    question::what(&question),
                    question.id
                ));
            }
            waiting.push_back(question);
        }
        Some(Change::Gone(gone)) => {
            let asked = waiting.front().is_some_and(|q| q.id == gone.id);
            if let (true, Some(terminal)) = (asked, terminal) {
                terminal.say(&report::escape(&format!(
                    "question {} is over: {}",
                    gone.id, gone.how
                )));
            }
            waiting.retain(|question| question.id != gone.id);
        }
        Some(Change::Listed(_)) | None => {}
    }
}

/// The person's own, whatever our streams are.
struct Terminal {
    file: AsyncFd<File>,
}

impl Terminal {
    /// `None` where there is none.
    fn open() -> Option<Self> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/tty")
            .ok()?;
        // SAFETY: a File always returns the same descriptor, and keeps it open until it is dropped with the AsyncFd.
        let file = unsafe { AsyncFd::register(file) }.ok()?;
        Some(Self { file })
    }

    /// A line of ours, after whatever the program left of its own.
    fn say(&self, text: &str) {
        let _ = self
            .file
            .get_ref()
            .write_all(format!("{text}\n").as_bytes());
    }

    /// Whether we may read from it: one in the background is stopped for it.
    fn is_ours(&self) -> bool {
        nix::unistd::tcgetpgrp(self.file.get_ref())
            .is_ok_and(|group| group == nix::unistd::getpgrp())
    }

    /// Asks one question until it is answered. Dropped, it is asked no more. `swapped`: it stands where another one stood.
    async fn ask(&self, question: &v1::Question, swapped: bool) -> io::Result<Said> {
        while !self.is_ours() {
            tokio::time::sleep(LOOK).await;
        }
        self.put(question, swapped).await
    }

    async fn put(&self, question: &v1::Question, swapped: bool) -> io::Result<Said> {
        // Whatever the program writes may end up on this terminal, by our streams or by what they are piped through.
        let _screen = screen().await;
        self.say(&format!("{START}{}", asked(question)));
        if swapped {
            // A finger that was on its way to the one before is no answer to this.
            tokio::time::sleep(SETTLE).await;
        }
        // Nor is what was typed before.
        let _ = tcflush(self.file.get_ref(), FlushArg::TCIFLUSH);
        loop {
            self.write("once, session or deny? [o/s/d] ");
            let line = self.line().await?;
            match answer(&line) {
                Some(said) => return Ok(said),
                None => {
                    self.say("o: allow this one; s: and the same until the session ends; d: deny")
                }
            }
        }
    }

    fn write(&self, text: &str) {
        let _ = self.file.get_ref().write_all(text.as_bytes());
    }

    async fn line(&self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            let mut ready = self.file.readable().await?;
            let mut buffer = [0; MAX_ANSWER];
            let read = ready.try_io(|file| {
                let mut file = file.get_ref();
                file.read(&mut buffer)
            });
            match read {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(count)) => line.extend_from_slice(&buffer[..count]),
                Ok(Err(error)) => return Err(error),
                Err(_) => continue,
            }
            if line.ends_with(b"\n") || line.len() >= MAX_ANSWER {
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }
}

/// The whole of what is asked.
fn asked(question: &v1::Question) -> String {
    let more = question::more(question).into_iter();
    let more: String = more
        .map(|(label, text)| format!("\n  {label:<8} {text}"))
        .collect();
    format!(
        "agentcontainer asks ({}, {} s left):\n  what     {}\n  who      {}{more}\n  rule     {}\n  session  means {}",
        report::escape(&question.id),
        question::seconds_left(question),
        question::what(question),
        question::who(question),
        question::rule(question),
        question::scope(question),
    )
}

fn answer(line: &str) -> Option<Said> {
    match line.trim().to_ascii_lowercase().as_str() {
        "o" | "once" => Some(Said::Once),
        "s" | "session" => Some(Said::Session),
        "d" | "deny" => Some(Said::Deny),
        _ => None,
    }
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;
