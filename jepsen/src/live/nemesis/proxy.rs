//! Bad connections between clients and a node.

use crate::live::{schedule::Weather, stage::Stage};

pub(super) fn begin(stage: &Stage, node: u64, weather: Weather) {
    stage.weather(node, Some(weather));
}

pub(super) fn end(stage: &Stage, node: u64) {
    stage.weather(node, None);
}
