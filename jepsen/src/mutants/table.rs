//! The table of mutants in `jepsen/mutants/README.md`.

use std::collections::BTreeMap;

use super::{hunt::Fate, spec::Spec};

/// The line before the table.
const BEGIN: &str = "<!-- table -->";

/// The line behind it.
const END: &str = "<!-- end of the table -->";

/// Its head.
const HEAD: &str = "| mutant | bug | breaks | refused by | seed | seeds | virtual s | real s |\n\
                    |---|---|---|---|---:|---:|---:|---:|\n";

/// The row of a mutant, in Markdown.
pub fn row(spec: &Spec, fate: &Fate) -> String {
    let checkers: Vec<&str> = fate.checkers.iter().map(String::as_str).collect();
    let checkers = match (fate.seed, fate.expected) {
        (Some(_), true) => checkers.join(", "),
        (Some(_), false) => format!("({})", checkers.join(", ")),
        (None, _) => "nobody".to_owned(),
    };
    let seed = fate.seed.map_or("-".to_owned(), |seed| seed.to_string());
    format!(
        "| [{name}]({name}.toml) | {} | {} | {checkers} | {seed} | {} | {:.0} | {:.0} |",
        spec.about.what,
        spec.about.breaks,
        fate.seeds,
        fate.virtual_time.as_secs_f64(),
        fate.took.as_secs_f64(),
        name = spec.name,
    )
}

/// The page with this row in its table, in place of the one of the same mutant, by name. `None`: there
/// is no place for it.
pub fn with_row(page: &str, row: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (old, after) = rest.split_once(END)?;
    let rows = old.lines().filter(|line| line.starts_with("| ["));
    let mut rows: BTreeMap<&str, &str> = rows.map(|row| (name(row), row)).collect();
    let _former = rows.insert(name(row), row);
    let rows: String = rows.into_values().map(|row| format!("{row}\n")).collect();
    Some(format!("{before}{BEGIN}\n{HEAD}{rows}{END}{after}"))
}

/// What a row begins with: its mutant.
fn name(row: &str) -> &str {
    row.split_once(']').map_or(row, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_place_of_the_former_one_and_nothing_else_changes() {
        let page = format!("# Mutants\n\n{BEGIN}\n{END}\n\nMore.\n");
        let two = with_row(&page, "| [b](b.toml) | one |").unwrap();
        let two = with_row(&two, "| [a](a.toml) | two |").unwrap();
        let table = |rows: &str| format!("# Mutants\n\n{BEGIN}\n{HEAD}{rows}{END}\n\nMore.\n");
        assert_eq!(two, table("| [a](a.toml) | two |\n| [b](b.toml) | one |\n"));
        let again = with_row(&two, "| [b](b.toml) | new |").unwrap();
        assert_eq!(
            again,
            table("| [a](a.toml) | two |\n| [b](b.toml) | new |\n")
        );
        assert_eq!(with_row("# Mutants", "| [b](b.toml) |"), None);
    }

    #[test]
    fn what_nobody_refused_says_so() {
        let spec = Spec {
            name: "m".to_owned(),
            about: toml::from_str(
                "what = \"w\"\nwhere = \"f: g\"\nbreaks = \"P1\"\nexpected = [\"lost-write\"]",
            )
            .unwrap(),
        };
        let mut fate = Fate::default();
        let of = |fate: &Fate| row(&spec, fate);
        assert_eq!(
            of(&fate),
            "| [m](m.toml) | w | P1 | nobody | - | 0 | 0 | 0 |"
        );
        fate.seed = Some(7);
        let _new = fate.checkers.insert("impossible".to_owned());
        assert!(of(&fate).contains("| (impossible) | 7 |"), "{}", of(&fate));
        fate.expected = true;
        assert!(of(&fate).contains("| impossible | 7 |"), "{}", of(&fate));
    }
}
