//! `docs/errors.md` lists every error code.

use std::collections::BTreeMap;

use seriatim_proto::error::ErrorCode;

#[test]
fn every_code_is_explained() {
    let page = include_str!("../../docs/errors.md");
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `ERROR_CODE_"));
    let explained: BTreeMap<String, (String, String)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [_, name, number, meaning, retryable, maybe, advice, _] = cells[..] else {
                panic!("{row}")
            };
            assert!(!meaning.is_empty() && !advice.is_empty(), "{row}");
            assert!(["yes", "no"].contains(&maybe), "{row}");
            let name = name.trim_matches('`').to_owned();
            (name, (number.to_owned(), retryable.to_owned()))
        })
        .collect();
    let codes = (0..1000).filter_map(|number| ErrorCode::try_from(number).ok());
    let known: BTreeMap<String, (String, String)> = codes
        .map(|code| {
            let retryable = if code.is_retryable() { "yes" } else { "no" };
            let number = i32::from(code).to_string();
            (
                code.as_str_name().to_owned(),
                (number, retryable.to_owned()),
            )
        })
        .collect();
    assert_eq!(explained, known);
}
