//! Lists of leaders among recorded series, largest and lowest, with equal ones, against all devices recomputed and sorted here.
//! Never here: the whole answer of the store (see `questions/top`). Invariant: nothing of the list is taken from another answer.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::asked::{Asked, Span, Whose, answered, ask_for, functions_of, told};
use crate::common::TestCluster;
use crate::common::columns::{Expected, Points, about};
use crate::common::placed::TAGS;
use crate::common::random::seed;
use crate::common::recordings::{Played, play_on};
use crate::recorded::derived;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidemark_client::{Client, v1};
use v1::Function;

/// A series as it should stand in the list.
struct Standing {
    name: String,
    columns: Vec<Expected>,
}

impl Standing {
    fn value(&self) -> Option<f64> {
        self.columns[0].value()
    }
}

/// Whether a function gives one of the values or a number of them, and no sum that is rounded one way or another.
fn is_exact(function: Function) -> bool {
    use Function as F;
    matches!(
        function,
        F::Count | F::Min | F::Max | F::First | F::Last | F::Mode | F::Transitions | F::Histogram
    )
}

/// The better one first; who has no value comes last.
fn better(a: Option<f64>, b: Option<f64>, lowest: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if lowest => a.total_cmp(&b),
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// A question for leaders, by a function that can be told exactly.
fn some_question(played: &Played, random: &mut StdRng) -> Asked {
    let whose = match random.random_range(0..4) {
        0 => Whose::Groups(vec![TAGS[0].to_owned()]),
        1 => Whose::Groups(TAGS.map(str::to_owned).to_vec()),
        _ => Whose::Each,
    };
    let all = functions_of(played.recording.kind);
    let mut functions: Vec<Function> = Vec::new();
    // Percentiles of many values are near only, and which of several devices is the first is not told: nobody can say who leads by them.
    let grouped = matches!(whose, Whose::Groups(_));
    let is_open = |function: &Function| match function {
        Function::Percentile => true,
        Function::First | Function::Last => grouped,
        _ => false,
    };
    let by: Vec<Function> = all.iter().copied().filter(|function| !is_open(function)).collect();
    functions.push(by[random.random_range(0..by.len())]);
    functions.extend(all.iter().copied().filter(|_| random.random_bool(0.2)));
    let span = Span::whole(played.some_time(random));
    let mut asked = ask_for(played, random, whose, functions, span);
    asked.request.top = Some(v1::Top {
        limit: random.random_range(1..=played.said.len() as u32 + 1),
        lowest: random.random_bool(0.5),
    });
    asked
}

/// All series that there are, the leader first.
fn standings(played: &Played, asked: &Asked) -> Vec<Standing> {
    let (window, lowest) = (asked.windows[0], asked.request.top.as_ref().unwrap().lowest);
    let standing = |(name, devices): (String, Vec<&str>)| {
        let points: Vec<Points> = devices
            .iter()
            .map(|device| played.counting(device, asked.request.drop_suspect))
            .collect();
        let known = |points: &Points| asked.columns.is_known(&asked.functions, points, window);
        let columns = asked
            .functions
            .iter()
            .flat_map(|function| asked.columns.of(*function, &points, window));
        points.iter().any(known).then(|| Standing {
            name,
            columns: columns.collect(),
        })
    };
    let mut all: Vec<Standing> = asked.whose.series(played).into_iter().filter_map(standing).collect();
    all.sort_by(|a, b| better(a.value(), b.value(), lowest).then_with(|| a.name.cmp(&b.name)));
    all
}

/// Asks for leaders; returns how many there were, and how many of them were as good as the one before.
async fn compare(client: &Client, played: &Played, asked: &Asked, what: &str) -> (usize, usize) {
    let what = format!("{what}: {:?}", asked.request);
    let top = asked.request.top.as_ref().unwrap();
    let (series, _) = answered(client, &asked.request).await;
    let all = standings(played, asked);
    let expected = &all[..all.len().min(top.limit as usize)];
    let names: Vec<String> = series.iter().map(|one| asked.whose.name(one)).collect();
    let should: Vec<(&str, Option<f64>)> = expected.iter().map(|one| (one.name.as_str(), one.value())).collect();
    assert_eq!(names.len(), expected.len(), "{what}: {names:?}, not {should:?}");
    let by_name: BTreeMap<&str, &Standing> = all.iter().map(|one| (one.name.as_str(), one)).collect();
    let mut values: Vec<Option<f64>> = Vec::new();
    for (name, one) in names.iter().zip(&series) {
        let mut windows = told(played.recording.labels, one);
        let found = windows.remove(&asked.windows[0]).unwrap_or_default();
        let standing = by_name
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{what}: {name} is nobody"));
        let fits = |(expected, found): (&Expected, &Option<f64>)| expected.fits(*found);
        assert!(
            windows.is_empty() && found.len() == standing.columns.len(),
            "{what}: {name}"
        );
        assert!(
            standing.columns.iter().zip(&found).all(fits),
            "{what}: {name} says {found:?}, not {:?}",
            standing.columns
        );
        values.push(found[0]);
    }
    if is_exact(asked.functions[0]) {
        let should: Vec<&str> = expected.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, should, "{what}: {values:?}");
    }
    // Sums are rounded, so who of two leads that are all but equal may differ; their values may not.
    for (at, (found, expected)) in values.iter().zip(expected).enumerate() {
        let same = match (found, expected.value()) {
            (Some(found), Some(value)) => about(*found, value),
            (found, value) => found.is_none() && value.is_none(),
        };
        assert!(
            same,
            "{what}: place {at} has {found:?}: {values:?} of {names:?}, not {should:?}"
        );
    }
    let stands = |at: usize| better(values[at], values[at + 1], top.lowest).then_with(|| names[at].cmp(&names[at + 1]));
    let ascend = (1..names.len()).all(|at| stands(at - 1).is_lt());
    assert!(ascend, "{what}: {values:?} of {names:?} are out of order");
    let equal = values.windows(2).filter(|pair| pair[0].is_some() && pair[0] == pair[1]);
    (names.len(), equal.count())
}

#[tokio::test]
async fn leaders_among_recordings_are_those_of_a_recomputation() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(1).await;
    let client = cluster.client().await;
    let all = play_on(&client, &mut random, &derived(&[])).await;
    for flushed in [false, true] {
        let (mut leaders, mut equal) = (0, 0);
        for round in 0..25 {
            for played in all.iter().filter(|played| played.said.len() > 1) {
                let file = played.recording.file;
                let what = format!("seed {seed}, round {round}, flushed {flushed}, {file}");
                let asked = some_question(played, &mut random);
                let found = compare(&client, played, &asked, &what).await;
                leaders += found.0;
                equal += found.1;
            }
        }
        assert!(leaders > 100 && equal > 3, "{leaders} leaders, {equal} of them equal");
        cluster.stop(0).await;
        cluster.restart(0).await;
    }
}
