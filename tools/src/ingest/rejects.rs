//! The file of rejected rows: line number, reason and the row as it stood in the file. Never: why a row is bad.
//!
//! Invariant: made only when the first row is rejected; rows stand in file order; a resumed run cuts the file back to the
//! length its progress file names, so that no row is listed twice.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use crate::csv_text::csv_line;

/// One rejected row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reject {
    /// Line of the file, from 1.
    pub(crate) line: u64,
    /// Why.
    pub(crate) why: String,
    /// The row.
    pub(crate) raw: String,
}

/// Rejected rows on disk.
#[derive(Debug)]
pub(crate) struct Rejects {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl Rejects {
    /// Goes on after `bytes` of an earlier run's file; 0 begins anew, and takes an old file away.
    pub(crate) fn open(path: PathBuf, bytes: u64) -> io::Result<Rejects> {
        if bytes == 0 {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {
                    return Ok(Rejects {
                        path,
                        file: None,
                        bytes: 0,
                    });
                }
            }
        }
        let file = OpenOptions::new().append(true).open(&path)?;
        file.set_len(bytes)?;
        Ok(Rejects {
            path,
            file: Some(file),
            bytes,
        })
    }

    /// Appends rows and syncs them.
    pub(crate) fn add(&mut self, rejects: &[Reject]) -> io::Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                csv_line(&mut text, &["line".to_owned(), "reason".to_owned(), "row".to_owned()])?;
                none.insert(OpenOptions::new().create(true).append(true).open(&self.path)?)
            }
        };
        for reject in rejects {
            csv_line(
                &mut text,
                &[reject.line.to_string(), reject.why.clone(), reject.raw.clone()],
            )?;
        }
        file.write_all(&text)?;
        file.sync_data()?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Length of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is.
    pub(crate) fn path(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_resumed_run_lists_no_row_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.csv");
        let reject = |line| Reject {
            line,
            why: "no, not so".into(),
            raw: "a,\"b\"".into(),
        };
        let mut rejects = Rejects::open(path.clone(), 0).unwrap();
        assert!(!path.exists());
        rejects.add(&[reject(3)]).unwrap();
        let kept = rejects.bytes();
        rejects.add(&[reject(9)]).unwrap();
        let mut rejects = Rejects::open(path.clone(), kept).unwrap();
        rejects.add(&[reject(5)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "line,reason,row\n3,\"no, not so\",\"a,\"\"b\"\"\"\n5,\"no, not so\",\"a,\"\"b\"\"\"\n"
        );
        assert_eq!(rejects.bytes(), text.len() as u64);
        Rejects::open(path.clone(), 0).unwrap();
        assert!(!path.exists());
    }
}
