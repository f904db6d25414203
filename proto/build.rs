//! Compiles the `.proto` files in process (no protoc) and keeps the descriptor set for reflection.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: &[&str] = &[
    "tidemark/v1/data.proto",
    "tidemark/v1/registry.proto",
    "tidemark/v1/ingest.proto",
    "tidemark/v1/join.proto",
    "tidemark/v1/query.proto",
    "tidemark/v1/alert.proto",
    "tidemark/v1/subscribe.proto",
    "tidemark/v1/cluster.proto",
    "tidemark/v1/backup.proto",
    "tidemark/peer/v1/command.proto",
    "tidemark/peer/v1/raft.proto",
    "tidemark/peer/v1/peer.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=tidemark");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Only the packages that clients may see are offered by reflection.
    let mut public = descriptors.clone();
    public.file.retain(|file| !file.package().starts_with("tidemark.peer"));
    fs::write(out.join("public_descriptors.bin"), public.encode_to_vec())?;
    let mut queries = descriptors.clone();
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    // The service of questions once more, for servers, with answers that hold parts encoded before.
    queries.file.retain(|file| file.name() == "tidemark/v1/query.proto");
    let encoded = out.join("encoded");
    fs::create_dir_all(&encoded)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".tidemark.v1", "crate::v1")
        .extern_path(".tidemark.v1.GetLatestResponse", "crate::encoded::GetLatestResponse")
        .extern_path(".tidemark.v1.QueryRangeResponse", "crate::encoded::QueryRangeResponse")
        .out_dir(encoded)
        .compile_fds(queries)?;
    Ok(())
}
