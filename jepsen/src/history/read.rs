//! Reading histories: every line that cannot be is refused with its place and what was expected.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader},
    path::Path,
};

use super::{Header, History, Op, order::Order};

/// Longest line that is read: a run away from a missing line break must not fill the memory.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{name}: cannot be read")]
    Io {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("{name}:{line}: {what}")]
    Line {
        /// The file.
        name: String,
        /// From 1.
        line: u64,
        /// What is wrong and what was expected.
        what: String,
    },
}

impl History {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ReadError> {
        let name = path.display().to_string();
        match OpenOptions::new().read(true).open(path) {
            Ok(file) => Self::read(&name, BufReader::new(file)),
            Err(source) => Err(ReadError::Io { name, source }),
        }
    }

    /// Reads all lines; `name` stands for their source in errors.
    pub fn read(name: &str, from: impl BufRead) -> Result<Self, ReadError> {
        let mut lines = Lines {
            name,
            from,
            number: 0,
            buffer: String::new(),
        };
        let header = match lines.next()? {
            None => return Err(lines.refuse("the file is empty; its first line is the header")),
            Some(text) => header(text),
        };
        let header = header.map_err(|what| lines.refuse(what))?;
        let (mut ops, mut order) = (Vec::new(), Order::new(&header));
        while let Some(text) = lines.next()? {
            if text.trim().is_empty() {
                return Err(lines.refuse("an empty line where an entry was expected"));
            }
            let op = serde_json::from_str::<Op>(text);
            let op =
                op.map_err(|error| lines.refuse(format!("not an entry: {}", plain(&error))))?;
            order.next(&op).map_err(|what| lines.refuse(what))?;
            ops.push(op);
        }
        Ok(Self { header, ops })
    }
}

fn header(text: &str) -> Result<Header, String> {
    let header = serde_json::from_str::<Header>(text)
        .map_err(|error| format!("the first line is not a header: {}", plain(&error)))?;
    if header.format != Header::FORMAT {
        return Err(format!(
            "the format is {:?}, expected {:?}",
            header.format,
            Header::FORMAT
        ));
    }
    if header.version != Header::VERSION {
        return Err(format!(
            "version {} of the format, this program reads version {}",
            header.version,
            Header::VERSION
        ));
    }
    Ok(header)
}

/// What is wrong, without the line that serde counts: it sees one alone.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    let what = text.get(..end).unwrap_or(&text);
    match error.column() {
        0 => what.to_owned(),
        column => format!("{what} (column {column})"),
    }
}

struct Lines<'a, R> {
    name: &'a str,
    from: R,
    number: u64,
    buffer: String,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> Result<Option<&str>, ReadError> {
        self.buffer.clear();
        self.number += 1;
        let mut limited = std::io::Read::take(&mut self.from, LINE_BYTES_MAX);
        match limited.read_line(&mut self.buffer) {
            Ok(0) => Ok(None),
            Ok(_) if limited.limit() == 0 => {
                Err(self.refuse(format!("a line of more than {LINE_BYTES_MAX} bytes")))
            }
            Ok(_) => Ok(Some(self.buffer.trim_end_matches(['\n', '\r']))),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(self.refuse("the line is not UTF-8 text"))
            }
            Err(source) => Err(ReadError::Io {
                name: self.name.to_owned(),
                source,
            }),
        }
    }

    fn refuse(&self, what: impl Into<String>) -> ReadError {
        ReadError::Line {
            name: self.name.to_owned(),
            line: self.number,
            what: what.into(),
        }
    }
}
