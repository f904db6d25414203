//! The bundle: a tar of JSON texts, compressed with zstd. Never: a stored value, a device id, a token or a key.
//!
//! ```text
//! README.txt      what this is
//! status.json     as `tidemark cluster status -o json`
//! jobs.json       as `tidemark job list -o json`, with the moves of every job
//! doctor.json     as `tidemark doctor -o json`
//! versions.json   of this command and of every node
//! ```
//!
//! Invariant: a file that is there already is not touched; what is written is read back by any tar and zstd.

use std::fs::File;
use std::io::Write;

use tidemark_client::v1;

use super::checks::Check;
use super::{print_checks, versions};
use crate::cli::now_ns;
use crate::failure::{Failure, Outcome};
use crate::job::{JOB_COLUMNS, MOVE_COLUMNS, job_cells, move_cells};
use crate::output::{Cell, Format, Printer, Style};
use crate::status;
use crate::time::TsFormat;

/// The files of a bundle.
pub(super) const CONTENTS: [&str; 5] = ["README.txt", "status.json", "jobs.json", "doctor.json", "versions.json"];

const README: &str = "\
What a Tidemark cluster said of itself when this was written, for a report of a defect.
Inside: addresses, zones and versions of nodes, states and sizes of shards, jobs, the checks of `tidemark doctor`.
Not inside: points, device ids, device types, tokens, keys.
Read it before you pass it on: tar --zstd -xf FILE
";

const LEVEL: i32 = 3;

/// Writes a bundle to a new file.
pub(super) fn write(
    path: &str,
    status: &v1::StatusResponse,
    jobs: Result<&[v1::Job], String>,
    checks: &[Check],
) -> Outcome {
    let texts = [
        README.as_bytes().to_vec(),
        status_text(status)?,
        jobs_text(jobs)?,
        text("doctor", |printer| print_checks(printer, checks, false))?,
        versions_text(status)?,
    ];
    let file = File::create_new(path).map_err(|error| Failure::file("create", path, &error))?;
    pack(file, &texts).map_err(|error| Failure::file("write", path, &error))
}

fn pack(file: File, texts: &[Vec<u8>; CONTENTS.len()]) -> std::io::Result<()> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(file, LEVEL)?);
    let seconds = u64::try_from(now_ns() / 1_000_000_000).unwrap_or(0);
    for (name, text) in CONTENTS.iter().zip(texts) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(seconds);
        tar.append_data(&mut header, format!("tidemark-doctor/{name}"), text.as_slice())?;
    }
    let mut file = tar.into_inner()?.finish()?;
    file.flush()?;
    file.sync_all()
}

fn text(kind: &'static str, print: impl FnOnce(Printer<&mut Vec<u8>>) -> Outcome) -> Outcome<Vec<u8>> {
    let style = Style {
        format: Format::Json,
        ts: TsFormat::Rfc3339,
    };
    let mut out = Vec::new();
    print(Printer::new(&mut out, style, kind))?;
    Ok(out)
}

fn status_text(status: &v1::StatusResponse) -> Outcome<Vec<u8>> {
    text("cluster_status", |printer| status::print_full(printer, status))
}

fn jobs_text(jobs: Result<&[v1::Job], String>) -> Outcome<Vec<u8>> {
    text("job_list", |mut printer| {
        let jobs = match jobs {
            Ok(jobs) => jobs,
            Err(error) => {
                printer.head("error", Cell::Text(error))?;
                &[]
            }
        };
        printer.section("jobs", &JOB_COLUMNS)?;
        for job in jobs {
            printer.row(job_cells(job))?;
        }
        let columns = ["job"].into_iter().chain(MOVE_COLUMNS).collect::<Vec<_>>();
        printer.section("moves", &columns)?;
        for job in jobs {
            for one in &job.moves {
                let mut cells = vec![Cell::Uint(job.id)];
                cells.extend(move_cells(one));
                printer.row(cells)?;
            }
        }
        printer.finish(&[])
    })
}

fn versions_text(status: &v1::StatusResponse) -> Outcome<Vec<u8>> {
    text("version", |mut printer| {
        printer.section("versions", &["program", "version"])?;
        for (program, version) in versions(status) {
            printer.row(vec![Cell::Text(program), Cell::Text(version)])?;
        }
        printer.finish(&[])
    })
}
