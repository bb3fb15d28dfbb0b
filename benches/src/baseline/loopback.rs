//! Throughput of one TCP connection to this machine itself.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use seriatim_runtime::clock;

use crate::report::float;

const LENGTH: Duration = Duration::from_millis(500);
const PIECE_BYTES: usize = 256 << 10;

/// MB/s from one thread to another.
pub(super) fn measure() -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let writer = thread::spawn(move || -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let piece = vec![7; PIECE_BYTES];
        let began = clock::now();
        while began.elapsed() < LENGTH {
            stream.write_all(&piece)?;
        }
        Ok(())
    });
    let (mut stream, _) = listener.accept()?;
    let began = clock::now();
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            read => bytes += u64::try_from(read).unwrap_or_default(),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    match writer.join() {
        Ok(written) => written?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(float(bytes) / 1e6 / seconds)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_loopback_device_carries_bytes() {
        assert!(super::measure().unwrap() > 1.0);
    }
}
