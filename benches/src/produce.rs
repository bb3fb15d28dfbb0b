//! `produce`: from the intended send time to the acknowledgement.

use seriatim_runtime::{clock, task};

use crate::{
    field::Field,
    load::{Orders, send_all},
    output,
    plan::Load,
    report::Measured,
    window::Window,
};

pub(crate) async fn run(load: &Load, field: &Field) -> anyhow::Result<Measured> {
    let window = Window::new(clock::now(), load.warmup, load.seconds);
    let orders = Orders {
        topic: field.topic.clone(),
        window,
        records: None,
        rate: load.rate,
        stamped: false,
    };
    let cost = task::spawn("meter", field.meter.clone().over(window));
    let bar = output::progress("produce");
    let mut sending = send_all(load, &field.clients, &orders, &bar).await?;
    bar.finish_and_clear();
    sending.tally.latency.merge(&sending.unsent);
    Ok(Measured {
        tally: sending.tally,
        unsent: sending.unsent.count(),
        length: window.length(),
        cost: cost.await?,
        read: None,
    })
}
