//! Which process made a connection from this machine.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

/// Looks for it among some processes.
#[derive(Debug)]
pub(in crate::live) struct Source {
    /// Nodes and their processes.
    pub(in crate::live) processes: Vec<(u64, u32)>,
}

impl Source {
    /// The node whose process has the end of a connection that has this address.
    pub(in crate::live) fn of(&self, address: SocketAddr) -> Option<u64> {
        let inode = socket(&fs::read_to_string("/proc/net/tcp").ok()?, address)?;
        let name = format!("socket:[{inode}]");
        let has = |pid: u32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd"));
            let mut files = files.into_iter().flatten().flatten();
            files.any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*name))
        };
        let mut processes = self.processes.iter();
        let found = processes.find(|&&(_, pid)| has(pid));
        found.map(|&(node, _)| node)
    }
}

/// The inode of the socket with this local address, in the kernel's table.
fn socket(table: &str, address: SocketAddr) -> Option<u64> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let rows = table.lines().skip(1);
    let mut found = rows.filter_map(|row| {
        let mut fields = row.split_whitespace();
        let local = fields.nth(1)?;
        let inode = fields.nth(7)?.parse().ok()?;
        (parse(local)? == (*address.ip(), address.port())).then_some(inode)
    });
    // That of one that is closing is 0.
    found.find(|&inode| inode != 0)
}

/// An address as the kernel writes it: in the order of bytes of this machine.
fn parse(text: &str) -> Option<(Ipv4Addr, u16)> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?;
    let address = Ipv4Addr::from(address.to_ne_bytes());
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_is_traced_to_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let source = Source {
            processes: vec![(1, 1), (2, std::process::id())],
        };
        assert_eq!(source.of(stream.local_addr().unwrap()), Some(2));
        let nobody = Source {
            processes: vec![(1, u32::MAX)],
        };
        assert_eq!(nobody.of(stream.local_addr().unwrap()), None);
    }
}
