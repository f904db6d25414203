//! `job list|show|watch|cancel` and `rebalance`. Never: what a job does or when it ends (the server plans and carries out).
//!
//! Invariant: a job goes on without this command; whatever ends the command early says how to find the job again.

mod attach;
mod print;
mod submit;
mod track;

use clap::{Args, Subcommand};
use tidemark_client::v1::{self, JobState, job_spec::Goal};

pub(crate) use attach::WaitArgs;
pub(crate) use print::{JOB_COLUMNS, MOVE_COLUMNS, job_cells, move_cells, progress_line};
pub(crate) use submit::{JobArgs, submit};

use crate::cli::Context;
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::words;

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List jobs, newest first
    List,
    /// Show a job and its moves
    Show {
        /// Number of the job
        job: u64,
    },
    /// Follow a job until it ends; Ctrl-C detaches and the job goes on
    Watch {
        /// Number of the job
        job: u64,
        /// Stop waiting after this long and exit 124; the job goes on
        #[arg(long, value_name = "SPAN", value_parser = attach::parse_wait)]
        wait_timeout: Option<std::time::Duration>,
    },
    /// Stop a job: moves that have not switched yet are taken back
    Cancel {
        /// Number of the job
        job: u64,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// How to rebalance.
#[derive(Debug, Args)]
pub(crate) struct RebalanceArgs {
    /// At most this many moves [default: as many as it takes]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    max_moves: Option<u32>,
    #[command(flatten)]
    job: JobArgs,
}

/// Spreads replicas and leaderships.
pub(crate) async fn rebalance(context: &Context, args: RebalanceArgs) -> Outcome {
    let goal = Goal::Rebalance(v1::Rebalance {
        max_moves: args.max_moves.unwrap_or(0),
    });
    submit(context, goal, &args.job).await
}

/// Runs a verb.
pub(crate) async fn run(context: &Context, verb: Verb) -> Outcome {
    let client = context.connect().await?;
    match verb {
        Verb::List => {
            let jobs = client.list_jobs(0).await.or_fail("cannot list jobs")?;
            let mut printer = context.printer("job_list");
            printer.section("jobs", &JOB_COLUMNS)?;
            for job in &jobs {
                printer.row(job_cells(job))?;
            }
            printer.finish(&[])
        }
        Verb::Show { job } => print::print_job(context, "job", &find(&client, job).await?, &[]),
        Verb::Watch { job, wait_timeout } => {
            let job = find(&client, job).await?;
            let ended = attach::attach(&client, job, wait_timeout).await?;
            report(context, &ended)?;
            must_be_done(&ended)
        }
        Verb::Cancel { job, wait } => {
            let cancelled = client
                .cancel_job(job)
                .await
                .or_fail(&format!("cannot cancel job {job}"))?;
            let mut now = cancelled.job.unwrap_or_default();
            if !wait.accepted() {
                now = attach::attach(&client, now, wait.timeout()).await?;
            }
            report(context, &now)?;
            match now.state() {
                JobState::Done | JobState::Failed => Err(Failure::new(
                    Exit::Failed,
                    format!("job {job} was not cancelled"),
                    format!("it was {} before it could be", words::job_state(now.state())),
                    format!("tidemark job show {job}"),
                )),
                _ => Ok(()),
            }
        }
    }
}

async fn find(client: &tidemark_client::Client, id: u64) -> Outcome<v1::Job> {
    let jobs = client.list_jobs(id).await.or_fail(&format!("cannot show job {id}"))?;
    jobs.into_iter().find(|job| job.id == id).ok_or_else(|| {
        let why = format!("there is no job {id}");
        Failure::new(
            Exit::NotFound,
            format!("cannot show job {id}"),
            why,
            "tidemark job list",
        )
    })
}

/// A job as it stands at the end of the command: a line for people, everything for scripts.
fn report(context: &Context, job: &v1::Job) -> Outcome {
    if context.is_table() {
        context.say(&print::ended_line(job));
        return Ok(());
    }
    print::print_job(context, "job", job, &[])
}

/// A job that was to reach its goal and did not is a failure of the command.
fn must_be_done(job: &v1::Job) -> Outcome {
    let state = job.state();
    if matches!(state, JobState::Done | JobState::Running | JobState::Unspecified) {
        return Ok(());
    }
    let what = format!(
        "job {} ({}) {}",
        job.id,
        words::goal(job.spec.as_ref().and_then(|spec| spec.goal.as_ref())),
        match state {
            JobState::Failed => "failed",
            _ => "was cancelled",
        }
    );
    let next = format!("tidemark job show {}", job.id);
    Err(Failure::new(Exit::Failed, what, job.message.clone(), next))
}
