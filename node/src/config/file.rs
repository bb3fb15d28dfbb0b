//! The configuration file.

use anyhow::bail;

use super::{
    keys::{self, KEYS, Kind, nearest},
    settings::{Settings, Size},
};

/// Reads the text of a file; an unknown key or a value of the wrong kind is an error that says
/// what to write instead.
pub(super) fn parse(text: &str) -> anyhow::Result<Settings> {
    let table: toml::Table = text.parse()?;
    for (name, value) in &table {
        if !is_section(name) {
            check(name, value)?;
            continue;
        }
        let toml::Value::Table(section) = value else {
            bail!("'{name}' is a section: write its keys below a line [{name}]");
        };
        for (key, value) in section {
            check(&format!("{name}.{key}"), value)?;
        }
    }
    Ok(toml::from_str(text)?)
}

fn is_section(name: &str) -> bool {
    KEYS.iter()
        .filter_map(|key| key.name.split_once('.'))
        .any(|(section, _key)| section == name)
}

fn check(name: &str, value: &toml::Value) -> anyhow::Result<()> {
    let Some(key) = keys::find(name) else {
        bail!("unknown key '{name}'; did you mean '{}'?", nearest(name));
    };
    let whole = value.as_integer().is_some_and(|number| number >= 0);
    let fits = match key.kind {
        Kind::Text(..) => value.is_str(),
        Kind::Number(_) => whole,
        Kind::Bytes(_) => whole || value.as_str().is_some_and(|s| s.parse::<Size>().is_ok()),
        Kind::List(..) => value
            .as_array()
            .is_some_and(|list| list.iter().all(toml::Value::is_str)),
    };
    if !fits {
        bail!(
            "{name}: {value} is not allowed; it must be {}",
            key.kind.allowed()
        );
    }
    Ok(())
}
