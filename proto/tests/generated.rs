//! The committed wire types are what `agentca.proto` says.

use std::path::Path;

#[test]
fn generated_code_is_what_the_proto_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let files = protox::compile(["agentca.proto"], [root]).unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    let made = std::fs::read_to_string(out.path().join("agentca.v1.rs")).unwrap();
    let committed = root.join("src/generated/agentca.v1.rs");
    if std::env::var_os("AGENTCA_REGENERATE").is_some() {
        std::fs::write(&committed, made).unwrap();
        return;
    }
    assert_eq!(
        std::fs::read_to_string(&committed).unwrap(),
        made,
        "run AGENTCA_REGENERATE=1 cargo test -p agentca-proto"
    );
}
