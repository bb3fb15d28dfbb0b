//! Wall clocks of single processes, through libfaketime.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The form for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// Where distributions put it.
const FOLDERS: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib/x86_64-linux-gnu",
    "/usr/local/lib",
];

/// The library, if it is installed.
pub(super) fn library() -> Option<PathBuf> {
    let mut paths = FOLDERS.iter().map(|folder| Path::new(folder).join(LIBRARY));
    paths.find(|path| path.is_file())
}

/// Why clocks cannot be set off, if so.
pub(super) fn obstacle() -> Option<String> {
    let missing = || "libfaketime is missing: apt-get install libfaketime".to_owned();
    library().is_none().then(missing)
}

/// The wall clock of one process: how far it is off stands in a file.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that is right.
    pub(super) fn right(file: PathBuf) -> anyhow::Result<Self> {
        let clock = Self { file };
        clock.set(0)?;
        Ok(clock)
    }

    /// What makes a process have this clock. Its monotonic time stays what it is.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let library = library().unwrap_or_default();
        let variables = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        let named = variables.map(|(name, value)| (name.to_owned(), value));
        named.into()
    }

    /// Off by so many milliseconds from now on; the process looks once a second.
    pub(super) fn set(&self, offset_ms: i64) -> anyhow::Result<()> {
        let (seconds, ms) = (offset_ms.abs() / 1_000, offset_ms.abs() % 1_000);
        let sign = if offset_ms < 0 { '-' } else { '+' };
        // In one piece, so that nobody reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{sign}{seconds}.{ms:03}s\n"))
            .and_then(|()| {
                seriatim_storage::disk::Disk::rename(
                    &seriatim_storage::disk::PosixDisk,
                    &new,
                    &self.file,
                )
            })
            .with_context(|| format!("write {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clock");
        let clock = Clock::right(file.clone()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "+0.000s\n");
        clock.set(-3_600_250).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "-3600.250s\n");
        if library().is_none() {
            return;
        }
        let date = |clock: Option<&Clock>| {
            let mut command = std::process::Command::new("date");
            let command = command
                .arg("+%s")
                .envs(clock.map(Clock::environment).unwrap_or_default());
            let output = command.output().unwrap();
            String::from_utf8(output.stdout)
                .unwrap()
                .trim()
                .parse::<i64>()
                .unwrap()
        };
        let off = date(Some(&clock)) - date(None);
        assert!((-3_602..=-3_599).contains(&off), "{off}");
    }
}
