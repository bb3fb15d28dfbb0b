//! A process of the history that does one thing after the other.

use seriatim_client::ClientError;

use crate::history::{Action, Pending, Process, Recorder};

/// A process, which another one replaces after an operation that may yet take effect.
#[derive(Debug)]
pub(super) struct Actor {
    recorder: Recorder,
    process: Process,
}

impl Actor {
    pub(super) fn new(recorder: &Recorder) -> Self {
        Self {
            process: recorder.process(),
            recorder: recorder.clone(),
        }
    }

    pub(super) fn invoke(&self, action: Action) -> Pending {
        self.recorder.invoke(self.process, None, action)
    }

    pub(super) fn ok(&self, pending: Pending, action: Action) {
        self.recorder.ok(pending, action);
    }

    /// It certainly had no effect.
    pub(super) fn fail(&self, pending: Pending, action: Action, error: &ClientError) {
        self.recorder.fail(pending, action, told(error));
    }

    /// It may have had an effect, or may have one yet.
    pub(super) fn info(&mut self, pending: Pending, action: Action, error: &ClientError) {
        self.process = self.recorder.info(pending, action, told(error));
    }

    /// The same without an error.
    pub(super) fn unknown(&mut self, pending: Pending, action: Action, why: &str) {
        self.process = self.recorder.info(pending, action, why);
    }

    /// It failed, with an effect or without as the client says.
    pub(super) fn failed(&mut self, pending: Pending, action: Action, error: &ClientError) {
        if error.has_no_side_effects() {
            self.fail(pending, action, error);
        } else {
            self.info(pending, action, error);
        }
    }
}

/// An error with its causes.
pub(super) fn told(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
