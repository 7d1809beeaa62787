//! What a person sees while registries are asked.

use std::cell::Cell;

use crate::progress;

/// How far it is, on a terminal, once it takes long enough to be worth it.
pub struct Spinner {
    bar: Option<indicatif::ProgressBar>,
    had: Cell<usize>,
    all: Cell<usize>,
}

impl Spinner {
    pub fn new() -> Self {
        let bar = progress::bars().map(|bars| {
            let bar = bars.add(indicatif::ProgressBar::new_spinner());
            bar.set_message("asking registries");
            bar.enable_steady_tick(std::time::Duration::from_millis(120));
            bar
        });
        Self {
            bar,
            had: Cell::new(0),
            all: Cell::new(0),
        }
    }

    pub fn wait_for_one(&self) {
        self.all.set(self.all.get() + 1);
    }

    pub fn had_one(&self) {
        self.had.set(self.had.get() + 1);
        if let Some(bar) = &self.bar {
            let (had, all) = (self.had.get(), self.all.get());
            bar.set_message(format!("asking registries: {had} of {all}"));
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
