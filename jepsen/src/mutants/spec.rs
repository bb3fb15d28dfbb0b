//! The description of a planted bug, as it stands in `jepsen/mutants`.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// The folder of descriptions, from the repository's root.
pub const FOLDER: &str = "jepsen/mutants";

/// A planted bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name: that of its file, and that on the command line.
    pub name: String,
    /// What is known of it.
    pub about: About,
}

/// The content of its file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The mistake, in a sentence.
    pub what: String,
    /// File and function that it is in.
    #[serde(rename = "where")]
    pub place: String,
    /// The promise that it breaks, `P1` to `P7`.
    pub breaks: String,
    /// Checkers that are expected to refuse it: any of these.
    pub expected: BTreeSet<String>,
    /// What the simulator is told besides the seed; files are named from the repository's root.
    #[serde(default)]
    pub options: Vec<String>,
    /// The first seed that is tried.
    #[serde(default)]
    pub first_seed: u64,
}

/// Why descriptions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// No folder of them was found.
    #[error("there is no {FOLDER} here nor above: run this inside of the repository")]
    NoRepository,
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file says something else than it should.
    #[error("{} is no description of a mutant", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A name that no file has.
    #[error("there is no mutant '{name}'; there are: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// All there are.
        known: String,
    },
}

/// The root of the repository that `from` lies in.
pub fn repository(from: &Path) -> Result<PathBuf, SpecError> {
    let mut ancestors = from.ancestors();
    let root = ancestors.find(|dir| dir.join(FOLDER).is_dir());
    root.map(Path::to_owned).ok_or(SpecError::NoRepository)
}

/// The mutants of these names, or all of them, in the order of their names.
pub fn read(root: &Path, names: &[String]) -> Result<Vec<Spec>, SpecError> {
    let folder = root.join(FOLDER);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SpecError::Read { path, source }
    };
    let mut all = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
        let path = entry.map_err(failed(&folder))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        let about = toml::from_str(&text).map_err(|source| SpecError::Malformed {
            path: path.clone(),
            source: Box::new(source),
        })?;
        let name = path.file_stem().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        all.push(Spec { name, about });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let has = |name: &String| all.iter().any(|spec| spec.name == *name);
    if let Some(name) = names.iter().find(|name| !has(name)) {
        let known: Vec<&str> = all.iter().map(|spec| spec.name.as_str()).collect();
        return Err(SpecError::Unknown {
            name: name.clone(),
            known: known.join(", "),
        });
    }
    if !names.is_empty() {
        all.retain(|spec| names.contains(&spec.name));
    }
    Ok(all)
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.about.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        repository(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn every_mutant_of_the_code_is_described_and_no_other() {
        let code = fs::read_to_string(root().join("node/runtime/src/mutant.rs")).unwrap();
        let lines = code.lines().map(str::trim);
        let planted: BTreeSet<&str> = lines
            .filter_map(|line| line.strip_suffix("\",")?.split_once(" = \"")?.1.into())
            .collect();
        let all = read(&root(), &[]).unwrap();
        let described: BTreeSet<&str> = all.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(described, planted);
        assert!(all.len() >= 24, "{} are too few", all.len());
    }

    #[test]
    fn descriptions_name_what_there_is() {
        for Spec { name, about } in read(&root(), &[]).unwrap() {
            let promise = about.breaks.strip_prefix('P').map(str::parse::<u8>);
            assert!(matches!(promise, Some(Ok(1..=7))), "{name}");
            assert!(!about.expected.is_empty(), "{name}");
            let (file, function) = about.place.split_once(": ").expect(&name);
            let code = fs::read_to_string(root().join(file)).expect(&name);
            let function = function.rsplit("::").next().unwrap();
            assert!(
                code.contains(&format!("fn {function}")),
                "{name}: {function}"
            );
            let pascal: String = name.split('-').map(capital).collect();
            assert!(
                code.contains(&format!("Mutant::{pascal}")),
                "{name}: {pascal}"
            );
        }
    }

    fn capital(word: &str) -> String {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    }

    #[test]
    fn names_that_are_not_there_are_refused_with_those_that_are() {
        let error = read(&root(), &["none".to_owned()]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("'none'") && text.contains("ack-before-fsync"),
            "{text}"
        );
        let outside = repository(Path::new("/")).unwrap_err();
        assert!(outside.to_string().contains("inside of the repository"));
    }
}
