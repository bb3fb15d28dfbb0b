//! Campaigns that stop and go on, and what they come to.

use std::{fs, io::Write as _, path::Path};

use super::{Campaign, Ledger, Run, Terms, of_campaign, of_runs};
use crate::{
    history::Header,
    live::Notes,
    sim::{
        fleet::Done,
        outcome::{Check, Outcome},
    },
};

fn terms(build: &str) -> Terms {
    Terms {
        args: vec!["--seconds".to_owned(), "60".to_owned()],
        build: build.to_owned(),
    }
}

fn done(seed: u64, violations: &[&str], recovered_ms: u64) -> Done {
    let outcome = Outcome {
        seed,
        checks: vec![Check {
            checker: "lost-write".to_owned(),
            looked_at: 1000,
            violations: violations.iter().map(ToString::to_string).collect(),
        }],
        faults: [("kill".to_owned(), 2)].into(),
        marks: [("torn-tail".to_owned(), 1), ("rare".to_owned(), 0)].into(),
        virtual_ms: 60_000,
        recovered_ms: Some(recovered_ms),
        ..Outcome::default()
    };
    Done::told(seed, outcome)
}

fn open(dir: &Path) -> (Ledger, Vec<u64>) {
    let mut seeds = Vec::new();
    let ledger = Ledger::open(dir, &terms("a"), |done| seeds.push(done.seed)).unwrap();
    (ledger, seeds)
}

#[test]
fn a_campaign_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, seeds) = open(dir.path());
    assert!(seeds.is_empty());
    for seed in [4, 2, 9] {
        ledger.add(&done(seed, &[], 1)).unwrap();
    }
    drop(ledger);
    let (ledger, seeds) = open(dir.path());
    assert_eq!(seeds, [4, 2, 9]);
    assert!(ledger.has(9) && !ledger.has(3));
}

#[test]
fn a_line_that_was_cut_short_is_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = open(dir.path());
    ledger.add(&done(1, &[], 1)).unwrap();
    ledger.add(&done(2, &[], 1)).unwrap();
    drop(ledger);
    let path = dir.path().join(Ledger::FILE);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 7]).unwrap();
    let (mut ledger, seeds) = open(dir.path());
    assert_eq!(seeds, [1]);
    ledger.add(&done(2, &[], 1)).unwrap();
    drop(ledger);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn what_is_no_seed_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = open(dir.path());
    ledger.add(&done(1, &[], 1)).unwrap();
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(dir.path().join(Ledger::FILE))
        .unwrap();
    file.write_all(b"{}\n").unwrap();
    let refused = Ledger::open(dir.path(), &terms("a"), |_| {}).unwrap_err();
    assert!(
        format!("{refused:#}").contains("seeds.jsonl:2:"),
        "{refused:#}"
    );
}

#[test]
fn other_terms_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_ledger, _) = open(dir.path());
    let refused = |terms: &Terms| {
        let refused = Ledger::open(dir.path(), terms, |_| {}).unwrap_err();
        format!("{refused:#}")
    };
    assert!(refused(&terms("b")).contains("another build"));
    let other = Terms {
        args: vec!["--seconds".to_owned(), "5".to_owned()],
        ..terms("a")
    };
    assert!(refused(&other).contains("`--seconds 60`, not with `--seconds 5`"));
}

