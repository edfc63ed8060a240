//! `tilewright emit`: the text of one operation's kernels under a schedule.

use std::collections::HashSet;

use tilewright::kernel::{Caps, MOST_CANDIDATES, Peaks, Schedule, broken_rule, points};
use tilewright::wgsl::{self, Dialect, Target};

use crate::failure::{Failure, Result, print};
use crate::one_op::OneOp;
use crate::planned::{self, Machine, Space};
use crate::tuning_args::{EmitArgs, TextTarget};

/// Print the texts.
pub fn emit(args: &EmitArgs) -> Result<()> {
    let op = OneOp::new(args.op, &args.shape, args.dtype.into())?;
    let machine = Machine::of(args.adapter.as_ref())?;
    let planned = planned::of_op(&op, &machine.caps)?;
    let wanted = args.schedule.as_deref().map(parse).transpose()?;
    let dialect = match args.target {
        TextTarget::Naga => Dialect::Naga,
        TextTarget::Browser => Dialect::Browser,
    };
    let target = Target::new(&machine.caps, dialect);
    let mut spaces = planned.spaces(&machine.caps);
    if wanted.is_some() {
        spaces.iter_mut().for_each(|space| add_others(space, &machine.caps));
    }
    let several = spaces.len() > 1;
    let mut texts = Vec::new();
    for space in &spaces {
        let schedule = match &wanted {
            // Where an operation takes several kernels, the knobs are for those that have them.
            Some(knobs) if !several || has_knobs(&space.candidates, knobs) => {
                choose(&space.candidates, knobs)?
            }
            Some(_) | None => space.default()?,
        };
        for (pass, rendered) in
            wgsl::render_passes(&space.label, &space.spec, schedule, &space.sizes, &machine.caps, target)?
        {
            texts.push(format!(
                "// {} {}: {}; for {}\n{}\n",
                op.describe(),
                rendered.shader.label,
                pass.schedule,
                machine.describe(),
                rendered.shader.source.trim_end()
            ));
        }
    }
    if let (true, Some(knobs)) = (several, &wanted)
        && !spaces.iter().any(|space| has_knobs(&space.candidates, knobs))
    {
        let all: Vec<Schedule> = spaces.into_iter().flat_map(|space| space.candidates).collect();
        choose(&all, knobs)?;
    }
    print(&texts.join("\n"))
}

/// The legal schedules that are not among the candidates, behind them: what is not worth measuring may be worth reading.
fn add_others(space: &mut Space, caps: &Caps) {
    let known: HashSet<Schedule> = space.candidates.iter().cloned().collect();
    let legal = |schedule: &Schedule| {
        !known.contains(schedule) && broken_rule(&space.spec, schedule, &space.sizes, caps).is_none()
    };
    let others: Vec<Schedule> =
        points(&space.spec, &space.sizes, caps, &Peaks::typical(caps)).into_iter().filter(legal).collect();
    space.candidates.extend(others);
}

/// Names and values, as in `group_m=4,group_n=8`.
type Knobs = Vec<(String, String)>;

fn parse(text: &str) -> Result<Knobs> {
    let mut knobs = Knobs::new();
    for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(Failure::Usage(format!("--schedule: wants KNOB=N,KNOB=N, got {part:?}")));
        };
        if knobs.iter().any(|(known, _)| known == name) {
            return Err(Failure::Usage(format!("--schedule: {name} is given twice")));
        }
        knobs.push((name.into(), value.into()));
    }
    Ok(knobs)
}

/// A schedule's knobs, as it prints them.
fn knobs(schedule: &Schedule) -> Knobs {
    let text = schedule.to_string();
    let pair = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.split_whitespace().filter_map(pair).collect()
}

/// A schedule as `--schedule` takes it.
pub fn knobs_text(schedule: &Schedule) -> String {
    let pairs: Vec<String> = knobs(schedule).iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(",")
}

fn has_knobs(candidates: &[Schedule], wanted: &Knobs) -> bool {
    let names: Vec<String> = candidates.iter().flat_map(knobs).map(|(name, _)| name).collect();
    wanted.iter().all(|(name, _)| names.contains(name))
}

/// The first candidate with the wanted values.
fn choose<'a>(candidates: &'a [Schedule], wanted: &Knobs) -> Result<&'a Schedule> {
    let mut names: Vec<String> = candidates.iter().flat_map(knobs).map(|(name, _)| name).collect();
    let mut seen = Vec::new();
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    if let Some((unknown, _)) = wanted.iter().find(|(name, _)| !names.contains(name)) {
        let there = names.join(", ");
        return Err(Failure::Usage(format!("--schedule: unknown knob {unknown:?}; the knobs are: {there}")));
    }
    let fits = |schedule: &&Schedule| {
        let knobs = knobs(schedule);
        wanted.iter().all(|pair| knobs.contains(pair))
    };
    candidates.iter().find(fits).ok_or_else(|| {
        let list: Vec<String> =
            candidates.iter().take(MOST_CANDIDATES).map(|c| format!("\n  {}", knobs_text(c))).collect();
        let message = format!("--schedule: no legal candidate has these values; there are:{}", list.concat());
        Failure::Usage(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tilewright::kernel::ReduceSchedule;

    #[test]
    fn knobs_choose_among_candidates() {
        let candidates: Vec<Schedule> = [(64, 1), (128, 1), (32, 2)]
            .map(|(lanes, rows)| Schedule::Reduce(ReduceSchedule::plain(lanes, rows)))
            .into();
        for (text, want) in [("rows=1", 0), ("lanes=128", 1), ("rows=2,lanes=32", 2), ("", 0)] {
            assert_eq!(choose(&candidates, &parse(text).unwrap()).unwrap(), &candidates[want], "{text}");
        }
        for (text, want) in [
            ("speed=9", "unknown knob \"speed\"; the knobs are: lanes, rows"),
            (
                "rows=2,lanes=64",
                "\n  lanes=128,rows=1,vector=1,kept=0,subgroups=0,parts=1\n  lanes=32,rows=2",
            ),
        ] {
            let error = choose(&candidates, &parse(text).unwrap()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        assert!(parse("lanes").is_err() && parse("lanes=1,lanes=2").is_err());
    }
}
