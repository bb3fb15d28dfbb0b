//! Writing histories as JSON lines: the header, then an entry a line.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use super::{Header, History, Op};

/// Writes a history line by line.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins a history with its header.
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        serde_json::to_writer(&mut out, header)?;
        out.write_all(b"\n")?;
        Ok(Self { out })
    }

    /// Writes the next entry.
    pub fn push(&mut self, op: &Op) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, op)?;
        self.out.write_all(b"\n")
    }

    /// Hands everything on to the file, and gives it back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

impl History {
    /// Writes everything.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut writer = Writer::new(out, &self.header)?;
        for op in &self.ops {
            writer.push(op)?;
        }
        let _out = writer.finish()?;
        Ok(())
    }

    /// Writes a file of it.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        self.write(BufWriter::new(File::create(path)?))
    }
}
