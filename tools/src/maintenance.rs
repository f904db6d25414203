//! `device maintenance`: when devices are, were or will be under maintenance, declared, ended, taken back. Never: what that means for reports
//! (the server says).
//!
//! Invariant: a device is sent back as it was read but for this, and nothing is sent unless all devices that are named can be changed.

use clap::Args;
use tidemark_client::v1::{self, Device, Maintenance};

use crate::cli::{Context, now_ns};
use crate::failure::{Exit, Failure, OrFail, Outcome};
use crate::output::{Cell, Printer};
use crate::time::{TsFormat, format_instant, parse_instant};

/// Which devices, and what of them.
#[derive(Debug, Args)]
pub(crate) struct MaintenanceArgs {
    /// Device ids
    #[arg(required = true, value_name = "DEVICE")]
    ids: Vec<String>,
    /// Declare maintenance that begins then: RFC 3339, a date, a number with unit, or now-SPAN [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "to")]
    from: Option<String>,
    /// When it is over
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT", requires = "to")]
    reason: Option<String>,
    /// End what goes on at that time (`now`, say) then, not later
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with = "to")]
    end: Option<String>,
    /// Take back what was declared for that time, as a whole: it counts against the devices again
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with_all = ["to", "end"])]
    remove: Option<String>,
}

/// What is changed of what a device has declared.
enum Change {
    Nothing,
    Declare {
        from_ns: i64,
        to_ns: i64,
        reason: Option<String>,
    },
    End(i64),
    Remove(i64),
}

/// Columns of a list of declared maintenance behind that of the device.
pub(crate) const COLUMNS: [&str; 4] = ["from", "to", "reason", "state"];

/// Changes what is asked for and lists what is declared by then.
pub(crate) async fn run(context: &Context, args: MaintenanceArgs) -> Outcome {
    let what = match (&args.to, &args.end, &args.remove) {
        (None, None, None) => "cannot list maintenance",
        _ => "cannot change maintenance",
    };
    let now_ns = now_ns();
    let change = change(&args, now_ns).map_err(|why| Failure::usage(what, why))?;
    let client = context.connect().await?;
    let request = v1::ListDevicesRequest {
        selector: Some(v1::Selector {
            device_ids: args.ids,
            ..v1::Selector::default()
        }),
        ..v1::ListDevicesRequest::default()
    };
    let answer = client.list_devices(request).await.or_fail(what)?;
    let (messages, _) = answer.collect().await.or_fail(what)?;
    let mut devices: Vec<Device> = messages.into_iter().flat_map(|message| message.devices).collect();
    devices.sort_by(|a, b| a.id.cmp(&b.id));
    let mut changed = Vec::new();
    for device in &mut devices {
        let before = device.maintenance.clone();
        apply(&change, &mut device.maintenance).map_err(|why| {
            let next = format!("tidemark device maintenance {}", device.id);
            Failure::new(Exit::Refused, what, format!("device {}: {why}", device.id), next)
        })?;
        if device.maintenance != before {
            changed.push(device.clone());
        }
    }
    if !changed.is_empty() {
        client.register_devices(changed).await.or_fail(what)?;
    }
    let mut printer = context.printer("device_maintenance");
    printer.section("maintenance", &["device", "from", "to", "reason", "state"])?;
    for device in &devices {
        rows(&mut printer, device, Some(&device.id), now_ns)?;
    }
    printer.finish(&[])
}

/// A row for each time that is declared of a device, in order.
pub(crate) fn rows(printer: &mut Printer, device: &Device, id: Option<&str>, now_ns: i64) -> Outcome {
    for declared in &device.maintenance {
        let state = match declared {
            declared if declared.to_ns <= now_ns => "over",
            declared if declared.from_ns > now_ns => "planned",
            _ => "on",
        };
        let mut cells: Vec<Cell> = id.map(Cell::text).into_iter().collect();
        cells.extend([
            Cell::Time(declared.from_ns),
            Cell::Time(declared.to_ns),
            Cell::some_text(&declared.reason),
            Cell::text(state),
        ]);
        printer.row(cells)?;
    }
    Ok(())
}

/// When the maintenance is over that a device is under.
pub(crate) fn under_until(device: &Device, now_ns: i64) -> Cell {
    match device.maintenance.iter().find(|declared| holds(declared, now_ns)) {
        Some(declared) => Cell::Time(declared.to_ns),
        None => Cell::None,
    }
}

fn change(args: &MaintenanceArgs, now_ns: i64) -> Result<Change, String> {
    let instant = |text: &str| parse_instant(text, now_ns);
    if let Some(to) = &args.to {
        let (from_ns, to_ns) = (instant(args.from.as_deref().unwrap_or("now"))?, instant(to)?);
        if from_ns >= to_ns {
            return Err("it is over before it begins".to_owned());
        }
        return Ok(Change::Declare {
            from_ns,
            to_ns,
            reason: args.reason.clone(),
        });
    }
    match (&args.end, &args.remove) {
        (Some(at), _) => Ok(Change::End(instant(at)?)),
        (None, Some(at)) => Ok(Change::Remove(instant(at)?)),
        (None, None) => Ok(Change::Nothing),
    }
}

fn holds(declared: &Maintenance, t_ns: i64) -> bool {
    (declared.from_ns..declared.to_ns).contains(&t_ns)
}

