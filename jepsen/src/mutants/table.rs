//! The table of mutants in `jepsen/mutants/README.md`.

use super::{hunt::Fate, spec::Spec};

/// The line before the table.
const BEGIN: &str = "<!-- table -->";

/// The line behind it.
const END: &str = "<!-- end of the table -->";

/// A row for each mutant, in Markdown.
pub fn markdown(all: &[(Spec, Fate)]) -> String {
    let mut text = String::from(
        "| mutant | bug | breaks | refused by | seed | seeds | virtual s | real s |\n\
         |---|---|---|---|---:|---:|---:|---:|\n",
    );
    for (spec, fate) in all {
        let checkers: Vec<&str> = fate.checkers.iter().map(String::as_str).collect();
        let seed = fate.seed.map_or("-".to_owned(), |seed| seed.to_string());
        text += &format!(
            "| [{name}]({name}.toml) | {} | {} | {} | {seed} | {} | {:.0} | {:.0} |\n",
            spec.about.what,
            spec.about.breaks,
            checkers.join(", "),
            fate.seeds,
            fate.virtual_time.as_secs_f64(),
            fate.took.as_secs_f64(),
            name = spec.name,
        );
    }
    text
}

/// The page with another table. `None`: there is no place for it.
pub fn replace(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_old, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_table_changes() {
        let page = format!("# Mutants\n\n{BEGIN}\nold\n{END}\n\nMore.\n");
        let new = replace(&page, "| new |\n").unwrap();
        assert_eq!(
            new,
            format!("# Mutants\n\n{BEGIN}\n| new |\n{END}\n\nMore.\n")
        );
        assert_eq!(replace(&new, "| new |\n").unwrap(), new);
        assert_eq!(replace("# Mutants", ""), None);
    }
}
