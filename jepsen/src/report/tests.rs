//! Pages and tables of small histories, of hostile ones, and of a large one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{
    calls::{calls, faults},
    context::Index,
    lanes::timeline,
    page::page,
    series::series,
    summary::{by_kind, quantile},
    table,
};
use crate::{
    check::{Finding, Totals, Verdict, Violation},
    history::{Action, Fault, FaultPhase, Header, History, Kind, Op, Poll, Process, Read, Send},
};

/// A history in the making: a millisecond from entry to entry.
#[derive(Default)]
struct Story(Vec<Op>);

impl Story {
    fn push(&mut self, process: Process, kind: Kind, action: Action) -> &mut Op {
        let index = u64::try_from(self.0.len()).unwrap();
        self.0.push(Op {
            index,
            time: index * 1_000_000,
            process,
            kind,
            action,
            node: Some(1 + index % 3),
            error: None,
        });
        self.0.last_mut().unwrap()
    }

    fn send(&mut self, process: u64, value: i64, end: Kind, offset: Option<i64>) -> &mut Op {
        let send = |offset| {
            Action::Send(Send {
                key: 0,
                values: vec![value],
                offset,
                ..Send::default()
            })
        };
        let _invoke = self.push(Process::Client(process), Kind::Invoke, send(None));
        self.push(Process::Client(process), end, send(offset))
    }

    fn poll(&mut self, process: u64, records: &[(i64, i64)]) {
        let process = Process::Client(process);
        let _invoke = self.push(process, Kind::Invoke, Action::Poll(Poll::default()));
        let read = Read {
            records: records.to_vec(),
            ..Read::default()
        };
        let poll = Poll {
            reads: [(0, read)].into(),
            ..Poll::default()
        };
        let _ok = self.push(process, Kind::Ok, Action::Poll(poll));
    }

    fn fault(&mut self, id: u64, what: &str, phase: FaultPhase) {
        let fault = Fault {
            id,
            what: what.to_owned(),
            detail: format!("{what} of n1"),
            phase,
        };
        let _entry = self.push(Process::NEMESIS, Kind::Info, Action::Fault(fault));
    }

    fn history(self) -> History {
        History {
            header: Header {
                world: "sim".to_owned(),
                keys: [(0, "events-0".to_owned())].into(),
                nodes: 3,
                seed: Some(17),
                replay: Some("seriatim-jepsen run --sim --seed 17".to_owned()),
                recovery_max_ms: Some(10_000),
                ..Header::default()
            },
            ops: self.0,
        }
    }
}

fn small() -> History {
    let mut story = Story::default();
    let _ok = story.send(1, 100, Kind::Ok, Some(0));
    story.fault(0, "kill", FaultPhase::Begin);
    let _lost = story.send(1, 101, Kind::Ok, Some(1));
    story.send(2, 102, Kind::Info, None).error = Some("timed out".to_owned());
    story.send(3, 103, Kind::Fail, None).error = Some("no leader".to_owned());
    story.fault(0, "kill", FaultPhase::End);
    story.fault(1, "bit-rot", FaultPhase::Once);
    story.poll(4, &[(0, 100), (2, 104)]);
    story.history()
}

fn finding(name: &str, violations: Vec<Violation>) -> Finding {
    Finding {
        name: name.to_owned(),
        promise: format!("what {name} promises"),
        holds: violations.is_empty(),
        looked_at: 12_345,
        violated: u64::try_from(violations.len()).unwrap(),
        violations,
        figures: BTreeMap::new(),
    }
}

fn verdict(checkers: Vec<Finding>) -> Verdict {
    Verdict {
        holds: checkers.iter().all(|finding| finding.holds),
        totals: Totals {
            operations: 5,
            faults: [("kill".to_owned(), 1), ("bit-rot".to_owned(), 1)].into(),
            ..Totals::default()
        },
        checkers,
    }
}

fn lost() -> Verdict {
    let violation = Violation {
        text: "events-0@1: 101 is lost".to_owned(),
        ops: vec![4],
    };
    let mut recovery = finding("recovery", Vec::new());
    let _none = recovery.figures.insert("recovered_seconds".to_owned(), 1.5);
    let mut empty = finding("register", Vec::new());
    empty.looked_at = 0;
    verdict(vec![
        finding("lost-write", vec![violation]),
        recovery,
        empty,
    ])
}

