//! Helpers of the unit tests.

use seriatim_proto::{
    batch::BatchHeader,
    ids::{LeaderEpoch, Offset, ProducerId},
};

/// The header of a batch of `count` records.
pub(crate) fn header(producer: i64, epoch: i16, first: i32, count: u32) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(0),
        length: 49,
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: ProducerId(producer),
        producer_epoch: epoch,
        base_sequence: first,
        record_count: count,
    }
}
