//! Every coverage mark that is declared stands in the code of the nodes, once.
#![expect(clippy::unwrap_used, reason = "the helpers of a test")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use seriatim_runtime::mark::MARKS;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_mark_stands_in_the_code_once() {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node");
    let (mut files, mut places) = (Vec::new(), BTreeMap::new());
    sources(&node, &mut files);
    for file in files.iter().filter(|file| !file.ends_with("mark.rs")) {
        let text = fs::read_to_string(file).unwrap();
        for rest in text.split("hit!(\"").skip(1) {
            let name = rest.split('"').next().unwrap().to_owned();
            *places.entry(name).or_insert(0) += 1;
        }
    }
    for mark in MARKS {
        assert_eq!(places.get(mark.name), Some(&1), "{}", mark.name);
    }
    assert_eq!(places.len(), MARKS.len());
}