/// What the page's script draws.
fn data(page: &str) -> Json {
    let (_, rest) = page
        .split_once("<script type=\"application/json\" id=\"data\">")
        .unwrap();
    let (json, _) = rest.split_once("</script>").unwrap();
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_page_says_what_was_judged_broken_and_done() {
    let page = page(&small(), &lost()).unwrap();
    for part in [
        "One property was violated",
        "sim run of seed 17",
        "seriatim-jepsen run --sim --seed 17",
        "<td class=\"w\">lost-write</td><td>what lost-write promises</td><td class=\"n\">12,345</td>",
        "nothing to look at",
        "1.50 s",
        "events-0@1: 101 is lost",
        "k0@1 [101]",
        "kill of n1",
        "id=\"latency\"",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    let data = data(&page);
    assert_eq!(data["bars"].as_array().unwrap().len(), 5);
    assert_eq!(data["omitted"], 0);
    assert_eq!(
        data["broken"],
        serde_json::json!([3]),
        "the invocation of the lost send"
    );
    assert_eq!(data["fault_kinds"], serde_json::json!(["bit-rot", "kill"]));
    assert_eq!(data["faults"][0]["end"], 9.0);
    let sends = &data["kinds"]["send"];
    assert_eq!(sends[0][0][1], 2, "two sends were acknowledged");
    assert_eq!(
        (&sends[1][0][1], &sends[2][0][1]),
        (&Json::from(1), &Json::from(1))
    );
}

#[test]
fn a_clean_page_has_no_violations() {
    let page = page(&small(), &verdict(vec![finding("dense", Vec::new())])).unwrap();
    assert!(page.contains("Every property held"));
    assert!(!page.contains("Violations</h2>"));
}

#[test]
fn a_page_needs_nothing_else() {
    let page = page(&small(), &lost()).unwrap();
    for outside in ["http:", "https:", " src=", "url(", "@import", "fetch("] {
        assert!(!page.contains(outside), "the page asks for {outside}");
    }
}

#[test]
fn text_stays_text() {
    let evil = "</script><img src=x onerror=alert(1)>&\"'\u{2028}";
    let mut history = small();
    history.header.world = evil.to_owned();
    history.header.replay = Some(evil.to_owned());
    for op in &mut history.ops {
        op.error = Some(evil.to_owned());
        if let Action::Fault(fault) = &mut op.action {
            (fault.what, fault.detail) = (evil.to_owned(), evil.to_owned());
        }
    }
    let mut verdict = lost();
    for finding in &mut verdict.checkers {
        (finding.name, finding.promise) = (evil.to_owned(), evil.to_owned());
        for violation in &mut finding.violations {
            violation.text = evil.to_owned();
        }
    }
    let _none = verdict.totals.faults.insert(evil.to_owned(), 1);
    let page = page(&history, &verdict).unwrap();
    assert_eq!(
        page.matches("</script>").count(),
        2,
        "those of the page itself"
    );
    assert!(!page.contains("<img"));
    assert!(page.contains("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#39;"));
    let errors = data(&page)["errors"].clone();
    assert_eq!(
        errors,
        serde_json::json!([evil]),
        "what it says is still said"
    );
}

#[test]
fn an_empty_history_has_a_page() {
    let history = Story::default().history();
    let page = page(&history, &verdict(Vec::new())).unwrap();
    assert_eq!(data(&page)["bars"], serde_json::json!([]));
}

#[test]
fn half_a_million_operations_fit_in_five_megabytes() {
    let mut story = Story::default();
    for n in 0..500_000 {
        let process = u64::try_from(n % 40).unwrap();
        let end = match n % 50 {
            0 => Kind::Info,
            1 => Kind::Fail,
            _ => Kind::Ok,
        };
        let last = story.send(process, n, end, Some(n));
        if end != Kind::Ok {
            last.error = Some(format!("an error of its own, the {n}th of them"));
        }
    }
    let history = story.history();
    let page = page(&history, &lost()).unwrap();
    assert!(page.len() < 5 << 20, "{} bytes", page.len());
    let data = data(&page);
    let drawn = data["bars"].as_array().unwrap().len();
    let omitted = usize::try_from(data["omitted"].as_u64().unwrap()).unwrap();
    assert_eq!(drawn + omitted, 500_000);
    let shaded = data["shades"].as_array().unwrap().iter();
    let shaded: u64 = shaded.map(|shade| shade[2].as_u64().unwrap()).sum();
    assert_eq!(shaded, data["omitted"].as_u64().unwrap());
    let bars = data["bars"].as_array().unwrap().iter();
    assert!(
        bars.clone().any(|bar| bar[4] == 4),
        "what shows a violation is drawn"
    );
}

#[test]
fn the_entries_around_a_violation_are_found() {
    let mut story = Story::default();
    for n in 0..100 {
        let _ok = story.send(1, n, Kind::Ok, Some(n));
    }
    story.poll(2, &[(50, 50), (51, 999)]);
    let history = story.history();
    let index = Index::new(&history.ops);
    let around: Vec<u64> = index.around(&[201]).iter().map(|op| op.index).collect();
    for wanted in [201, 200, 199, 101, 103] {
        assert!(around.contains(&wanted), "{wanted} is not in {around:?}");
    }
    assert!(around.len() < 30, "{around:?}");
    assert!(around.is_sorted());
    assert!(index.around(&[7777]).is_empty(), "no such entry");
}

#[test]
fn processes_that_follow_one_another_share_a_lane() {
    let mut story = Story::default();
    let _gone = story.send(1, 1, Kind::Info, None);
    let _next = story.send(2, 2, Kind::Info, None);
    let _last = story.send(3, 3, Kind::Ok, Some(0));
    let history = story.history();
    let calls_ = calls(&history.ops);
    let lanes = timeline(&calls_, &BTreeSet::new(), 100);
    assert_eq!(lanes.lanes, ["send"]);
}

#[test]
fn too_many_lanes_are_joined_by_node() {
    let mut story = Story::default();
    let send = Action::Send(Send::default());
    for process in 0..100 {
        let _open = story.push(Process::Client(process), Kind::Invoke, send.clone());
    }
    let history = story.history();
    let lanes = timeline(&calls(&history.ops), &BTreeSet::new(), 100);
    let named: Vec<&String> = lanes.lanes.iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(named, ["send at n1", "send at n2", "send at n3"]);
    assert!(lanes.lanes.len() <= 18, "{:?}", lanes.lanes);
    assert_eq!(lanes.bars.len(), 100);
}

#[test]
fn stretches_hold_every_operation_once() {
    let history = small();
    let calls = calls(&history.ops);
    let series = series(&calls, history.ops.last().unwrap().time);
    let of = |kind: &str| -> usize {
        let stretches = series.kinds[kind].iter().flatten();
        stretches.map(|stretch| stretch.1).sum()
    };
    assert_eq!((of("all"), of("send"), of("poll")), (5, 4, 1));
    let last = series.kinds["all"].iter().flatten().map(|s| s.0).max();
    assert!(last.unwrap() < series.bins);
}

#[test]
fn operations_are_summed_up_by_kind_and_end() {
    let history = small();
    let ends = by_kind(&calls(&history.ops));
    assert_eq!(
        (ends["send"].ok, ends["send"].fail, ends["send"].info),
        (2, 1, 1)
    );
    assert_eq!(ends["send"].max_us, 1000);
    let times: Vec<u64> = (1..=200).collect();
    assert_eq!(
        [500, 990, 1000].map(|q| quantile(&times, q)),
        [100, 198, 200]
    );
    assert_eq!(quantile(&[], 500), 0);
}

#[test]
fn a_fault_that_is_never_mended_lasts_to_the_end() {
    let mut story = Story::default();
    story.fault(0, "kill", FaultPhase::Begin);
    story.fault(1, "pause", FaultPhase::Begin);
    story.fault(1, "pause", FaultPhase::End);
    let _ok = story.send(1, 1, Kind::Ok, Some(0));
    let history = story.history();
    let spans: Vec<(u64, u64)> = faults(&history.ops)
        .iter()
        .map(|f| (f.start, f.end))
        .collect();
    assert_eq!(spans, [(0, 4_000_000), (1_000_000, 2_000_000)]);
}

#[test]
fn the_table_has_a_row_for_each_checker_and_tells_what_was_broken() {
    let text = table(&lost(), &small().ops);
    let row = |name: &str| {
        text.lines()
            .find(|line| line.contains(name))
            .unwrap()
            .to_owned()
    };
    assert!(row("lost-write").ends_with("VIOLATED"), "{text}");
    assert!(row("recovery").trim_end().ends_with("ok"), "{text}");
    assert!(
        row("register").trim_end().ends_with("nothing to look at"),
        "{text}"
    );
    assert!(
        text.contains("  events-0@1: 101 is lost\n    #4 0.004 s process 1 ok send k0@1 [101] n2"),
        "{text}"
    );
}
