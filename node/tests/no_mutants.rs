//! The planted bugs of the fault injection are in no build that could be taken for a release.

use std::{fs, path::PathBuf, process::Command};

use memchr::memmem;

fn source() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("runtime/src/mutant.rs")
}

/// The mutants' names on the command line and in the code.
fn names() -> Vec<String> {
    let code = fs::read_to_string(source()).expect("read the mutants");
    let pairs = code.lines().filter_map(|line| {
        let (variant, name) = line.trim().strip_suffix("\",")?.split_once(" = \"")?;
        Some([variant.to_owned(), name.to_owned()])
    });
    pairs.flatten().collect()
}

#[test]
fn the_binary_has_no_mutant_by_name() {
    let names = names();
    assert!(names.len() >= 48, "{names:?}");
    let binary = fs::read(env!("CARGO_BIN_EXE_seriatim")).unwrap();
    let has = |text: &str| memmem::find(&binary, text.as_bytes()).is_some();
    // So that it is known to be found where it is.
    assert!(has("cut a torn tail"));
    let found: Vec<_> = names.iter().filter(|name| has(name)).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// Whether the compiler takes the mutants, and what it says.
fn compiles(features: &[&str], debug_assertions: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("make a folder");
    let mut rustc = Command::new(option_env!("RUSTC").unwrap_or("rustc"));
    let _command = rustc
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
        .args(["-C", "opt-level=3", "-C"])
        .arg(format!("debug-assertions={debug_assertions}"))
        .args(features.iter().flat_map(|name| ["--cfg", name]))
        .arg("--out-dir")
        .arg(folder.path())
        .arg(source());
    let output = rustc.output().expect("run rustc");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

#[test]
fn a_release_build_refuses_the_feature() {
    let feature = ["feature=\"mutants\""];
    let (compiled, said) = compiles(&feature, "off");
    assert!(
        !compiled && said.contains("refused in a build without debug assertions"),
        "{said}"
    );
    let (compiled, said) = compiles(&feature, "on");
    assert!(compiled, "{said}");
    let (compiled, said) = compiles(&[], "off");
    assert!(compiled, "{said}");
}

/// What the test above says of builds without debug assertions is true of releases.
#[test]
fn releases_have_no_debug_assertions() {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
    let release = manifest["profile"]["release"].as_table().unwrap();
    assert!(!release.contains_key("debug-assertions"));
    // Nor has a single crate of one, as the profile of the mutants gives to the one with the switch.
    assert!(!release.contains_key("package"));
    let mutants = manifest["profile"]["mutants"].as_table().unwrap();
    let switch = &mutants["package"]["seriatim-runtime"]["debug-assertions"];
    assert_eq!(switch.as_bool(), Some(true));
}
