//! The events: departures from New York in January 2013.

use std::io::Read as _;

use anyhow::Context as _;
use bytes::Bytes;
use flate2::read::GzDecoder;

/// Flights of January 2013, one JSON object a line.
const FLIGHTS: &[u8] = include_bytes!("../../data/flights-2013-01.ndjson.gz");

/// One event.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// The aircraft's tail number; a few flights have none.
    pub(super) key: Option<Bytes>,
    pub(super) value: Bytes,
}

pub(super) fn load() -> anyhow::Result<Vec<Event>> {
    let mut text = Vec::new();
    let _bytes = GzDecoder::new(FLIGHTS)
        .read_to_end(&mut text)
        .context("unpack the events")?;
    let text = Bytes::from(text);
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let fields: serde_json::Value = serde_json::from_slice(line)?;
            let key = fields.get("tailnum").and_then(|tail| tail.as_str());
            Ok(Event {
                key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
                value: text.slice_ref(line),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_month_of_events_is_there() {
        let events = super::load().unwrap();
        assert_eq!(events.len(), 27_004);
        assert!(events.iter().filter(|event| event.key.is_some()).count() > 26_000);
    }
}
