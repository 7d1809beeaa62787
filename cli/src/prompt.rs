//! The prompt of a foreground `run`: what its session holds for a person is asked at the person's own terminal, never at the
//! program's. So it is there only where the program inside has no terminal and our standard input is none either; while it is
//! open, nothing that the program writes reaches the screen, so that the program cannot write over what is being asked.

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
    let mut waiting: std::collections::VecDeque<v1::Question> = Default::default();
    loop {
        let change = {
            let asking = async {
                match (terminal, waiting.front()) {
                    (Some(terminal), Some(question)) => terminal.ask(question).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                change = stream.message() => Err(change),
                said = asking => Ok(said),
            }
        };
        match change {
            Ok(said) => {
                let Some(question) = waiting.pop_front() else {
                    continue;
                };
                let Ok(said) = said else { return Ok(()) };
                let (allow, whole) = (said != Said::Deny, said == Said::Session);
                let told = match question::answer(enforcer, &question.id, allow, whole).await {
                    Ok(_) => continue,
                    Err(failure) => failure.diagnostics,
                };
                for diagnostic in told {
                    report::warning(diagnostic);
                }
            }
            Err(Ok(Some(approval))) => match approval.change {
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
            },
            Err(Ok(None)) => return Ok(()),
            Err(Err(status)) => {
                return Err(channel::refused("go on with what waits", &status));
            }
        }
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

    /// Asks one question until it is answered. Dropped, it is asked no more.
    async fn ask(&self, question: &v1::Question) -> io::Result<Said> {
        while !self.is_ours() {
            tokio::time::sleep(LOOK).await;
        }
        let theirs = io::stdout().is_terminal() || report::stderr_is_terminal();
        let _screen = if theirs { Some(screen().await) } else { None };
        // What was typed before was no answer to this. Whatever the program did to colours, margins and character sets is undone
        // (DECSTR), so that what follows is seen.
        let _ = tcflush(self.file.get_ref(), FlushArg::TCIFLUSH);
        self.say(&format!("\r\n\x1b[!p\x1b[0m{}", asked(question)));
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
    format!(
        "agentcontainer asks ({} s left):\n  what     {}\n  who      {}\n  rule     {}\n  session  means {}",
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
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_word_or_its_first_letter_and_nothing_else_is_one() {
        assert_eq!(answer("o\n"), Some(Said::Once));
        assert_eq!(answer(" Session \n"), Some(Said::Session));
        assert_eq!(answer("deny"), Some(Said::Deny));
        for other in ["", "\n", "y\n", "yes", "once please", "oo"] {
            assert_eq!(answer(other), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_asked_holds_nothing_that_steers_a_terminal() {
        let question = v1::Question {
            host: "a.b".into(),
            port: 443,
            protocol: "https".into(),
            method: "GET".into(),
            target: "/\u{1b}[1A\u{1b}[2K\r".into(),
            rule: "r\u{7}".into(),
            ..v1::Question::default()
        };
        let text = asked(&question);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
        assert_eq!(text.lines().count(), 5);
    }
}
