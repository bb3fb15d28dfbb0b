//! `docs/configuration.md` says what the code does.

use clap::{Args as _, Command};

use super::{Settings, keys::KEYS};

/// The table of the reference, made from the code.
fn table() -> String {
    let command = Settings::augment_args(Command::new("start"));
    let mut text = String::from(
        "| key | meaning | default | allowed | flag | environment |\n|---|---|---|---|---|---|\n",
    );
    for key in KEYS {
        let arg = command.get_arguments().find(|arg| arg.get_id() == key.name);
        let arg = arg.unwrap_or_else(|| panic!("{} has no flag", key.name));
        let meaning = arg.get_help().unwrap().to_string();
        let flag = arg.get_long().unwrap();
        let env = arg.get_env().unwrap().to_str().unwrap();
        let (default, allowed) = (key.kind.default(), key.kind.allowed());
        let allowed = allowed.replace(", or text such as \"64MiB\"", "");
        text += &format!(
            "| `{}` | {meaning} | {default} | {allowed} | `--{flag}` | `{env}` |\n",
            key.name
        );
    }
    text
}

#[test]
fn every_flag_is_a_key() {
    let command = Settings::augment_args(Command::new("start"));
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        assert!(super::keys::find(id).is_some(), "{id} is no key");
        // One name in three spellings.
        let dashed = id.replace(['.', '_'], "-");
        assert_eq!(arg.get_long(), Some(dashed.as_str()));
        let env = format!("SERIATIM_{}", dashed.replace('-', "_").to_uppercase());
        assert_eq!(arg.get_env().unwrap().to_str(), Some(env.as_str()));
    }
}

#[test]
fn the_reference_is_up_to_date() {
    crate::docs::check("configuration.md", "keys", &table());
}
