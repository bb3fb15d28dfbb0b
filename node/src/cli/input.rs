//! What `seriatim produce` reads: the lines of a file or of standard input, and their keys.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use seriatim_proto::limits::MAX_BATCH_BYTES;
use tokio::sync::mpsc;

/// Lines that are read ahead.
const CHUNK_LINES: usize = 512;
pub(super) const CHUNKS: usize = 8;

/// Opens a file, unpacked if its name ends in .gz, or standard input.
pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Box<dyn BufRead + Send>> {
    let Some(path) = path else {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, io::stdin())));
    };
    let file = File::options().read(true).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    if file.metadata().is_ok_and(|about| about.is_dir()) {
        bail!("{} is a folder; name a file", path.display());
    }
    Ok(if path.extension().is_some_and(|e| e == "gz") {
        let unpacked = flate2::read::MultiGzDecoder::new(file);
        Box::new(BufReader::with_capacity(1 << 18, unpacked))
    } else {
        Box::new(BufReader::with_capacity(1 << 18, file))
    })
}

/// Reads lines in a thread, because standard input blocks. Ends at the end of the input, at an
/// error, or when nobody receives any more.
pub(super) fn read_lines(
    mut input: Box<dyn BufRead + Send>,
    chunks: &mpsc::Sender<io::Result<Vec<Bytes>>>,
) {
    let mut chunk = Vec::with_capacity(CHUNK_LINES);
    loop {
        let end = match read_line(&mut input) {
            Ok(Some(line)) => {
                chunk.push(line);
                false
            }
            Ok(None) => true,
            Err(error) => {
                // The lines before it are as good as they were. The receiver may be gone.
                let _gone = chunks.blocking_send(Ok(chunk));
                let _gone = chunks.blocking_send(Err(error));
                return;
            }
        };
        // What a person types goes out line by line.
        let waited_for = chunks.capacity() == CHUNKS;
        if end || chunk.len() == CHUNK_LINES || waited_for {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_LINES));
            if chunks.blocking_send(Ok(full)).is_err() || end {
                return;
            }
        }
    }
}

/// The next line without its end. One that no batch can hold is cut a little above that size, so
/// that it is refused as a record and not kept in memory.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Bytes>> {
    let limit = MAX_BATCH_BYTES + 2;
    let mut line = Vec::new();
    let read = input
        .by_ref()
        .take(limit as u64)
        .read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        let _line_feed = line.pop();
        if line.last() == Some(&b'\r') {
            let _carriage_return = line.pop();
        }
    }
    Ok(Some(Bytes::from(line)))
}

/// What a JSON line has at a field.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The content of a string, anything else as it is written.
    Text(Bytes),
    Null,
    Missing,
}

/// The field of a line that is one JSON object, or what is wrong with the line.
pub(super) fn field_of(line: &[u8], field: &str) -> Result<Field, String> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let found = json.deserialize_map(FieldOf(field));
    let found = found.and_then(|found| json.end().map(|()| found));
    match found {
        Ok(None) => Ok(Field::Missing),
        Ok(Some(serde_json::Value::Null)) => Ok(Field::Null),
        Ok(Some(serde_json::Value::String(text))) => Ok(Field::Text(Bytes::from(text))),
        Ok(Some(other)) => Ok(Field::Text(Bytes::from(other.to_string()))),
        Err(error) => {
            // Its own line number is that of the text it was given, which is one line.
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or_default();
            Err(format!("{what} at column {}", error.column()))
        }
    }
}

struct FieldOf<'a>(&'a str);

impl<'de> Visitor<'de> for FieldOf<'_> {
    type Value = Option<serde_json::Value>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                let _other = map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_json_lines() {
        let of = |line: &str| field_of(line.as_bytes(), "k");
        let text = |text: &'static str| Ok(Field::Text(Bytes::from_static(text.as_bytes())));
        assert_eq!(of(r#"{"a":[1,{"k":2}],"k":"N1\u0032"}"#), text("N12"));
        assert_eq!(of(r#"{"k":7}"#), text("7"));
        assert_eq!(of(r#"{"\u006b":"x"}"#), text("x"));
        assert_eq!(of(r#"{"k":null}"#), Ok(Field::Null));
        assert_eq!(of("{}"), Ok(Field::Missing));
        for bad in ["", "text", "[1]", r#"{"k":"x""#, r#"{"k":1} x"#] {
            let error = of(bad).unwrap_err();
            assert!(error.contains(" at column "), "{bad}: {error}");
        }
    }

    #[test]
    fn lines_end_as_on_any_system() {
        let lines = |text: &[u8]| {
            let mut input = text;
            std::iter::from_fn(|| read_line(&mut input).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(lines(b"a\nb\r\n\n\rc\r"), ["a", "b", "", "\rc\r"]);
        assert!(lines(b"").is_empty());
        let huge = vec![b'x'; MAX_BATCH_BYTES + 3];
        assert_eq!(lines(&huge)[0].len(), MAX_BATCH_BYTES + 2);
    }
}
