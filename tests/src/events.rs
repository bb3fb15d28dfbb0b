//! Real events: departures from New York in January 2013, one JSON object a line.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// The events that are part of the repository.
const FLIGHTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../node/data/flights-2013-01.ndjson.gz"
);

/// The packed file, as `seriatim produce --file` reads it.
pub fn file() -> PathBuf {
    PathBuf::from(FLIGHTS)
}

/// The lines of a file of events.
///
/// # Errors
/// If it cannot be read.
pub fn lines(file: &Path) -> anyhow::Result<Vec<String>> {
    let packed = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let mut text = String::new();
    let _bytes = flate2::read::MultiGzDecoder::new(packed.as_slice()).read_to_string(&mut text)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The aircraft of an event, by which it is keyed; a few have none.
///
/// # Errors
/// If the line is no JSON.
pub fn tailnum(line: &str) -> anyhow::Result<Option<String>> {
    let event: serde_json::Value = serde_json::from_str(line)?;
    Ok(event
        .get("tailnum")
        .and_then(|tail| tail.as_str())
        .map(str::to_owned))
}
