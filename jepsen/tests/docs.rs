//! Pages that name parts of the code, and examples on them, are true.

use std::{collections::BTreeSet, fs, path::PathBuf};

use seriatim_jepsen::{
    check::check,
    history::{Header, History},
};
use seriatim_runtime::mark::MARKS;

fn page(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(name);
    fs::read_to_string(path).expect("a page of the repository")
}

/// The first block of that language.
fn block(page: &str, language: &str) -> String {
    let (_, rest) = page
        .split_once(&format!("```{language}\n"))
        .expect("a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_example_of_a_history_is_read_and_holds() {
    let text = block(&page("docs/histories.md"), "jsonl");
    let history = History::read("example", text.as_bytes()).unwrap();
    assert_eq!(history.ops.len(), 18);
    let verdict = check(&history);
    assert!(verdict.holds, "{verdict}");
    for checker in [
        "lost-write",
        "conditional-append",
        "commit-lost",
        "recovery",
    ] {
        assert!(verdict.finding(checker).unwrap().looked_at > 0, "{checker}");
    }
}

#[test]
fn the_example_is_refused_once_it_loses_a_record() {
    let text = block(&page("docs/histories.md"), "jsonl");
    let text = text.replace("[[0,1],[1,2],[2,3]]", "[[0,1]]");
    let verdict = check(&History::read("example", text.as_bytes()).unwrap());
    assert!(!verdict.finding("lost-write").unwrap().holds, "{verdict}");
}

/// The names in the first column of the table that begins with this column.
fn rows(page: &str, column: &str) -> BTreeSet<String> {
    let (_, table) = page
        .split_once(&format!("\n| {column} |"))
        .expect("a table");
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let names = rows.filter_map(|row| row.strip_prefix("| `")?.split_once('`'));
    names.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn the_page_about_reliability_has_a_row_for_each_checker() {
    let empty = History {
        header: Header::default(),
        ops: Vec::new(),
    };
    let names = check(&empty)
        .checkers
        .into_iter()
        .map(|finding| finding.name);
    let rows = rows(&page("docs/reliability.md"), "checker");
    assert_eq!(rows, names.collect::<BTreeSet<String>>());
}

#[test]
fn the_page_about_reliability_has_a_row_for_each_branch_that_no_seed_entered() {
    let text = page("docs/reliability.md");
    let (_, never) = text.split_once("; never: ").expect("a campaign");
    let (never, _) = never.split_once(" |").expect("its end");
    let never = never
        .split(", ")
        .map(|name| name.trim_matches('`').to_owned());
    let rows = rows(&text, "branch");
    assert_eq!(rows, never.collect::<BTreeSet<String>>());
    for name in rows {
        assert!(MARKS.iter().any(|mark| mark.name == name), "{name}");
    }
}

#[test]
fn every_field_of_an_entry_is_described() {
    let text = page("docs/histories.md");
    let source = page("jepsen/src/history/op.rs");
    let fields = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub "));
    let fields = fields.filter_map(|line| line.split_once(": ").map(|(name, _)| name));
    for field in fields.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')) {
        let name = match field {
            "kind" => "type",
            "action" => "f",
            "is_final" => "final",
            name => name,
        };
        assert!(
            text.contains(&format!("`{name}`")),
            "{field} is not on the page"
        );
    }
}
