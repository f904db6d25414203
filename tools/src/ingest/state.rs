//! The progress file: where a later run of the same command goes on. Never: sending, cutting.
//!
//! ```text
//! { "format": 2, "fingerprint": file + mapping + cluster, "producer": P,
//!   "chunk": first byte and line of the oldest chunk not done, "sequence": of its first batch, "done": its batches acknowledged without a gap,
//!   "rest_sequence": next one of producer P.rest, "rests": [batches of this chunk that went again without refused rows, each as it went last],
//!   "rejects_bytes": length of the rejects file, "rows", "records", "points", "rejected": totals of the chunks before }
//! ```
//! Sequences: batch n of the file (from 1) is sequence n of producer P, whatever is refused. A refused batch goes again without the
//! refused rows as the next sequence of producer `P.rest`; that decision is written here *before* it is sent, so that a
//! later run sends exactly the same rows under the same number. A rest that is refused in its turn is nowhere stored: the one
//! that follows takes its place. Format 1, of earlier versions, kept them all and named every row alone; it is still read.
//!
//! Invariant: the file is replaced whole (written beside, synced, renamed), and only ever names what was acknowledged.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lines::Position;

const FORMAT: u32 = 2;
/// Rests that were refused are in it as well, before those that followed.
const FORMAT_OLD: u32 = 1;

/// What a run knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    format: u32,
    /// Of file, mapping and cluster.
    pub(crate) fingerprint: String,
    /// Who sends.
    pub(crate) producer: String,
    /// The oldest chunk that is not done.
    pub(crate) chunk: ChunkState,
    /// Next sequence of the producer of rests.
    pub(crate) rest_sequence: u64,
    /// Batches of that chunk that went again without refused rows; of each the rest that went last.
    pub(crate) rests: Vec<Rest>,
    /// Length of the rejects file.
    pub(crate) rejects_bytes: u64,
    /// Totals of the chunks before.
    pub(crate) totals: Totals,
}

/// Place of a chunk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChunkState {
    /// First byte of text.
    pub(crate) offset: u64,
    /// Lines before it.
    pub(crate) line: u64,
    /// Sequence of its first batch.
    pub(crate) sequence: u64,
    /// Batches acknowledged without a gap.
    pub(crate) done: u64,
}

/// A batch that goes again without refused rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rest {
    /// Sequence of the refused batch.
    pub(crate) batch: u64,
    /// Sequence of what is left; 0 where nothing is.
    pub(crate) sequence: u64,
    /// Everything left out so far.
    pub(crate) refused: Vec<Refused>,
}

/// A record, or one property of it, that the store refused; or several in a row for the same reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// Position among the records of the batch.
    pub(crate) record: u32,
    /// So many records behind it as well.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) more: u32,
    /// Position of the property in the type; none: the record.
    pub(crate) property: Option<u16>,
    /// Reason and message.
    pub(crate) why: String,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Refused {
    /// Positions of the records.
    pub(crate) fn records(&self) -> std::ops::RangeInclusive<u32> {
        self.record..=self.record.saturating_add(self.more)
    }
}

/// Counts of a run.
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Rows of the file.
    pub(crate) rows: u64,
    /// Records stored.
    pub(crate) records: u64,
    /// Points stored.
    pub(crate) points: u64,
    /// Rows rejected.
    pub(crate) rejected: u64,
    /// Values that a later row of the file replaced.
    pub(crate) replaced: u64,
}

impl State {
    /// A new run.
    pub(crate) fn new(fingerprint: String, producer: String, start: Position) -> State {
        let chunk = ChunkState {
            offset: start.offset,
            line: start.line,
            sequence: 1,
            done: 0,
        };
        State {
            format: FORMAT,
            fingerprint,
            producer,
            chunk,
            rest_sequence: 1,
            ..State::default()
        }
    }

    /// Where the oldest chunk that is not done begins.
    pub(crate) fn position(&self) -> Position {
        Position {
            offset: self.chunk.offset,
            line: self.chunk.line,
        }
    }

