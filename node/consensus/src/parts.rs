//! Snapshots that are larger than one message: sent in parts, put together in memory, then installed.
//!
//! ```text
//! part     group 8, replica 8, transfer 8, total 8, position 8, bytes
//! install  group 8, replica 8, then a snapshot message (`receive.rs`) of which the state is:
//!          transfer 8, total 8, CRC-32 of all bytes 4
//! ```
//! Integers are big-endian. The transfer is a number drawn by the sender; a new one of the same group
//! replaces an unfinished one.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use seriatim_proto::ids::GroupId;
use seriatim_runtime::clock::{self, Instant};

use crate::codec::{self, Malformed};

/// Largest part, and largest snapshot that is sent whole.
pub(crate) const PART_BYTES: usize = 4 << 20;

/// Largest snapshot that can be sent, and the most bytes of unfinished ones on a node.
pub(crate) const SNAPSHOT_BYTES_MAX: usize = 256 << 20;

/// An unfinished snapshot of which nothing came for this long is forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// What stands before the bytes of a part, behind group and replica.
pub(crate) fn part_head(to: &mut BytesMut, transfer: u64, total: usize, position: usize) {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    to.put_u64(transfer);
    to.put_u64(number(total));
    to.put_u64(number(position));
}

/// What stands for the state in the message that ends a transfer.
pub(crate) fn ticket(transfer: u64, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(20);
    out.put_u64(transfer);
    out.put_u64(u64::try_from(data.len()).unwrap_or(u64::MAX));
    out.put_u32(crc32fast::hash(data));
    out.freeze()
}

/// One unfinished snapshot.
struct Incoming {
    transfer: u64,
    total: usize,
    data: BytesMut,
    touched: Instant,
}

/// The unfinished snapshots of a node.
#[derive(Default)]
pub(crate) struct Parts(Mutex<BTreeMap<GroupId, Incoming>>);

impl Parts {
    /// Takes a part in. Parts come in order; the first begins a transfer.
    pub(crate) fn add(&self, group: GroupId, mut body: Bytes) -> Result<(), String> {
        let text = |error: Malformed| error.to_string();
        let transfer = codec::get_u64(&mut body).map_err(text)?;
        let total = codec::get_u64(&mut body).map_err(text)?;
        let position = codec::get_u64(&mut body).map_err(text)?;
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        if total > SNAPSHOT_BYTES_MAX {
            return Err(format!(
                "a snapshot of {total} bytes; at most {SNAPSHOT_BYTES_MAX} are accepted"
            ));
        }
        let mut all = self.0.lock();
        all.retain(|_group, incoming| incoming.touched.elapsed() < FORGET);
        if position == 0 {
            let _old = all.remove(&group);
            let taken: usize = all.values().map(|incoming| incoming.total).sum();
            if taken.saturating_add(total) > SNAPSHOT_BYTES_MAX {
                return Err("other snapshots are being received; try again".to_owned());
            }
            let incoming = Incoming {
                transfer,
                total,
                data: BytesMut::with_capacity(total),
                touched: clock::now(),
            };
            let _none = all.insert(group, incoming);
        }
        let incoming = all
            .get_mut(&group)
            .filter(|incoming| incoming.transfer == transfer && incoming.total == total);
        let incoming = incoming.ok_or("this snapshot is not being received; send it anew")?;
        let fits = usize::try_from(position).ok() == Some(incoming.data.len())
            && incoming.data.len().saturating_add(body.len()) <= incoming.total;
        if !fits {
            return Err("a part of a snapshot came out of order; send it anew".to_owned());
        }
        incoming.data.extend_from_slice(&body);
        incoming.touched = clock::now();
        Ok(())
    }

    /// The whole snapshot that a ticket stands for.
    pub(crate) fn take(&self, group: GroupId, mut ticket: Bytes) -> Result<Bytes, String> {
        let text = |error: Malformed| error.to_string();
        let transfer = codec::get_u64(&mut ticket).map_err(text)?;
        let total = codec::get_u64(&mut ticket).map_err(text)?;
        let crc = ticket
            .try_get_u32()
            .map_err(|_short| "a snapshot without a checksum".to_owned())?;
        let mut all = self.0.lock();
        let whole = all.get(&group).is_some_and(|incoming| {
            incoming.transfer == transfer
                && u64::try_from(incoming.data.len()).ok() == Some(total)
                && incoming.data.len() == incoming.total
        });
        let data = if whole { all.remove(&group) } else { None };
        drop(all);
        let data = data.ok_or("this snapshot was not received whole; send it anew")?;
        if crc32fast::hash(&data.data) != crc {
            return Err("the checksum of a snapshot does not match; send it anew".to_owned());
        }
        Ok(data.data.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn part(transfer: u64, total: usize, position: usize, bytes: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        part_head(&mut out, transfer, total, position);
        out.extend_from_slice(bytes);
        out.freeze()
    }

    #[tokio::test]
    async fn parts_in_order_give_the_whole_once() {
        let parts = Parts::default();
        parts.add(GROUP, part(7, 6, 0, b"abcd")).unwrap();
        assert!(
            parts.take(GROUP, ticket(7, b"abcdef")).is_err(),
            "not whole"
        );
        parts.add(GROUP, part(7, 6, 4, b"ef")).unwrap();
        assert!(parts.take(GROUP, ticket(8, b"abcdef")).is_err(), "another");
        assert_eq!(
            &parts.take(GROUP, ticket(7, b"abcdef")).unwrap()[..],
            b"abcdef"
        );
        assert!(parts.take(GROUP, ticket(7, b"abcdef")).is_err(), "taken");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused() {
        let parts = Parts::default();
        assert!(
            parts.add(GROUP, part(7, 6, 4, b"ef")).is_err(),
            "no first part"
        );
        parts.add(GROUP, part(7, 6, 0, b"abcd")).unwrap();
        for bad in [
            part(7, 6, 3, b"def"),
            part(7, 6, 4, b"efg"),
            part(7, 7, 4, b"ef"),
            part(9, 6, 4, b"ef"),
            Bytes::from_static(b"short"),
        ] {
            assert!(parts.add(GROUP, bad).is_err());
        }
        parts.add(GROUP, part(7, 6, 4, b"eF")).unwrap();
        assert!(parts.take(GROUP, ticket(7, b"abcdef")).is_err(), "checksum");
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_snapshots_are_bounded_and_forgotten() {
        let parts = Parts::default();
        let too_large = part(1, SNAPSHOT_BYTES_MAX + 1, 0, b"a");
        assert!(parts.add(GROUP, too_large).is_err());
        let half = SNAPSHOT_BYTES_MAX / 2 + 1;
        parts.add(GROUP, part(1, half, 0, b"a")).unwrap();
        let other = part(2, half, 0, b"a");
        assert!(parts.add(GroupId(4), other.clone()).is_err(), "no room");
        // The same group may begin anew at any time.
        parts.add(GROUP, part(3, half, 0, b"a")).unwrap();
        clock::sleep(FORGET).await;
        parts.add(GroupId(4), other).unwrap();
    }
}
