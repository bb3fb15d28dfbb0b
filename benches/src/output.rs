//! What people and programs see.

use std::io::{self, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

/// A line on standard error that counts records; nothing where that is no terminal.
pub(crate) fn progress(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}: {pos} records, {per_sec}");
    let bar = ProgressBar::new_spinner().with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A remark for a person.
#[expect(clippy::print_stderr, reason = "the one place that remarks")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// A result; a reader that has gone away is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
