//! Reads what a guest says and counts: a test has passed when its suite's own closing line says so and the suite ended with 0, and
//! all of that is void unless the guest says at the end that it is done. Called by `vm::machine`.

/// What ran in one guest and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    /// Could not run there, or were not asked for.
    pub skipped: usize,
    pub failures: Vec<String>,
    /// The guest came to its end.
    pub complete: bool,
}

pub struct Verdict<'a> {
    nonce: &'a str,
    /// Suites that have not ended yet, in their order.
    waiting: Vec<&'a str>,
    /// Passed and failed in the suite that runs; none before its closing line.
    running: Option<(usize, usize)>,
    counts: Counts,
}

impl<'a> Verdict<'a> {
    pub fn new(nonce: &'a str, suites: &[&'a str]) -> Self {
        Self {
            nonce,
            waiting: suites.to_vec(),
            running: None,
            counts: Counts::default(),
        }
    }

    /// Takes a line of the guest and gives it back for people, unless it was for us.
    pub fn line<'l>(&mut self, line: &'l str) -> Option<&'l str> {
        if let Some((_, words)) = line.split_once(self.nonce) {
            self.marker(&words.split_whitespace().collect::<Vec<_>>());
            return None;
        }
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|line| line.strip_suffix(" ... FAILED"))
        {
            self.counts.failures.push(name.to_owned());
        }
        if line.starts_with("SKIPPED ") {
            // libtest knows only passed and failed.
            self.counts.skipped += 1;
            self.running = self
                .running
                .map(|(passed, failed)| (passed.saturating_sub(1), failed));
        }
        // Whatever a gateway or an engine said last may stand on the same line.
        if let Some((_, closing)) = line.split_once("test result: ") {
            let (passed, failed) = self.running.unwrap_or_default();
            self.running = Some((
                passed + number(closing, "passed"),
                failed + number(closing, "failed"),
            ));
        }
        Some(line)
    }

    /// Something went wrong outside the guest.
    pub fn fail(&mut self, why: String) {
        self.counts.failed += 1;
        self.counts.failures.push(why);
        self.counts.complete = false;
    }

    pub fn counts(mut self) -> Counts {
        for suite in std::mem::take(&mut self.waiting) {
            self.fail(format!("{suite} did not come to its end"));
        }
        if !self.counts.complete && self.counts.failed == 0 {
            self.fail("the guest died".to_owned());
        }
        self.counts
    }

    fn marker(&mut self, words: &[&str]) {
        match words {
            ["begin", _] => self.running = None,
            ["end", suite, status] => {
                self.waiting.retain(|waiting| waiting != suite);
                let (passed, failed) = self.running.take().unwrap_or_default();
                self.counts.passed += passed;
                self.counts.failed += failed;
                if *status != "0" && failed == 0 {
                    self.counts.failed += 1;
                    self.counts
                        .failures
                        .push(format!("{suite} ended with {status}"));
                } else if passed + failed == 0 {
                    self.counts.failed += 1;
                    self.counts.failures.push(format!("{suite} ran no test"));
                }
            }
            ["done"] => self.counts.complete = true,
            _ => {}
        }
    }
}

/// The number before a word in `ok. 3 passed; 0 failed; 1 ignored; …`.
fn number(closing: &str, word: &str) -> usize {
    closing
        .split([';', '.'])
        .filter_map(|part| part.trim().split_once(' '))
        .find(|(_, name)| *name == word)
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Counts {
        let mut verdict = Verdict::new("vm-1", &["kernel"]);
        for line in lines {
            verdict.line(line);
        }
        verdict.counts()
    }

    #[test]
    fn a_suite_that_passed_in_a_guest_that_is_done_counts() {
        let counts = read(&[
            "vm-1 begin kernel",
            "test result: ok. 3 passed; 0 failed; 1 ignored",
            "vm-1 end kernel 0",
            "vm-1 done",
        ]);
        assert_eq!(
            counts,
            Counts {
                passed: 3,
                complete: true,
                ..Counts::default()
            }
        );
    }

    #[test]
    fn a_test_that_skipped_itself_has_not_passed() {
        let counts = read(&[
            "test result: ok. 3 passed; 0 failed",
            "SKIPPED a: no java",
            "vm-1 end kernel 0",
            "vm-1 done",
        ]);
        assert_eq!((counts.passed, counts.failed, counts.skipped), (2, 0, 1));
    }

    #[test]
    fn a_failing_test_is_named() {
        let counts = read(&[
            "test a ... FAILED",
            "test result: FAILED. 2 passed; 1 failed",
            "vm-1 end kernel 101",
            "vm-1 done",
        ]);
        assert_eq!(
            (counts.passed, counts.failed, counts.failures),
            (2, 1, vec!["a".to_owned()])
        );
    }

    #[test]
    fn a_guest_that_dies_hangs_or_runs_nothing_has_failed() {
        for lines in [
            &[][..],
            &["test result: ok. 3 passed; 0 failed"],
            &["test result: ok. 3 passed; 0 failed", "vm-1 end kernel 0"],
            &[
                "test result: ok. 3 passed; 0 failed",
                "vm-1 end kernel 139",
                "vm-1 done",
            ],
            &[
                "test result: ok. 0 passed; 0 failed",
                "vm-1 end kernel 0",
                "vm-1 done",
            ],
            &["vm-1 end kernel 0", "vm-1 done"],
            &["vm-1 done"],
        ] {
            assert!(read(lines).failed > 0, "{lines:?}");
        }
    }
}