#[test]
fn a_campaign_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = open(dir.path());
    for seed in 0..100 {
        ledger.add(&done(seed, &[], 100 * seed)).unwrap();
    }
    let clean = Campaign::load(dir.path()).unwrap();
    assert!(clean.holds());
    ledger
        .add(&done(100, &["k0@3: 7 | is lost\nfor good"], 50))
        .unwrap();
    let campaign = Campaign::load(dir.path()).unwrap();
    assert!(!campaign.holds());
    assert_eq!(campaign.seeds, Some((0, 100)));
    let recovery = &campaign.recovery;
    assert_eq!(
        (recovery.p50_ms, recovery.p99_ms, recovery.max_ms),
        (4900, 9800, 9900)
    );
    assert_eq!(
        (recovery.slowest[0].seed, recovery.slowest[9].seed),
        (99, 90)
    );

    let text = of_campaign(&campaign);
    for part in [
        "| seeds | 101 (0 to 100) |",
        "| virtual time | 101 minutes |",
        "| faults | 202: kill 202 |",
        "| rare branches reached | 1 of 2; never: `rare` |",
        "median 4.90 s, 99th percentile 9.80 s, longest 9.90 s (seed 99)",
        "| lost-write | 101,000 | 1 |",
        "| 100 | lost-write: k0@3: 7 \\| is lost | `seriatim-jepsen run --sim --seed 100 --seconds 60` |",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let json = serde_json::to_string(&campaign).unwrap();
    assert_eq!(serde_json::from_str::<Campaign>(&json).unwrap(), campaign);
}

#[test]
fn an_empty_campaign_is_not_clean() {
    let dir = tempfile::tempdir().unwrap();
    let (_ledger, _) = open(dir.path());
    assert!(!Campaign::load(dir.path()).unwrap().holds());
}

#[test]
fn runs_stand_in_rows_and_in_a_sum() {
    let dir = tempfile::tempdir().unwrap();
    let header = Header {
        world: "live".to_owned(),
        nodes: 3,
        ..Header::default()
    };
    let verdict = serde_json::json!({
        "holds": true,
        "totals": {
            "ops": 20, "operations": 1234, "acknowledged": 5000, "read": 70_000, "committed": 3,
            "faults": {"kill": 3}, "seconds": 300.4
        },
        "checkers": [
            {"name": "recovery", "promise": "", "holds": true, "looked_at": 1, "violated": 0,
             "figures": {"recovered_seconds": 1.25}}
        ]
    });
    let mut runs = Vec::new();
    for name in ["one", "two"] {
        let run = dir.path().join(name);
        fs::create_dir(&run).unwrap();
        fs::write(
            run.join("history.jsonl"),
            serde_json::to_string(&header).unwrap() + "\n",
        )
        .unwrap();
        let missing = format!("{:#}", Run::load(&run).unwrap_err());
        assert!(missing.contains("verdict.json"), "{missing}");
        fs::write(run.join("verdict.json"), verdict.to_string()).unwrap();
        runs.push(Run::load(&run).unwrap());
    }
    let text = of_runs(&runs);
    let one = "| one | 3 | 300 s | 1,234 | 5,000 | 70,000 | kill 3 | - | 1.25 s | held |";
    assert!(text.contains(one), "{text}");
    assert!(
        text.contains("| all 2 | | 601 s | 2,468 |") && text.contains("2 of 2 held"),
        "{text}"
    );
}

#[test]
fn a_run_tells_which_faults_failed_or_could_not_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let header = serde_json::to_string(&Header::default()).unwrap();
    fs::write(dir.path().join("history.jsonl"), header + "\n").unwrap();
    let verdict = serde_json::json!({
        "holds": true,
        "totals": {
            "ops": 0, "operations": 0, "acknowledged": 0, "read": 0, "committed": 0, "faults": {},
            "seconds": 1.0
        },
        "checkers": []
    });
    fs::write(dir.path().join("verdict.json"), verdict.to_string()).unwrap();
    let mut notes = Notes::default();
    let told = |notes: &Notes| {
        let text = serde_json::to_string(notes).unwrap();
        fs::write(dir.path().join(Notes::FILE), text).unwrap();
        let run = Run::load(dir.path()).unwrap();
        (run.is_clean(), of_runs(&[run]))
    };
    assert!(told(&notes).0);
    notes.left_out.push("clock: no library".to_owned());
    let (clean, text) = told(&notes);
    assert!(
        clean && text.contains("| held (left out: clock: no library) |"),
        "{text}"
    );
    notes.left_out.clear();
    notes.failures.push("kill [1]: it has ended".to_owned());
    let (clean, text) = told(&notes);
    assert!(
        !clean && text.contains("**proves nothing: kill [1]: it has ended**"),
        "{text}"
    );
    assert!(text.contains("0 of 1 held"), "{text}");
}