    /// What an earlier run left; None where there is no file.
    pub(crate) fn load(path: &Path) -> Result<Option<State>, String> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut state: State = serde_json::from_str(&text).map_err(|error| format!("not a progress file: {error}"))?;
        match state.format {
            FORMAT => {}
            FORMAT_OLD => {
                state.format = FORMAT;
                for rest in std::mem::take(&mut state.rests) {
                    state.put_rest(rest);
                }
            }
            other => return Err(format!("format {other} is not known here")),
        }
        Ok(Some(state))
    }

    /// The rest of a batch in place of an earlier one.
    pub(crate) fn put_rest(&mut self, rest: Rest) {
        match self.rests.iter_mut().find(|earlier| earlier.batch == rest.batch) {
            Some(earlier) => *earlier = rest,
            None => self.rests.push(rest),
        }
    }

    /// Replaces the file.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let beside = beside(path);
        let mut file = File::create(&beside)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_data()?;
        fs::rename(&beside, path)
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// What makes two runs the same: the file's length and ends, and everything in `words`, which is all that there is of a stream.
pub(crate) fn fingerprint(path: &str, words: &[impl AsRef<[u8]>]) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    const END_BYTES: u64 = 1 << 16;
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    if path != "-" {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut ends = Vec::new();
        (&file).take(END_BYTES).read_to_end(&mut ends)?;
        file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))?;
        file.take(END_BYTES).read_to_end(&mut ends)?;
        hash.update(&length.to_le_bytes());
        hash.update(&ends);
    }
    for word in words {
        let word = word.as_ref();
        hash.update(&(word.len() as u64).to_le_bytes());
        hash.update(word);
    }
    Ok(format!("{:032x}", hash.digest128()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_saved_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.tidemark-progress");
        assert_eq!(State::load(&path), Ok(None));
        let mut state = State::new("f".into(), "p".into(), Position { offset: 10, line: 1 });
        let refused = vec![Refused {
            record: 4,
            more: 0,
            property: Some(1),
            why: "TEXT_TOO_LONG: no".into(),
        }];
        state.rests.push(Rest {
            batch: 7,
            sequence: 2,
            refused,
        });
        state.save(&path).unwrap();
        state.save(&path).unwrap();
        assert_eq!(State::load(&path), Ok(Some(state)));
        assert!(!beside(&path).exists());
        fs::write(&path, "{}").unwrap();
        assert!(State::load(&path).unwrap_err().contains("not a progress file"));
    }

    #[test]
    fn a_progress_file_of_an_earlier_version_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.tidemark-progress");
        let refused = |record| format!(r#"{{"record":{record},"property":null,"why":"TEXT_TOO_LONG: no"}}"#);
        let text = format!(
            r#"{{"format":1,"fingerprint":"f","producer":"p","chunk":{{"offset":9,"line":1,"sequence":1,"done":2}},"rest_sequence":4,
            "rests":[{{"batch":3,"sequence":1,"refused":[{one}]}},{{"batch":4,"sequence":2,"refused":[{one}]}},
            {{"batch":3,"sequence":3,"refused":[{one},{two}]}}],
            "rejects_bytes":0,"totals":{{"rows":0,"records":0,"points":0,"rejected":0,"replaced":0}}}}"#,
            one = refused(4),
            two = refused(7)
        );
        fs::write(&path, text).unwrap();
        let state = State::load(&path).unwrap().unwrap();
        let rests: Vec<_> = state
            .rests
            .iter()
            .map(|rest| {
                let records: Vec<_> = rest.refused.iter().flat_map(Refused::records).collect();
                (rest.batch, rest.sequence, records)
            })
            .collect();
        assert_eq!(rests, [(3, 3, vec![4, 7]), (4, 2, vec![4])]);
        state.save(&path).unwrap();
        assert_eq!(State::load(&path), Ok(Some(state)));
        fs::write(
            &path,
            fs::read_to_string(&path)
                .unwrap()
                .replace("\"format\":2", "\"format\":3"),
        )
        .unwrap();
        assert!(State::load(&path).unwrap_err().contains("format 3"));
    }

    #[test]
    fn a_fingerprint_sees_the_file_and_the_choices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.csv");
        let path = path.to_str().unwrap();
        fs::write(path, "device,ts,a\n1,2,3\n").unwrap();
        let first = fingerprint(path, &["a", "bc"]).unwrap();
        assert_eq!(fingerprint(path, &["a", "bc"]).unwrap(), first);
        assert_ne!(fingerprint(path, &["ab", "c"]).unwrap(), first);
        fs::write(path, "device,ts,a\n1,2,4\n").unwrap();
        assert_ne!(fingerprint(path, &["a", "bc"]).unwrap(), first);
    }
}
