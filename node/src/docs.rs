//! Pages of `docs/` that repeat what the code says, held to it.

use std::{fs, path::Path};

/// Fails unless the part of `docs/{page}` between the marks of `name` is `expected`. With
/// `SERIATIM_BLESS=1` it is rewritten instead.
pub(crate) fn check(page: &str, name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (
        format!("<!-- {name}: begin -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the page has no begin mark");
    let (now, after) = rest.split_once(&end).expect("the page has no end mark");
    if now == expected {
        return;
    }
    if std::env::var_os("SERIATIM_BLESS").is_some() {
        fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    panic!(
        "docs/{page} is out of date; run SERIATIM_BLESS=1 cargo test -p seriatim\nexpected:\n\
         {expected}\nfound:\n{now}"
    );
}
