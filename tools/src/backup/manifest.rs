//! What a backup is made of, as written in its manifest. Never: where files lie.
//!
//! ```text
//! { "kind": "tidemark-backup", "format": 1, "id": ID, "cluster_id": ID, "created_at_ns": N, "tool": version,
//!   "shards": [{ "shard", "node_id", "server": version, "format", "applied_index", "applied_term",
//!                "files": [{ "name", "bytes", "digest": XXH3-64, hex }] }],
//!   "digest": XXH3-128, hex, of this document without spaces and with an empty digest }
//! ```
//! Invariant: a manifest that parses has a digest that holds, shards 0 to n without a gap, and file names that are no paths.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemark_client::v1;
use xxhash_rust::xxh3::xxh3_128;

/// What a manifest says it is.
const KIND: &str = "tidemark-backup";
/// Newest format that is written and read here.
const FORMAT: u32 = 1;

/// One backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    kind: String,
    format: u32,
    /// Name of the backup.
    pub(super) id: String,
    /// Where it was taken.
    pub(super) cluster_id: String,
    /// When it began.
    pub(super) created_at_ns: i64,
    /// Version of the program that took it.
    tool: String,
    /// Shard 0 is the catalog.
    pub(super) shards: Vec<ShardCopy>,
    digest: String,
}

/// One shard of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShardCopy {
    /// Its number.
    pub(super) shard: u32,
    /// The node it was copied from.
    pub(super) node_id: u64,
    server: String,
    format: u32,
    /// The log entry it was copied at.
    pub(super) applied_index: u64,
    /// Term of that entry.
    pub(super) applied_term: u64,
    /// Its files.
    pub(super) files: Vec<FileCopy>,
}

/// One file of a shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileCopy {
    /// Its name on the node.
    pub(super) name: String,
    /// Its size.
    pub(super) bytes: u64,
    digest: String,
}

impl FileCopy {
    /// XXH3-64 of its bytes.
    pub(super) fn digest(&self) -> u64 {
        u64::from_str_radix(&self.digest, 16).unwrap_or_default()
    }

    /// Its name among the files of all backups of a folder: the same bytes under the same name are one file.
    pub(super) fn stored_name(&self) -> String {
        format!("{}-{}-{}", self.digest, self.bytes, self.name)
    }

    /// As servers speak of it.
    pub(super) fn to_wire(&self) -> v1::BackupFile {
        v1::BackupFile {
            name: self.name.clone(),
            bytes: self.bytes,
            digest: self.digest(),
        }
    }

    fn is_sound(&self) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name = !self.name.is_empty() && !self.name.starts_with('.') && self.name.chars().all(plain);
        name && self.digest.len() == 16 && self.digest == format!("{:016x}", self.digest())
    }
}

impl From<&v1::BackupFile> for FileCopy {
    fn from(file: &v1::BackupFile) -> Self {
        Self {
            name: file.name.clone(),
            bytes: file.bytes,
            digest: format!("{:016x}", file.digest),
        }
    }
}

impl ShardCopy {
    /// Of a checkpoint.
    pub(super) fn new(shard: u32, taken: &v1::BeginBackupResponse) -> Self {
        Self {
            shard,
            node_id: taken.node_id,
            server: taken.version.clone(),
            format: taken.format,
            applied_index: taken.applied_index,
            applied_term: taken.applied_term,
            files: taken.files.iter().map(FileCopy::from).collect(),
        }
    }

    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Manifest {
    /// Of copied shards.
    pub(super) fn new(id: String, cluster_id: String, created_at_ns: i64, shards: Vec<ShardCopy>) -> Self {
        let mut manifest = Self {
            kind: KIND.to_owned(),
            format: FORMAT,
            id,
            cluster_id,
            created_at_ns,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            shards,
            digest: String::new(),
        };
        manifest.digest = manifest.own_digest();
        manifest
    }

    fn own_digest(&self) -> String {
        let bare = Self {
            digest: String::new(),
            ..self.clone()
        };
        let text = serde_json::to_string(&bare).unwrap_or_default();
        format!("{:032x}", xxh3_128(text.as_bytes()))
    }

    /// As written to disk.
    pub(super) fn to_text(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads a manifest, or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("the manifest is torn: {error}"))?;
        if value.get("kind").and_then(Value::as_str) != Some(KIND) {
            return Err("the manifest is of no Tidemark backup".to_owned());
        }
        match value.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                return Err(format!(
                    "the backup has format {format}, this program reads up to {FORMAT}: use the release that made it"
                ));
            }
            None => return Err("the manifest names no format".to_owned()),
        }
        let manifest: Self =
            serde_json::from_value(value).map_err(|error| format!("the manifest does not parse: {error}"))?;
        if manifest.digest != manifest.own_digest() {
            return Err("the manifest fails its check".to_owned());
        }
        if !manifest
            .shards
            .iter()
            .map(|shard| shard.shard)
            .eq(0..manifest.shards.len() as u32)
        {
            return Err("the manifest leaves out a shard".to_owned());
        }
        match manifest.files().iter().all(|file| file.is_sound()) {
            true => Ok(manifest),
            false => Err("the manifest names a file that cannot be".to_owned()),
        }
    }

    /// Every file once, however many shards have it.
    pub(super) fn files(&self) -> BTreeSet<&FileCopy> {
        self.shards.iter().flat_map(|shard| &shard.files).collect()
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files().iter().map(|file| file.bytes).sum()
    }

    /// Data shards.
    pub(super) fn data_shards(&self) -> u32 {
        (self.shards.len() as u32).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn sample() -> Manifest {
        let copy = |shard, name: &str| {
            let file = v1::BackupFile {
                name: name.into(),
                bytes: 3,
                digest: 0xab,
            };
            let taken = v1::BeginBackupResponse {
                files: vec![file],
                applied_index: 7,
                ..v1::BeginBackupResponse::default()
            };
            ShardCopy::new(shard, &taken)
        };
        Manifest::new(
            "a".into(),
            "c".into(),
            5,
            vec![copy(0, "CURRENT"), copy(1, "000007.sst")],
        )
    }

    #[test]
    fn a_manifest_comes_back_as_written() {
        let manifest = sample();
        assert_eq!(Manifest::parse(&manifest.to_text().unwrap()).unwrap(), manifest);
        assert_eq!(
            manifest.shards[1].files[0].stored_name(),
            "00000000000000ab-3-000007.sst"
        );
    }

    #[test]
    fn what_is_wrong_with_a_manifest_is_said() {
        let text = sample().to_text().unwrap();
        let check = |text: &str, expected: &str| {
            let why = Manifest::parse(text).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        check(&text[..text.len() / 2], "torn");
        check("{}", "no Tidemark backup");
        check(
            &text.replace("\"format\": 1,\n  \"id\"", "\"format\": 2,\n  \"id\""),
            "format 2",
        );
        check(
            &text.replace("\"applied_index\": 7", "\"applied_index\": 8"),
            "fails its check",
        );
        check(
            &text.replace("\"id\": \"a\"", "\"x\": 1, \"id\": \"a\""),
            "does not parse",
        );
        let mut gap = sample();
        gap.shards.remove(0);
        gap.digest = gap.own_digest();
        check(&gap.to_text().unwrap(), "leaves out a shard");
        let mut path = sample();
        path.shards[1].files[0].name = "../x".into();
        path.digest = path.own_digest();
        check(&path.to_text().unwrap(), "a file that cannot be");
    }
}
