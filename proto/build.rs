//! Compiles the `.proto` files with protox, a compiler in pure Rust: no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: &[&str] = &[
    "seriatim/v1/error.proto",
    "seriatim/v1/log.proto",
    "seriatim/v1/metadata.proto",
    "seriatim/v1/admin.proto",
    "seriatim/v1/group.proto",
    "seriatim/internal/v1/lane.proto",
    "seriatim/internal/v1/cluster.proto",
    "seriatim/internal/v1/groups.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
