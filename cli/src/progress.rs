//! How far something is, as bars on a terminal, all of them under each other; nowhere else, and not where machines are spoken to.
//! A pull has one a layer, and one line where nothing is drawn; a blob has one that is long enough to be waited for.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use engine::image::PullProgress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use registry::client::{Repository, Watch};
use schema::digest::Digest;

use crate::report::{self, escape};

/// Layers that are shown, and blobs.
const MAX_BARS: usize = 32;
/// The shortest blob that is shown, in bytes.
const MIN_BLOB: u64 = 1 << 20;

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Where bars are drawn, if they are.
pub fn bars() -> Option<&'static MultiProgress> {
    (report::stderr_is_terminal() && !report::is_json()).then(|| &*BARS)
}

/// Bytes of how many.
pub fn bytes(what: &'static str, all: u64) -> ProgressBar {
    let Some(bars) = bars() else {
        return ProgressBar::hidden();
    };
    let bar = bars.add(ProgressBar::new(all));
    style(&bar, "{msg} {bar:30} {bytes:>10}/{total_bytes:10} {eta}");
    bar.set_message(what);
    bar
}

/// What blobs of registries are shown on, where anything is.
pub fn blobs() -> Option<Arc<dyn Watch>> {
    let bars = bars()?;
    Some(Arc::new(Blobs {
        bars,
        shown: Mutex::default(),
    }))
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// `registry/repository@0123456789ab`, of which the end is the most telling.
fn name(blob: &Digest, from: &Repository) -> String {
    let hex: String = blob.hex().chars().take(12).collect();
    let whole: Vec<char> = escape(&format!("{from}@{hex}")).chars().collect();
    match whole.len().checked_sub(36) {
        None | Some(0) => whole.iter().collect(),
        Some(_) => format!("…{}", whole[whole.len() - 35..].iter().collect::<String>()),
    }
}

struct Blobs {
    bars: &'static MultiProgress,
    shown: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Watch for Blobs {
    fn had(&self, blob: &Digest, from: &Repository, had: u64, size: Option<u64>) {
        let Some(size) = size.filter(|size| *size >= MIN_BLOB) else {
            return;
        };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.len() >= MAX_BARS && !shown.contains_key(blob) {
            return;
        }
        let bar = shown.entry(*blob).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(size));
            style(
                &bar,
                "{msg:36} {wide_bar} {bytes:>10}/{total_bytes:10} {eta:>4}",
            );
            bar.set_message(name(blob, from));
            bar
        });
        bar.set_length(size);
        bar.set_position(had);
    }

    fn ended(&self, blob: &Digest) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = shown.remove(blob) {
            bar.finish_and_clear();
        }
    }
}

pub struct Progress {
    what: String,
    bars: Option<&'static MultiProgress>,
    layers: HashMap<String, ProgressBar>,
    said: bool,
}

impl Progress {
    pub fn new(image: &str) -> Self {
        Self {
            what: image.to_owned(),
            bars: bars(),
            layers: HashMap::new(),
            said: false,
        }
    }

    pub fn hear(&mut self, step: PullProgress) {
        if !self.said {
            self.said = true;
            report::note(format!("pulling {}", self.what));
        }
        let Some(bars) = self.bars else { return };
        if step.layer.is_empty()
            || (self.layers.len() >= MAX_BARS && !self.layers.contains_key(&step.layer))
        {
            return;
        }
        let bar = self.layers.entry(step.layer.clone()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(0));
            style(
                &bar,
                "{prefix:>12} {bar:30} {bytes:>10}/{total_bytes:10} {msg}",
            );
            bar.set_prefix(escape(&step.layer).chars().take(12).collect::<String>());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if let Some(total) = step.total {
            bar.set_length(total);
        }
        if let Some(current) = step.current {
            bar.set_position(current);
        }
        bar.set_message(escape(&step.status));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        for bar in self.layers.values() {
            bar.finish_and_clear();
        }
    }
}
