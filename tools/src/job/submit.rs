//! From a goal to a job: plan, print, ask where it is dangerous, start, follow. Never: a judgement of the plan (the server
//! warns or refuses).
//!
//! Invariant: nothing starts before its plan was read from the server, nor with a warning that nobody confirmed.

use clap::Args;
use tidemark_client::v1::{self, job_spec::Goal};

use super::attach::{self, WaitArgs};
use super::print::{print_job, print_plan};
use super::{must_be_done, report};
use crate::cli::Context;
use crate::confirm::confirm;
use crate::failure::{OrFail, Outcome};
use crate::human::parse_bytes;
use crate::output::Cell;
use crate::words;

/// Flags of every verb that makes a job.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// Print the plan and stop: exit 0, or 6 where the cluster would refuse it
    #[arg(long)]
    dry_run: bool,
    /// Confirm a plan that carries warnings: the first 8 characters of the cluster id, instead of being asked for them
    #[arg(long, value_name = "CLUSTER")]
    confirm: Option<String>,
    /// Most bytes a second of checkpoints that the job copies, over all nodes; what is written meanwhile follows as it
    /// comes [default: the nodes' own limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    limit_rate: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Plans a job and, unless that was all that was asked for, starts it.
pub(crate) async fn submit(context: &Context, goal: Goal, args: &JobArgs) -> Outcome {
    let client = context.connect().await?;
    let what = format!("cannot {}", words::goal(Some(&goal)));
    let spec = v1::JobSpec { goal: Some(goal) };
    let question = v1::PlanJobRequest { spec: Some(spec) };
    let v1::PlanJobResponse { job, warnings } = client.plan_job(question).await.or_fail(&what)?;
    let mut plan = job.unwrap_or_default();
    plan.spec.get_or_insert(spec);
    let nothing_to_do = is_idle(&plan);
    if context.is_table() {
        print_plan(context, &plan)?;
        for warning in &warnings {
            context.say(&format!("warning: {warning}"));
        }
    } else if args.dry_run || nothing_to_do {
        print_job(
            context,
            "job_plan",
            &plan,
            &[("warnings", Cell::List(warnings.clone()))],
        )?;
    }
    if nothing_to_do {
        context.say("nothing to do");
    }
    if args.dry_run || nothing_to_do {
        return Ok(());
    }
    if !warnings.is_empty() {
        let why = warnings.join("; ");
        confirm(context, &client, "not started", why, args.confirm.as_deref()).await?;
    }
    let start = v1::StartJobRequest {
        spec: Some(spec),
        bytes_per_second_max: args.limit_rate.unwrap_or(0),
    };
    let mut job = client.start_job(start).await.or_fail(&what)?.job.unwrap_or_default();
    if !args.wait.accepted() {
        job = attach::attach(&client, job, args.wait.timeout()).await?;
    }
    report(context, &job)?;
    must_be_done(&job)
}

/// Without moves a rebalance or a move does nothing; a drain still cordons its node, a removal still ends its membership.
fn is_idle(plan: &v1::Job) -> bool {
    let goal = plan.spec.as_ref().and_then(|spec| spec.goal.as_ref());
    plan.moves.is_empty() && plan.message.is_empty() && matches!(goal, Some(Goal::Rebalance(_) | Goal::MoveShard(_)))
}
