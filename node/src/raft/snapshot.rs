//! The sending end of a checkpoint: files in pieces, each piece with a CRC32C, each file with a digest. Never: when to
//! send, or what the receiver does with it (see `receiver`).
//!
//! Invariant: what the receiver has is not read again, and a piece leaves only when the throttle lets it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidemark_proto::peer::install_snapshot_request::Part;
use tidemark_proto::peer::{InstallSnapshotRequest, SnapshotFile, SnapshotPiece};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::Xxh3;

use super::transfers::Running;
use crate::error::{Error, Reason, Result};
use crate::peers::Throttle;

pub(super) const PIECE_BYTES: usize = 512 << 10;

/// Digests of table files, which never change, by name and size.
pub(super) type Digests = HashMap<(String, u64), u64>;

/// Names, sizes and digests of the files of a checkpoint, by name. `known` saves reading table files again.
pub(super) fn list_files(dir: &Path, known: &mut Digests) -> Result<Vec<SnapshotFile>> {
    let mut files = Vec::new();
    let mut seen = Digests::new();
    for entry in fs::read_dir(dir).map_err(Error::internal)? {
        let entry = entry.map_err(Error::internal)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "LOCK" || name.starts_with("LOG") {
            continue;
        }
        let size = entry.metadata().map_err(Error::internal)?.len();
        let cached = known.get(&(name.clone(), size)).filter(|_| name.ends_with(".sst"));
        let (bytes, digest) = match cached {
            Some(digest) => (size, *digest),
            None => digest_file(&entry.path()).map_err(Error::internal)?,
        };
        if name.ends_with(".sst") {
            seen.insert((name.clone(), bytes), digest);
        }
        files.push(SnapshotFile { name, bytes, digest });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    *known = seen;
    Ok(files)
}

/// Size and digest of a file.
pub(super) fn digest_file(path: &Path) -> std::io::Result<(u64, u64)> {
    let mut hash = Xxh3::new();
    let bytes = hash_file(path, &mut hash)?;
    Ok((bytes, hash.digest()))
}

/// Feeds a file to a hash; returns its size.
pub(super) fn hash_file(path: &Path, hash: &mut Xxh3) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(bytes);
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// Reads what the receiver lacks into messages, each when the throttle that holds by then lets it. Blocking; ends early
/// when the receiver is gone.
pub(super) fn send_files(
    dir: &Path,
    files: &[SnapshotFile],
    have: &[u64],
    throttle: &dyn Fn() -> Arc<Throttle>,
    progress: &Running,
    out: &mpsc::Sender<InstallSnapshotRequest>,
) -> Result<()> {
    let gone = || Error::new(Reason::Unreachable, "the receiver of the snapshot is gone");
    for (number, (listed, have)) in files.iter().zip(have).enumerate() {
        let mut offset = *have;
        if offset >= listed.bytes {
            continue;
        }
        let mut file = File::open(dir.join(&listed.name)).map_err(Error::internal)?;
        file.seek(SeekFrom::Start(offset)).map_err(Error::internal)?;
        while offset < listed.bytes {
            let mut data = vec![0; PIECE_BYTES.min((listed.bytes - offset) as usize)];
            let length = data.len() as u64;
            if !throttle().take(length, || out.is_closed()) {
                return Err(gone());
            }
            file.read_exact(&mut data).map_err(Error::internal)?;
            let crc = crc32c::crc32c(&data);
            let piece = SnapshotPiece {
                file: number as u32,
                offset,
                data: Bytes::from(data),
                crc,
            };
            let part = Some(Part::Piece(piece));
            out.blocking_send(InstallSnapshotRequest { part }).map_err(|_| gone())?;
            progress.sent(length);
            offset += length;
        }
    }
    Ok(())
}
