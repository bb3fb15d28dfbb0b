//! How far a long command is: a bar on a terminal, a line now and then elsewhere.
#![expect(clippy::print_stderr, reason = "progress is no result")]

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// Pause between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

const TEMPLATE: &str = "{bar:30} {pos}/{len}, {elapsed} gone, {eta} left{msg}";

/// Progress of so many things.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    bare: bool,
}

impl Progress {
    /// Of `total` things.
    pub(crate) fn new(total: u64) -> Self {
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self {
            bar,
            bare: !std::io::stderr().is_terminal(),
        }
    }

    /// One more is done, and so many failed so far.
    pub(crate) fn done(&self, failed: usize) {
        if failed > 0 {
            self.bar.set_message(format!(", {failed} failed"));
        }
        self.bar.inc(1);
    }

    /// Says something between.
    pub(crate) fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Prints lines where there is no bar, for ever.
    pub(crate) async fn lines(&self) {
        loop {
            tokio::time::sleep(LINE_EVERY).await;
            if self.bare {
                let (done, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
                let gone = self.bar.elapsed().as_secs();
                let left = (gone * (all - done)).checked_div(done);
                let left = left.map_or("?".to_owned(), |left| left.to_string());
                let message = self.bar.message();
                eprintln!("{done} of {all} seeds in {gone} s, {left} s left{message}");
            }
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}
