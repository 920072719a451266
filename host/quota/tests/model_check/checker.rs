//! Breadth-first search through every state that a model can reach.
//!
//! Called by the tests of each model. A failure is the shortest schedule that leads to it.
//! Invariant: "safe" means that the space is exhausted; a search that meets its bound is
//! unfinished, which is a failure, never a silent pass.

use std::{fmt, time::Instant};

use crate::{
    codec::{Codec, Fields},
    seen::Seen,
};

/// What can happen, and what must not.
pub(crate) trait Model {
    type State: Fields;

    fn start(&self) -> Self::State;

    /// Every state that one step leads to.
    fn steps(&self, state: &Self::State, next: &mut Next<Self::State>);

    /// What is wrong with a state.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
}

/// Collects the successors of one state; their names only when a schedule is printed.
pub(crate) struct Next<S> {
    states: Vec<S>,
    names: Option<Vec<String>>,
}

impl<S> Next<S> {
    pub(crate) fn to(&mut self, state: S, name: fmt::Arguments<'_>) {
        self.states.push(state);
        if let Some(names) = &mut self.names {
            names.push(name.to_string());
        }
    }

    /// Replaces every successor by the one that stands for all of its kind.
    pub(crate) fn tidy(&mut self, tidied: impl Fn(S) -> S)
    where
        S: Copy,
    {
        for state in &mut self.states {
            *state = tidied(*state);
        }
    }
}

/// What a search found.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Every reachable state was seen, and none is broken.
    Safe { states: usize, depth: usize },
    /// The steps that lead to a broken state: no shorter schedule exists.
    Broken { what: &'static str, schedule: Vec<String>, states: usize },
    /// More states than the bound allows.
    Unfinished { states: usize },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Safe { states, depth } => {
                write!(f, "safe: {states} states, the farthest {depth} steps away")
            }
            Self::Broken { what, schedule, states } => {
                writeln!(f, "{what} after {} steps ({states} states seen):", schedule.len())?;
                for (number, step) in schedule.iter().enumerate() {
                    writeln!(f, "  {:2}. {step}", number + 1)?;
                }
                Ok(())
            }
            Self::Unfinished { states } => write!(f, "unfinished after {states} states"),
        }
    }
}

impl Verdict {
    /// The search must have exhausted the space and found nothing. Answers the states.
    pub(crate) fn expect_safe(&self) -> usize {
        match self {
            Self::Safe { states, .. } => *states,
            other => panic!("{other}"),
        }
    }

    /// The search must have found this.
    pub(crate) fn expect_broken(&self, expected: &str) -> usize {
        match self {
            Self::Broken { what, schedule, .. } if *what == expected => schedule.len(),
            other => panic!("expected {expected}, found: {other}"),
        }
    }
}

/// Searches, and says on standard output what it found and how fast. `W` words hold one
/// encoded state.
pub(crate) fn check<const W: usize, M: Model>(title: &str, model: &M, bound: usize) -> Verdict {
    let begin = Instant::now();
    let verdict = Search::<W, M>::new(model).run(bound);
    println!("{title} [{:.1} s] {verdict}", begin.elapsed().as_secs_f32());
    verdict
}

struct Search<'m, const W: usize, M: Model> {
    model: &'m M,
    seen: Seen<W>,
    parents: Vec<u32>,
}

impl<'m, const W: usize, M: Model> Search<'m, W, M> {
    fn new(model: &'m M) -> Self {
        let mut seen = Seen::default();
        seen.insert(Codec::encode(model.start()));
        Self { model, seen, parents: vec![0] }
    }

    fn run(mut self, bound: usize) -> Verdict {
        let mut next = Next { states: Vec::new(), names: None };
        let (mut at, mut depth, mut layer_end) = (0, 0, 1);
        while at < self.seen.len() {
            if at == layer_end {
                (depth, layer_end) = (depth + 1, self.seen.len());
            }
            next.states.clear();
            self.model.steps(&self.state(at), &mut next);
            for state in &next.states {
                if self.seen.insert(Codec::encode(*state)) {
                    self.parents.push(at as u32);
                    if let Some(what) = self.model.broken(state) {
                        let schedule = self.schedule(self.seen.len() - 1);
                        return Verdict::Broken { what, schedule, states: self.seen.len() };
                    }
                }
            }
            if self.seen.len() > bound {
                return Verdict::Unfinished { states: self.seen.len() };
            }
            at += 1;
        }
        Verdict::Safe { states: self.seen.len(), depth }
    }

    fn state(&self, index: usize) -> M::State {
        Codec::decode(self.seen.words(index), self.model.start())
    }

    /// The steps from the start to a state. Only parents are kept: the names come from
    /// taking the steps again.
    fn schedule(&self, mut index: usize) -> Vec<String> {
        let mut schedule = Vec::new();
        while index != 0 {
            let parent = self.parents[index] as usize;
            let mut next = Next { states: Vec::new(), names: Some(Vec::new()) };
            self.model.steps(&self.state(parent), &mut next);
            let words = self.seen.words(index);
            let step = next.states.iter().position(|state| Codec::encode(*state) == words);
            let names = next.names.unwrap_or_default();
            schedule.push(step.map_or_else(|| "?".into(), |step| names[step].clone()));
            index = parent;
        }
        schedule.reverse();
        schedule
    }
}