/// Changes what is declared of one device.
fn apply(change: &Change, declared: &mut Vec<Maintenance>) -> Result<(), String> {
    let find = |declared: &[Maintenance], at_ns: i64| {
        let found = declared.iter().position(|one| holds(one, at_ns));
        found.ok_or_else(|| {
            let at = format_instant(at_ns, TsFormat::Rfc3339);
            format!("no maintenance is declared for {at}")
        })
    };
    match change {
        Change::Nothing => Ok(()),
        Change::Declare { from_ns, to_ns, reason } => declare(declared, (*from_ns, *to_ns), reason.as_deref()),
        Change::End(at_ns) => {
            let at = find(declared, *at_ns)?;
            declared[at].to_ns = *at_ns;
            declared.retain(|one| one.from_ns < one.to_ns);
            Ok(())
        }
        Change::Remove(at_ns) => {
            let at = find(declared, *at_ns)?;
            declared.remove(at);
            Ok(())
        }
    }
}

/// Declares one more; those that it overlaps become one with it where all of them have the same reason, which it need not repeat.
fn declare(declared: &mut Vec<Maintenance>, (from_ns, to_ns): (i64, i64), reason: Option<&str>) -> Result<(), String> {
    let overlaps = |one: &Maintenance| one.from_ns < to_ns && from_ns < one.to_ns;
    let overlapped: Vec<Maintenance> = declared.iter().filter(|one| overlaps(one)).cloned().collect();
    let first = overlapped.first().map_or("", |one| one.reason.as_str());
    let reason = reason.unwrap_or(first);
    if let Some(other) = overlapped.iter().find(|one| one.reason != reason) {
        let [from, to] = [other.from_ns, other.to_ns].map(|at| format_instant(at, TsFormat::Rfc3339));
        let why = match other.reason.as_str() {
            "" => "without a reason".to_owned(),
            why => format!("for {why:?}"),
        };
        return Err(format!(
            "maintenance {why} is declared from {from} to {to}; --remove {from} takes it back"
        ));
    }
    let whole = overlapped.iter().fold((from_ns, to_ns), |(from_ns, to_ns), one| {
        (from_ns.min(one.from_ns), to_ns.max(one.to_ns))
    });
    declared.retain(|one| !overlaps(one));
    declared.push(Maintenance {
        from_ns: whole.0,
        to_ns: whole.1,
        reason: reason.to_owned(),
    });
    declared.sort_by_key(|one| one.from_ns);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(times: &[(i64, i64, &str)]) -> Vec<Maintenance> {
        let one = |(from_ns, to_ns, reason): &(i64, i64, &str)| Maintenance {
            from_ns: *from_ns,
            to_ns: *to_ns,
            reason: (*reason).to_owned(),
        };
        times.iter().map(one).collect()
    }

    fn check(change: &Change, before: &[(i64, i64, &str)], after: Result<&[(i64, i64, &str)], &str>) {
        let mut found = declared(before);
        let told = apply(change, &mut found).map(|()| found);
        assert_eq!(told, after.map(declared).map_err(str::to_owned), "of {before:?}");
    }

    fn from_to(from_ns: i64, to_ns: i64, reason: Option<&str>) -> Change {
        Change::Declare {
            from_ns,
            to_ns,
            reason: reason.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_declared_is_kept_in_order() {
        check(&from_to(10, 20, None), &[], Ok(&[(10, 20, "")]));
        let two = [(0, 5, "a"), (30, 40, "b")];
        check(
            &from_to(10, 20, Some("c")),
            &two,
            Ok(&[(0, 5, "a"), (10, 20, "c"), (30, 40, "b")]),
        );
        check(
            &from_to(5, 30, Some("c")),
            &two,
            Ok(&[(0, 5, "a"), (5, 30, "c"), (30, 40, "b")]),
        );
        check(&Change::Nothing, &two, Ok(&two));
    }

    #[test]
    fn what_overlaps_is_one_time_or_refused() {
        check(
            &from_to(10, 50, None),
            &[(0, 20, "a"), (30, 40, "a")],
            Ok(&[(0, 50, "a")]),
        );
        check(&from_to(5, 10, Some("a")), &[(0, 20, "a")], Ok(&[(0, 20, "a")]));
        let refused = "maintenance for \"b\" is declared from 1970-01-01T00:00:03Z to 1970-01-01T00:00:04Z; \
                       --remove 1970-01-01T00:00:03Z takes it back";
        let s = 1_000_000_000;
        check(
            &from_to(0, 4 * s, None),
            &[(0, s, "a"), (3 * s, 4 * s, "b")],
            Err(refused),
        );
        check(&from_to(3 * s, 5 * s, Some("c")), &[(3 * s, 4 * s, "b")], Err(refused));
    }

    #[test]
    fn what_goes_on_is_ended_or_taken_back() {
        let two = [(0, 5, "a"), (30, 40, "b")];
        check(&Change::End(35), &two, Ok(&[(0, 5, "a"), (30, 35, "b")]));
        check(&Change::End(30), &two, Ok(&[(0, 5, "a")]));
        check(&Change::Remove(3), &two, Ok(&[(30, 40, "b")]));
        let none = "no maintenance is declared for 1970-01-01T00:00:00.000000005Z";
        check(&Change::End(5), &two, Err(none));
        check(&Change::Remove(5), &two, Err(none));
    }
}
