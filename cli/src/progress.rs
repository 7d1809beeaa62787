//! A pull as bars, one a layer, on a terminal; as one line anywhere else.

use std::collections::HashMap;
use std::time::Duration;

use engine::image::PullProgress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::report::{self, escape};

/// Layers that are shown.
const MAX_BARS: usize = 32;

pub struct Progress {
    what: String,
    bars: Option<MultiProgress>,
    layers: HashMap<String, ProgressBar>,
    said: bool,
}

impl Progress {
    pub fn new(image: &str) -> Self {
        Self {
            what: image.to_owned(),
            bars: report::stderr_is_terminal().then(MultiProgress::new),
            layers: HashMap::new(),
            said: false,
        }
    }

    pub fn hear(&mut self, step: PullProgress) {
        if !self.said {
            self.said = true;
            report::note(format!("pulling {}", self.what));
        }
        let Some(bars) = &self.bars else { return };
        if step.layer.is_empty()
            || (self.layers.len() >= MAX_BARS && !self.layers.contains_key(&step.layer))
        {
            return;
        }
        let bar = self.layers.entry(step.layer.clone()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(0));
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix:>12} {bar:30} {bytes:>10}/{total_bytes:10} {msg}",
            ) {
                bar.set_style(style);
            }
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
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
        }
    }
}
