//! Answers, and what a question looks like on a screen that a program has prepared.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::os::fd::OwnedFd;

use super::*;

/// As much of a terminal as a program needs to hide a question: a cursor, a screen that scrolls, and the default colour.
struct Screen {
    rows: Vec<String>,
    row: usize,
    column: usize,
    hidden: bool,
}

impl Screen {
    const HEIGHT: usize = 12;

    fn new() -> Self {
        Self {
            rows: vec![String::new(); Self::HEIGHT],
            row: 0,
            column: 0,
            hidden: false,
        }
    }

    fn show(&mut self, text: &str) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some(sequence) = rest.strip_prefix("\x1b[") {
                let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                let (parameters, kind) = (&sequence[..end], &sequence[end..=end]);
                match kind {
                    "H" => {
                        let mut numbers = parameters.split(';').map(|n| n.parse().unwrap_or(1));
                        let mut number = || numbers.next().unwrap_or(1usize);
                        (self.row, self.column) = (number().min(Self::HEIGHT) - 1, number() - 1);
                    }
                    "J" => {
                        self.rows[self.row].truncate(self.column);
                        self.rows[self.row + 1..].iter_mut().for_each(String::clear);
                    }
                    _ => {}
                }
                rest = &sequence[end + 1..];
            } else if let Some(command) = rest.strip_prefix("\x1b]") {
                // One that nobody ends takes everything up to what ends it.
                let end = command
                    .find(['\x07', '\x1b', '\x18'])
                    .unwrap_or(command.len());
                match &command[..end] {
                    "10;#000000" => self.hidden = true,
                    "110" => self.hidden = false,
                    _ => {}
                }
                rest = &command[end..];
                rest = rest.strip_prefix("\x07").unwrap_or(rest);
            } else if let Some(after) = rest.strip_prefix("\x1b%G") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix("\x1b\\") {
                rest = after;
            } else {
                match first {
                    '\r' => self.column = 0,
                    '\n' if self.row + 1 == Self::HEIGHT => {
                        self.rows.remove(0);
                        self.rows.push(String::new());
                        self.column = 0;
                    }
                    // The line discipline adds the return.
                    '\n' => (self.row, self.column) = (self.row + 1, 0),
                    '\x18' => {}
                    letter => {
                        let row = &mut self.rows[self.row];
                        let mut letters: Vec<char> = row.chars().collect();
                        letters.resize(letters.len().max(self.column + 1), ' ');
                        letters[self.column] = if self.hidden { ' ' } else { letter };
                        *row = letters.into_iter().collect();
                        self.column += 1;
                    }
                }
                rest = &rest[first.len_utf8()..];
            }
        }
    }
}

fn question(id: &str, target: &str) -> v1::Question {
    v1::Question {
        id: id.into(),
        host: "a.b".into(),
        port: 443,
        protocol: "https".into(),
        method: "GET".into(),
        target: target.into(),
        rule: "r".into(),
        ..v1::Question::default()
    }
}

#[test]
fn a_question_is_the_last_thing_on_a_screen_that_the_program_painted() {
    let fake = "agentcontainer asks (fake, 9 s left):\n  what     a.b:443 https GET /harmless\n";
    for program in [
        format!("\x1b[9;1H{fake}\x1b[H"),
        format!("\x1b[9;1H{fake}\x1b[H\x1b]10;#000000\x07"),
        format!("\x1b[9;1H{fake}\x1b[3;20H\x1b]2;a title that nobody ends"),
    ] {
        let mut screen = Screen::new();
        screen.show(&program);
        screen.show(&format!("{START}{}\n", asked(&question("k7d3f", "/real"))));
        let last: Vec<&str> = screen
            .rows
            .iter()
            .rev()
            .take(6)
            .map(String::as_str)
            .collect();
        assert_eq!(last[0], "", "{program:?} {:?}", screen.rows);
        assert!(
            last[4].ends_with("GET /real"),
            "{program:?} {:?}",
            screen.rows
        );
        assert!(last[5].contains("k7d3f"), "{program:?} {:?}", screen.rows);
    }
}

/// A terminal of the test's own; the other end is the person.
fn pair() -> (Terminal, File) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&pty.slave, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    // SAFETY: a File always returns the same descriptor, and keeps it open until it is dropped with the AsyncFd.
    let file = unsafe { AsyncFd::register(File::from(pty.slave)) }.unwrap();
    let person: OwnedFd = pty.master;
    (Terminal { file }, File::from(person))
}

#[tokio::test]
async fn what_is_typed_as_one_question_takes_anothers_place_answers_neither() {
    let (terminal, mut person) = pair();
    let question = question("k7d3f", "/harmful");
    let asking = terminal.put(&question, true);
    let typing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        person.write_all(b"o\n").unwrap();
        tokio::time::sleep(SETTLE).await;
        person.write_all(b"d\n").unwrap();
    };
    let (said, ()) = tokio::join!(asking, typing);
    assert_eq!(said.unwrap(), Said::Deny);
    // One that took nobody's place is answered at once.
    let asking = terminal.put(&question, false);
    let typing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        person.write_all(b"o\n").unwrap();
    };
    let (said, ()) = tokio::join!(tokio::time::timeout(SETTLE, asking), typing);
    assert_eq!(said.unwrap().unwrap(), Said::Once);
}

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
        rule: "r\u{7}".into(),
        ..question("k7d3f\u{1b}", "/\u{1b}[1A\u{1b}[2K\r")
    };
    let text = asked(&question);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
    assert_eq!(text.lines().count(), 5);
}
