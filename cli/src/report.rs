//! What is said to people and machines: failures in the one diagnostic form on stderr, `--json` on stdout, nothing printed
//! that a workspace, image or agent said without control characters escaped. Every command's errors end here.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};
use engine::EngineError;
use schema::diag::Diagnostic;

/// Exit status for what failed on our side.
pub const OURS: u8 = 125;

/// Set once the terminal is in raw mode: lines then end with a carriage return too.
static RAW: AtomicBool = AtomicBool::new(false);
/// Set by `--json`: diagnostics are JSON lines.
static JSON: AtomicBool = AtomicBool::new(false);

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    pub diagnostics: Vec<Diagnostic>,
    pub status: u8,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Diagnostic::new(code, message).into()
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        if let Some(last) = self.diagnostics.last_mut() {
            last.help = Some(help.into());
        }
        self
    }

    pub fn about(mut self, object: impl Into<String>) -> Self {
        if let Some(last) = self.diagnostics.last_mut() {
            last.place = Some(schema::diag::Place::Object(object.into()));
        }
        self
    }

    /// The same behind what an engine said before.
    pub fn after(mut self, before: &EngineError) -> Self {
        let diagnostic = Diagnostic::new(before.code(), before.to_string());
        let diagnostic = match before.help() {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        };
        self.diagnostics.insert(0, diagnostic);
        self
    }

    /// The same with another exit status: 1 for a check that does not hold, 2 for one that could not be made.
    pub fn status(self, status: u8) -> Self {
        Self { status, ..self }
    }

    /// A file that could not be read or written.
    pub fn io(call: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new("io", format!("cannot {call} {}: {error}", path.display()))
    }

    pub fn print(&self) {
        for diagnostic in &self.diagnostics {
            self::diagnostic(diagnostic);
        }
    }
}

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        vec![diagnostic].into()
    }
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            diagnostics,
            status: OURS,
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let diagnostic = Diagnostic::new(error.code(), error.to_string());
        match error.help() {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
        .into()
    }
}

pub fn set_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

pub fn set_raw(raw: bool) {
    RAW.store(raw, Ordering::Relaxed);
}

/// Text of a stranger's, fit for a terminal. The one function that everything printed goes through.
pub fn escape(text: &str) -> String {
    schema::diag::escape(text)
}

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// One line on stderr, whole, whatever mode the terminal is in.
fn line(text: &str) {
    let end = if RAW.load(Ordering::Relaxed) {
        "\r\n"
    } else {
        "\n"
    };
    let text = text.replace('\n', end);
    let mut stderr = anstream::stderr().lock();
    // Nobody is left to tell when stderr is gone.
    let _ = write!(stderr, "{text}{end}");
    let _ = stderr.flush();
}

fn diagnostic(diagnostic: &Diagnostic) {
    if JSON.load(Ordering::Relaxed) {
        line(&serde_json::to_string(diagnostic).unwrap_or_default());
    } else {
        line(&format!("{RED}error:{RED:#} {diagnostic}"));
    }
}

/// Something that a person should know, and that stops nothing.
pub fn warning(text: impl Display) {
    line(&format!(
        "{YELLOW}warning:{YELLOW:#} {}",
        escape(&text.to_string())
    ));
}

/// A line of the banner.
pub fn banner(label: &str, text: impl Display) {
    line(&format!(
        "{DIM}{label:>11}{DIM:#}  {}",
        escape(&text.to_string())
    ));
}

/// A connection that was refused.
pub fn denied(text: impl Display) {
    line(&format!("{RED}denied{RED:#} {}", escape(&text.to_string())));
}

/// A plain remark.
pub fn note(text: impl Display) {
    line(&escape(&text.to_string()));
}

/// A line of a report on stdout; a closed pipe ends the program quietly, as it does others.
pub fn out(text: impl Display) {
    let mut stdout = anstream::stdout().lock();
    if writeln!(stdout, "{text}").is_err() {
        std::process::exit(0);
    }
}

/// The same for a value in its `--json` form.
pub fn out_json(value: &impl serde::Serialize) {
    out(serde_json::to_string(value).unwrap_or_default());
}

/// A word in the colour of how well it went.
pub fn mark(good: Option<bool>) -> String {
    match good {
        Some(true) => format!("{GREEN}ok{GREEN:#}     "),
        Some(false) => format!("{RED}missing{RED:#}"),
        None => format!("{YELLOW}unknown{YELLOW:#}"),
    }
}

/// A verdict's own word in the colour of how well it went.
pub fn coloured(word: &str, good: Option<bool>) -> String {
    let style = match good {
        Some(true) => GREEN,
        Some(false) => RED,
        None => YELLOW,
    };
    format!("{style}{word}{style:#}")
}

/// Rows in columns, the first row the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width: Vec<usize> = (0..columns)
        .map(|c| {
            rows.iter()
                .filter_map(|r| r.get(c))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&width)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [["id", "name", ""], ["abcdef", "x", "y"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "id      name\nabcdef  x     y");
    }

    #[test]
    fn what_strangers_say_cannot_steer_the_terminal() {
        assert_eq!(escape("a\u{1b}]0;x\u{7}\r"), "a\\u{1b}]0;x\\u{7}\\u{d}");
    }
}
