//! How a failure is told, and the exit code.

use std::process::ExitCode;

use seriatim_client::{ClientError, ErrorCode};
use tokio::signal::unix::{SignalKind, signal};

const START_ONE: &str = "start a node with 'seriatim start' or 'seriatim dev', or name the \
    addresses of others with --servers or SERIATIM_SERVERS";

/// Ended by a signal; the exit code is what a shell makes of it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted {
    code: u8,
}

/// None of the servers can be talked to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no node answers at {servers}: {why}")]
pub(crate) struct NoAnswer {
    /// As they were given.
    pub(crate) servers: String,
    /// What the last of them did.
    pub(crate) why: String,
}

/// Returns once Ctrl-C was pressed or SIGTERM came.
pub(crate) async fn interrupted() -> anyhow::Error {
    let signals = signal(SignalKind::interrupt()).and_then(|int| {
        let term = signal(SignalKind::terminate())?;
        Ok((int, term))
    });
    let (mut int, mut term) = match signals {
        Ok(signals) => signals,
        Err(error) => return anyhow::Error::new(error).context("wait for signals"),
    };
    let code = tokio::select! {
        _ = int.recv() => 130,
        _ = term.recv() => 143,
    };
    Interrupted { code }.into()
}

/// Says what went wrong and what to do about it. Exit codes: 1 for a failure, 130 after Ctrl-C, 143
/// after SIGTERM; a command line that makes no sense has ended with 2 before.
#[expect(
    clippy::print_stderr,
    reason = "the one place that tells a person about a failure"
)]
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    if let Some(Interrupted { code }) = error.downcast_ref() {
        eprintln!("interrupted");
        return ExitCode::from(*code);
    }
    eprintln!("error: {error:#}");
    let hint = match error.chain().find_map(|cause| cause.downcast_ref()) {
        Some(failed) => hint(failed),
        None if error.is::<NoAnswer>() => Some(START_ONE.to_owned()),
        None => None,
    };
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::FAILURE
}

/// The next step, where there is an obvious one.
fn hint(error: &ClientError) -> Option<String> {
    match error {
        ClientError::UnknownTopic(name) => Some(format!(
            "create it with 'seriatim topic create {name}', or see 'seriatim topic list'"
        )),
        ClientError::Unreachable { .. } => Some(START_ONE.to_owned()),
        ClientError::Server(_) if error.code() == Some(ErrorCode::UnknownTopic) => {
            Some("see 'seriatim topic list'".to_owned())
        }
        ClientError::Server(_) if error.code() == Some(ErrorCode::UnknownGroup) => {
            Some("see 'seriatim group list'".to_owned())
        }
        ClientError::Server(_) if error.code() == Some(ErrorCode::GroupNotEmpty) => {
            Some("stop its members; 'seriatim group describe' shows them".to_owned())
        }
        _ if !error.has_no_side_effects() => {
            Some("it may have taken effect all the same; look before you repeat it".to_owned())
        }
        ClientError::Timeout { .. } => {
            Some("'seriatim cluster status' shows which nodes and leaders are missing".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_say_what_to_type() {
        let unknown = ClientError::UnknownTopic("t".to_owned());
        let shown = hint(&unknown).unwrap();
        assert!(shown.contains("seriatim topic create t"), "{shown}");
        let unsure = ClientError::Abandoned {
            maybe_applied: true,
        };
        assert!(hint(&unsure).unwrap().contains("may have taken effect"));
        assert_eq!(hint(&ClientError::Closed("producer")), None);
    }
}
