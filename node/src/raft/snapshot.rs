//! Checkpoints between nodes: files in pieces, each piece with a CRC32C, each file with a digest. Never: when to send.
//!
//! Invariant: a received file is used only when every piece and the whole file checked out.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidemark_proto::peer::install_snapshot_request::Part;
use tidemark_proto::peer::{InstallSnapshotRequest, SnapshotFile, SnapshotHeader, SnapshotPiece};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Reason, Result};

const PIECE_BYTES: usize = 512 << 10;
const FILES_MAX: usize = 100_000;

/// Names, sizes and digests of the files of a checkpoint, by name.
pub(super) fn list_files(dir: &Path) -> Result<Vec<SnapshotFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::internal)? {
        let entry = entry.map_err(Error::internal)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "LOCK" || name.starts_with("LOG") {
            continue;
        }
        let (bytes, digest) = digest_file(&entry.path()).map_err(Error::internal)?;
        files.push(SnapshotFile { name, bytes, digest });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn digest_file(path: &Path) -> std::io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((bytes, hash.digest()));
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// Reads the files of a checkpoint into messages. Blocking; ends early when the receiver is gone.
pub(super) fn send_files(dir: &Path, header: SnapshotHeader, out: &mpsc::Sender<InstallSnapshotRequest>) -> Result<()> {
    let gone = || Error::new(Reason::Unreachable, "the receiver of the snapshot is gone");
    let files = header.files.clone();
    let message = |part| InstallSnapshotRequest { part: Some(part) };
    out.blocking_send(message(Part::Header(header))).map_err(|_| gone())?;
    for (number, listed) in files.iter().enumerate() {
        let mut file = File::open(dir.join(&listed.name)).map_err(Error::internal)?;
        let mut offset = 0;
        while offset < listed.bytes {
            let mut data = vec![0; PIECE_BYTES.min((listed.bytes - offset) as usize)];
            file.read_exact(&mut data).map_err(Error::internal)?;
            let crc = crc32c::crc32c(&data);
            let length = data.len() as u64;
            let piece = SnapshotPiece { file: number as u32, offset, data: Bytes::from(data), crc };
            out.blocking_send(message(Part::Piece(piece))).map_err(|_| gone())?;
            offset += length;
        }
    }
    Ok(())
}

/// Writes pieces into a folder as they come.
pub(super) struct Receiver {
    dir: PathBuf,
    files: Vec<SnapshotFile>,
    open: Option<(usize, File, Xxh3, u64)>,
    done: usize,
}

fn bad(message: String) -> Error {
    Error::new(Reason::Corruption, format!("snapshot: {message}"))
}

impl Receiver {
    /// For the announced files, into an empty folder.
    pub(super) fn new(dir: PathBuf, files: Vec<SnapshotFile>) -> Result<Receiver> {
        if files.len() > FILES_MAX {
            return Err(bad(format!("{} files", files.len())));
        }
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "." && name != "..";
        if let Some(file) = files.iter().find(|file| !plain(&file.name)) {
            return Err(bad(format!("file name {:?}", file.name)));
        }
        let mut receiver = Receiver { dir, files, open: None, done: 0 };
        receiver.next_file()?;
        Ok(receiver)
    }

    /// Takes one piece. Pieces come in order. Blocking.
    pub(super) fn take(&mut self, piece: SnapshotPiece) -> Result<()> {
        let Some((number, file, hash, written)) = self.open.as_mut() else {
            return Err(bad("a piece after the last file".into()));
        };
        if piece.file as usize != *number || piece.offset != *written {
            return Err(bad(format!("piece {}+{} out of order", piece.file, piece.offset)));
        }
        if crc32c::crc32c(&piece.data) != piece.crc {
            return Err(bad(format!("piece {}+{} fails its check", piece.file, piece.offset)));
        }
        file.write_all(&piece.data).map_err(Error::internal)?;
        hash.update(&piece.data);
        *written += piece.data.len() as u64;
        if *written >= self.files[*number].bytes { self.next_file() } else { Ok(()) }
    }

    /// Closes the file at hand and opens the next one; empty files need no piece.
    fn next_file(&mut self) -> Result<()> {
        if let Some((number, file, hash, written)) = self.open.take() {
            let listed = &self.files[number];
            if written != listed.bytes || hash.digest() != listed.digest {
                return Err(bad(format!("file {:?} fails its check", listed.name)));
            }
            file.sync_all().map_err(Error::internal)?;
            self.done = number + 1;
        }
        while let Some(listed) = self.files.get(self.done) {
            let file = File::create_new(self.dir.join(&listed.name)).map_err(Error::internal)?;
            if listed.bytes > 0 {
                self.open = Some((self.done, file, Xxh3::new(), 0));
                return Ok(());
            }
            file.sync_all().map_err(Error::internal)?;
            self.done += 1;
        }
        Ok(())
    }

    /// The folder, once every file is there and on disk.
    pub(super) fn finish(self) -> Result<PathBuf> {
        if self.done != self.files.len() {
            return Err(bad(format!("{} of {} files came", self.done, self.files.len())));
        }
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(Error::internal)?;
        Ok(self.dir)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn transfer(spoil: impl Fn(&mut SnapshotPiece)) -> Result<Vec<(String, Vec<u8>)>> {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        let big: Vec<u8> = (0..PIECE_BYTES * 2 + 17).map(|i| (i * 31 % 251) as u8).collect();
        for (name, bytes) in [("a.sst", big.as_slice()), ("empty", b""), ("z", b"tail")] {
            fs::write(from.path().join(name), bytes).unwrap();
        }
        let files = list_files(from.path()).unwrap();
        let header = SnapshotHeader { files: files.clone(), ..SnapshotHeader::default() };
        let (out, mut inbox) = mpsc::channel(64);
        send_files(from.path(), header, &out).unwrap();
        drop(out);
        let mut receiver = Receiver::new(to.path().to_path_buf(), files)?;
        while let Some(message) = inbox.blocking_recv() {
            if let Some(Part::Piece(mut piece)) = message.part {
                spoil(&mut piece);
                receiver.take(piece)?;
            }
        }
        let dir = receiver.finish()?;
        let mut got: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
            .collect();
        got.sort();
        assert_eq!(got[0].1, big);
        Ok(got)
    }

    #[test]
    fn files_arrive_whole() {
        let got = transfer(|_| {}).unwrap();
        let sizes: Vec<_> = got.iter().map(|(name, bytes)| (name.as_str(), bytes.len())).collect();
        assert_eq!(sizes, [("a.sst", PIECE_BYTES * 2 + 17), ("empty", 0), ("z", 4)]);
    }

    #[test]
    fn a_flipped_bit_is_refused() {
        let spoiled = transfer(|piece| {
            let mut data = piece.data.to_vec();
            data[0] ^= 1;
            piece.data = data.into();
        });
        assert_eq!(spoiled.unwrap_err().reason(), Reason::Corruption);
    }

    #[test]
    fn a_piece_out_of_order_is_refused() {
        let spoiled = transfer(|piece| piece.offset += 1);
        assert_eq!(spoiled.unwrap_err().reason(), Reason::Corruption);
    }
}
