//! A part of 10.0.0.0/8 that this machine does not use.

use std::net::Ipv4Addr;

use anyhow::Context as _;

/// The third numbers of an address that are tried.
const TRIES: u32 = 4096;

/// The last number of the machine's own address in the network of a run.
pub(super) const GATEWAY: u8 = 254;

/// 256 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    second: u8,
    third: u8,
}

impl Subnet {
    /// One that overlaps with none of these routes, as `ip route` prints them. Runs begin to look at
    /// different places.
    pub(super) fn free(routes: &str, begin: u32) -> anyhow::Result<Self> {
        let taken: Vec<(u32, u32)> = routes.lines().filter_map(range).collect();
        let mut tries = (0..TRIES).map(|n| begin.wrapping_mul(263).wrapping_add(n));
        let found = tries.find_map(|n| {
            let [_, _, third, second] = n.to_be_bytes();
            let subnet = Self {
                second: second | 64,
                third,
            };
            let (first, last) = (bits(subnet.host(0)), bits(subnet.host(255)));
            let free = taken.iter().all(|&(from, to)| to < first || last < from);
            free.then_some(subnet)
        });
        found.context(
            "all of 10.0.0.0/8 is routed somewhere; free a part of it, or run without root",
        )
    }

    pub(super) const fn host(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.second, self.third, last)
    }

    /// The same on loopback.
    pub(super) const fn loopback(begin: u32) -> [u8; 2] {
        let [_, _, third, second] = begin.to_be_bytes();
        [second | 64, third]
    }
}

fn bits(address: Ipv4Addr) -> u32 {
    u32::from(address)
}

/// The addresses of a route, unless it is the one for all.
fn range(route: &str) -> Option<(u32, u32)> {
    let kinds = ["local", "broadcast", "unicast", "blackhole", "unreachable"];
    let mut words = route.split_whitespace();
    let target = words.find(|word| !kinds.contains(word))?;
    let (address, length) = target.split_once('/').unwrap_or((target, "32"));
    let address: Ipv4Addr = address.parse().ok()?;
    let length: u32 = length.parse().ok().filter(|&length| length <= 32)?;
    let host_bits = u32::MAX.checked_shr(length).unwrap_or(0);
    let first = bits(address) & !host_bits;
    Some((first, first | host_bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_routed_is_not_taken() {
        let begin = 12_345;
        let free = Subnet::free("default via 10.1.1.1 dev eth0", begin).unwrap();
        let routes = format!(
            "default via 10.1.1.1 dev eth0\n{}/24 dev docker0 scope link",
            free.host(0)
        );
        let next = Subnet::free(&routes, begin).unwrap();
        assert_ne!(free, next);
        let local = format!("local {} dev eth0 table local", next.host(7));
        assert_ne!(Subnet::free(&local, begin).unwrap(), next);
        assert!(Subnet::free("10.0.0.0/8 dev tun0", begin).is_err());
    }
}
