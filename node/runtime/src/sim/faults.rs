//! What breaks the simulated network.

use std::time::Duration;

use super::{SimNet, network::Connection, quality::Quality};

impl SimNet {
    /// Nothing travels from `from` to `to` any more; connections stall and do not break. A name without
    /// its number stands for all hosts of that kind: `c` for `c1`, `c2` and so on.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        let mut state = self.shared.lock();
        let _new = state.cut.insert((from.to_owned(), to.to_owned()));
        state.refresh(Duration::ZERO);
    }

    /// Nothing travels between the two hosts any more.
    pub fn cut(&self, a: &str, b: &str) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Ends what [`SimNet::cut_one_way`] began. What was under way arrives then.
    pub fn mend_one_way(&self, from: &str, to: &str) {
        let at = self.shared.soon(Quality::default());
        let mut state = self.shared.lock();
        let _cut = state.cut.remove(&(from.to_owned(), to.to_owned()));
        state.refresh(at);
    }

    /// Ends every cut.
    pub fn heal(&self) {
        let at = self.shared.soon(Quality::default());
        let mut state = self.shared.lock();
        state.cut.clear();
        state.refresh(at);
    }

    /// From now on every link of the host is like this.
    pub fn set_quality(&self, host: &str, quality: Quality) {
        let at = self.shared.soon(Quality::default());
        let mut state = self.shared.lock();
        let _before = if quality == Quality::default() {
            state.qualities.remove(host)
        } else {
            state.qualities.insert(host.to_owned(), quality)
        };
        state.refresh(at);
    }

    /// What was set last.
    pub fn quality(&self, host: &str) -> Quality {
        let state = self.shared.lock();
        state.qualities.get(host).copied().unwrap_or_default()
    }

    /// Breaks every connection between the two hosts; both ends get an error.
    pub fn reset(&self, a: &str, b: &str) {
        self.between(a, b, |c| {
            let (out, into) = c.of(a);
            for pipe in out.into_iter().chain(into) {
                pipe.lock().reset();
            }
        });
    }

    /// `host` forgets its connections with `peer`, as after a crash or where a box between them has: its
    /// own ends fail, and the peer learns it when it sends something, not before.
    pub fn forget(&self, host: &str, peer: &str) {
        let at = self.shared.soon(Quality::default());
        self.between(host, peer, |c| forget(c, host));
        self.shared.lock().refresh(at);
    }

    /// What `from` sends `to` on the connections that there are arrives so much later.
    pub fn delay_connections(&self, from: &str, to: &str, late: Duration) {
        self.between(from, to, |c| {
            if let (Some(out), _) = c.of(from) {
                out.lock().delay(late);
            }
        });
    }

    /// `from` gives up the connections of which [`SimNet::delay_connections`] has delayed what it sends.
    /// All of that still arrives when it is due.
    pub fn abandon_delayed(&self, from: &str, to: &str) {
        self.between(from, to, |c| {
            if let (Some(out), Some(into)) = c.of(from)
                && out.lock().is_delayed()
            {
                out.lock().abandon_writer();
                into.lock().abandon_reader();
            }
        });
    }

    /// The host loses power: its peers hear nothing more from it, no refusal and no reset.
    pub fn power_off(&self, host: &str) {
        let mut state = self.shared.lock();
        let _new = state.dark.insert(host.to_owned());
        state.refresh(Duration::ZERO);
    }

    /// The host is back, and knows nothing of the connections it had before: whoever sends something on one
    /// of them is told so.
    pub fn power_on(&self, host: &str) {
        let at = self.shared.soon(Quality::default());
        let mut state = self.shared.lock();
        if state.dark.remove(host) {
            for c in state.connections.iter().filter(|c| c.touches(host)) {
                forget(c, host);
            }
            state.refresh(at);
        }
    }

    fn between(&self, a: &str, b: &str, each: impl Fn(&Connection)) {
        let state = self.shared.lock();
        let both = |c: &&Connection| c.touches(a) && c.touches(b);
        state.connections.iter().filter(both).for_each(each);
    }
}

fn forget(connection: &Connection, host: &str) {
    let (out, into) = connection.of(host);
    if let Some(out) = out {
        out.lock().forget_writer();
    }
    if let Some(into) = into {
        into.lock().forget_reader();
    }
}
