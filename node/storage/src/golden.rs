//! Golden bytes of every format, in `testdata`. To change one on purpose, run the tests once with
//! `SERIATIM_BLESS=1` and look at the difference; files that exist outside keep the old bytes.

use std::path::Path;

/// Compares bytes with a golden file.
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name);
    if std::env::var_os("SERIATIM_BLESS").is_some() {
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let golden = std::fs::read(&path);
    let golden = golden.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(bytes, golden, "the bytes of {name} have changed");
}
