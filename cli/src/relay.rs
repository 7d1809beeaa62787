//! Carries a program's streams between the engine and our own standard ones, and signals and window sizes the other way,
//! until the program's output ends. `run` and `exec` differ only in what a signal or a size becomes (`Remote`).

use std::future::Future;

use engine::stream::{Channel, Input, Output};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::prompt;
use crate::report::Failure;
use crate::terminal;

/// How much of standard input is read at once.
const CHUNK: usize = 16 * 1024;

/// What signals and sizes are passed on to.
pub trait Remote {
    fn resize(&self, rows: u16, columns: u16) -> impl Future<Output = ()> + Send;
    /// SIGINT, SIGQUIT and the like, typed or sent at us.
    fn signal(&self, name: &'static str) -> impl Future<Output = ()> + Send;
}

/// Why the relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The program's output ended.
    Output,
    /// We were told to go: 128 + this is our status.
    Told(i32),
    /// SIGINT for the second time.
    Interrupted,
}

/// The signals that mean something to a session, registered once and early, so that none is lost.
#[derive(Debug)]
pub struct Signals {
    int: Signal,
    quit: Signal,
    term: Signal,
    hup: Signal,
    winch: Signal,
    interrupts: u32,
}

/// A signal, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Pass(&'static str),
    Told(i32),
    Resize,
}

impl Signals {
    pub fn register() -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind)
                .map_err(|e| Failure::new("signals", format!("cannot register signals: {e}")))
        };
        Ok(Self {
            int: on(SignalKind::interrupt())?,
            quit: on(SignalKind::quit())?,
            term: on(SignalKind::terminate())?,
            hup: on(SignalKind::hangup())?,
            winch: on(SignalKind::window_change())?,
            interrupts: 0,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.int.recv() => Heard::Pass("SIGINT"),
            _ = self.quit.recv() => Heard::Pass("SIGQUIT"),
            _ = self.term.recv() => Heard::Told(libc::SIGTERM),
            _ = self.hup.recv() => Heard::Told(libc::SIGHUP),
            _ = self.winch.recv() => Heard::Resize,
        }
    }

    /// The number of the first signal that asks us to stop, before there is a program to pass it on to.
    pub async fn stop(&mut self) -> i32 {
        loop {
            match self.next().await {
                Heard::Pass("SIGQUIT") => return libc::SIGQUIT,
                Heard::Pass(_) => return libc::SIGINT,
                Heard::Told(number) => return number,
                Heard::Resize => {}
            }
        }
    }
}

/// Relays until the output ends or we are told to go.
pub async fn relay(
    input: Option<Input>,
    mut output: Output,
    signals: &mut Signals,
    tty: bool,
    remote: &(impl Remote + Sync),
) -> Result<End, Failure> {
    if let (true, Some((rows, columns))) = (tty, terminal::size()) {
        remote.resize(rows, columns).await;
    }
    // Its own task: reading standard input cannot be interrupted, and must not hold up the output.
    let feeding = input.map(|input| tokio::spawn(feed(input)));
    let mut piece: Option<(Channel, Vec<u8>)> = None;
    let result = loop {
        tokio::select! {
            // While a person is being asked at the terminal, nothing else is written to it.
            _screen = prompt::screen(), if piece.is_some() => {
                if let Some((channel, bytes)) = piece.take() {
                    write(channel, &bytes).await;
                }
            }
            next = output.next(), if piece.is_none() => match next {
                Ok(Some(next)) => piece = Some(next),
                Ok(None) => break Ok(End::Output),
                Err(e) => break Err(Failure::new("stream", format!("the program's output broke off: {e}"))),
            },
            heard = signals.next() => match heard {
                Heard::Resize => {
                    if let (true, Some((rows, columns))) = (tty, terminal::size()) {
                        remote.resize(rows, columns).await;
                    }
                }
                Heard::Told(number) => break Ok(End::Told(number)),
                Heard::Pass(name) => {
                    signals.interrupts += u32::from(name == "SIGINT");
                    if signals.interrupts > 1 {
                        break Ok(End::Interrupted);
                    }
                    remote.signal(name).await;
                }
            },
        }
    };
    if let Some(feeding) = feeding {
        feeding.abort();
    }
    result
}

async fn feed(mut input: Input) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK];
    loop {
        match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                if input.write(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = input.close().await;
}

/// To our own stream. When its reader is gone the program still runs to its end, unheard.
async fn write(channel: Channel, bytes: &[u8]) {
    let _ = match channel {
        Channel::Stdout => {
            let mut stdout = tokio::io::stdout();
            match stdout.write_all(bytes).await {
                Ok(()) => stdout.flush().await,
                error => error,
            }
        }
        Channel::Stderr => {
            let mut stderr = tokio::io::stderr();
            match stderr.write_all(bytes).await {
                Ok(()) => stderr.flush().await,
                error => error,
            }
        }
    };
}
