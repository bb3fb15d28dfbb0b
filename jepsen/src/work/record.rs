//! A value as the bytes of a record, and back.

use seriatim_client::{ConsumedBatch, ProducerRecord};
use seriatim_runtime::{clock, rng};

use crate::history::Value;

/// Most bytes that pad a usual record.
const PADDING: u64 = 400;

/// Most bytes that pad a large one, of which there is one in [`LARGE`].
const PADDING_LARGE: u64 = 40_000;

/// See [`PADDING_LARGE`].
const LARGE: u64 = 60;

/// A record of some length that carries `value`.
pub(super) fn record(topic: &str, value: Value) -> ProducerRecord {
    let most = if super::one_in(LARGE) {
        PADDING_LARGE
    } else {
        PADDING
    };
    let padding = usize::try_from(rng::below(most)).unwrap_or_default();
    let mut text = format!("{value} ");
    text.extend(std::iter::repeat_n('.', padding));
    ProducerRecord::new(topic, text).timestamp_ms(clock::wall_ms())
}

/// The value that a record carries; why it carries none.
pub(super) fn value_of(bytes: Option<&[u8]>) -> Result<Value, String> {
    let bytes = bytes.ok_or("it is null")?;
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let (value, padding) = text.split_once(' ').ok_or("it has no end")?;
    if padding.bytes().any(|byte| byte != b'.') {
        return Err("its padding is damaged".to_owned());
    }
    value.parse().map_err(|e| format!("'{value}': {e}"))
}

/// Offsets and values of a batch that a client handed over.
pub(super) fn values_of(batch: &ConsumedBatch) -> Result<Vec<(i64, Value)>, String> {
    let records = batch.records().map_err(|e| e.to_string())?;
    let mut values = Vec::with_capacity(batch.record_count());
    for record in records {
        let record = record.map_err(|e| e.to_string())?;
        let offset = record.offset.0;
        let value = value_of(record.value.as_deref());
        values.push((offset, value.map_err(|why| format!("at {offset}: {why}"))?));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_and_damage_shows() {
        let bytes = record("t", 42).value.unwrap();
        assert_eq!(value_of(Some(&bytes)), Ok(42));
        assert_eq!(value_of(Some(b"-7 ..")), Ok(-7));
        for damaged in [&b"42"[..], b"42 ..x.", b"x ..", b"\xff "] {
            assert!(value_of(Some(damaged)).is_err(), "{damaged:?}");
        }
        assert!(value_of(None).is_err());
    }
}
