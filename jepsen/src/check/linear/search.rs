//! The search for an order.

use std::collections::HashSet;

use super::{Call, Model};

/// Whether there is an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::check) enum Verdict<S> {
    /// There is one.
    Linearizable,
    /// There is none.
    Stuck(Stuck<S>),
    /// None was found among so many states, and not all were looked at.
    Undecided(usize),
}

/// How far any order leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::check) struct Stuck<S> {
    /// The operation that no order has before its completion.
    pub(in crate::check) call: usize,
    /// The longest order that leads here.
    pub(in crate::check) order: Vec<usize>,
    /// The state after it.
    pub(in crate::check) state: S,
}

/// An event: the begin or the end of a call.
#[derive(Debug, Clone, Copy)]
struct Event {
    call: usize,
    is_end: bool,
}

/// Events in the order of time, from which calls are lifted out and put back with their ends. Places are
/// events by number, 1 to n; 0 is the head, and the place after the last.
struct Events {
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// The place of each call's begin, and of its end if it has one.
    places: Vec<(usize, Option<usize>)>,
}

impl Events {
    fn of<A>(calls: &[Call<A>]) -> Self {
        let begins = calls.iter().enumerate();
        let begins = begins.map(|(call, c)| {
            (
                c.from,
                Event {
                    call,
                    is_end: false,
                },
            )
        });
        let ends = calls.iter().enumerate().filter_map(|(call, c)| {
            let event = Event { call, is_end: true };
            Some((c.until?, event))
        });
        let mut timed: Vec<(u64, Event)> = begins.chain(ends).collect();
        timed.sort_by_key(|(at, event)| (*at, event.is_end));
        let count = timed.len();
        let mut places = vec![(0, None); calls.len()];
        for (place, (_, event)) in (1..).zip(&timed) {
            if let Some(of) = places.get_mut(event.call) {
                if event.is_end {
                    of.1 = Some(place);
                } else {
                    of.0 = place;
                }
            }
        }
        Self {
            events: timed.into_iter().map(|(_, event)| event).collect(),
            next: (1..=count).chain([0]).collect(),
            previous: std::iter::once(count).chain(0..count).collect(),
            places,
        }
    }

    fn at(&self, place: usize) -> Option<Event> {
        self.events.get(place.checked_sub(1)?).copied()
    }

    fn after(&self, place: usize) -> usize {
        self.next.get(place).copied().unwrap_or(0)
    }

    fn join(&mut self, left: usize, right: usize) {
        if let Some(next) = self.next.get_mut(left) {
            *next = right;
        }
        if let Some(previous) = self.previous.get_mut(right) {
            *previous = left;
        }
    }

    fn lift(&mut self, call: usize) {
        let (begin, end) = self.places.get(call).copied().unwrap_or_default();
        for place in std::iter::once(begin).chain(end) {
            let left = self.previous.get(place).copied().unwrap_or(0);
            self.join(left, self.after(place));
        }
    }

    /// Puts back what was lifted out last.
    fn put_back(&mut self, call: usize) {
        let (begin, end) = self.places.get(call).copied().unwrap_or_default();
        for place in end.into_iter().chain([begin]) {
            let left = self.previous.get(place).copied().unwrap_or(0);
            let right = self.after(place);
            self.join(left, place);
            self.join(place, right);
        }
    }
}

/// The calls that are in the order so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Taken(Vec<u64>);

impl Taken {
    fn flip(&mut self, call: usize) {
        let (word, bit) = (call / 64, call % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word ^= 1 << bit;
        }
    }

    /// Without what all long histories share: words that are full at the front and empty at the back.
    fn key(&self) -> (usize, Box<[u64]>) {
        let full = self.0.iter().take_while(|word| **word == u64::MAX).count();
        let used = self.0.iter().rposition(|word| *word != 0);
        let used = used.map_or(full, |last| (last + 1).max(full));
        (full, self.0.get(full..used).unwrap_or_default().into())
    }
}

/// A choice that was made.
struct Choice<S> {
    call: usize,
    before: S,
    /// No other choice need be tried in its place.
    free: bool,
}

/// Looks for an order; gives up after `states_max` states.
pub(in crate::check) fn search<M: Model>(
    model: &M,
    calls: &[Call<M::Act>],
    states_max: usize,
) -> Verdict<M::State> {
    let mut events = Events::of(calls);
    let mut state = model.start();
    let mut seen = HashSet::new();
    let mut taken = Taken::default();
    let mut choices: Vec<Choice<M::State>> = Vec::new();
    let mut stuck: Option<(usize, Stuck<M::State>)> = None;
    let step = |state: &M::State, call: usize| model.step(state, &calls.get(call)?.act);
    let is_free = |state: &M::State, call: usize| {
        let call = calls.get(call);
        call.is_some_and(|call| model.is_free(state, &call.act))
    };
    let mut place = free(&events, &state, step, is_free).unwrap_or(events.after(0));
    loop {
        let Some(event) = events.at(place) else {
            // No end is left.
            return Verdict::Linearizable;
        };
        if !event.is_end {
            let Some(next) = step(&state, event.call) else {
                place = events.after(place);
                continue;
            };
            taken.flip(event.call);
            if !seen.insert((taken.key(), next.clone())) {
                taken.flip(event.call);
                place = events.after(place);
                continue;
            }
            if seen.len() > states_max {
                return Verdict::Undecided(seen.len());
            }
            choices.push(Choice {
                call: event.call,
                free: is_free(&state, event.call),
                before: std::mem::replace(&mut state, next),
            });
            events.lift(event.call);
            place = free(&events, &state, step, is_free).unwrap_or(events.after(0));
            continue;
        }
        if stuck.as_ref().is_none_or(|(deepest, _)| *deepest < place) {
            let here = Stuck {
                call: event.call,
                order: choices.iter().map(|choice| choice.call).collect(),
                state: state.clone(),
            };
            stuck = Some((place, here));
        }
        // Back to the last choice that has an alternative.
        loop {
            let Some(choice) = choices.pop() else {
                let (_, stuck) = stuck.unwrap_or_else(|| {
                    let (order, state) = (Vec::new(), state.clone());
                    let call = event.call;
                    (0, Stuck { call, order, state })
                });
                return Verdict::Stuck(stuck);
            };
            events.put_back(choice.call);
            taken.flip(choice.call);
            state = choice.before;
            if !choice.free {
                let (begin, _) = events.places.get(choice.call).copied().unwrap_or_default();
                place = events.after(begin);
                break;
            }
        }
    }
}

/// The place of a call under way that can be taken without a look at others.
fn free<S>(
    events: &Events,
    state: &S,
    step: impl Fn(&S, usize) -> Option<S>,
    is_free: impl Fn(&S, usize) -> bool,
) -> Option<usize> {
    let mut place = events.after(0);
    while let Some(event) = events.at(place).filter(|event| !event.is_end) {
        if is_free(state, event.call) && step(state, event.call).is_some() {
            return Some(place);
        }
        place = events.after(place);
    }
    None
}
