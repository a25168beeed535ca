//! Random ensembles and rows that sit on their edges.

// Each test uses a part of it.
#![allow(dead_code)]

use fraud_trees::ensemble::{Aggregate, Comparison, Ensemble, Node, Tree};

/// A small generator of random numbers (SplitMix64), so that a case is told by a few numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Between -1 and 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// What an ensemble is like.
#[derive(Clone, Debug)]
pub struct Likeness {
    pub seed: u64,
    pub width: usize,
    pub outputs: usize,
    pub trees: usize,
    pub depth: usize,
    /// Percent of nodes above the depth that are leaves.
    pub leaves: usize,
    /// Most nodes of a tree.
    pub nodes: usize,
    /// Thresholds per feature to choose from.
    pub thresholds: usize,
    pub comparisons: Comparisons,
    pub missing: Missing,
    pub weights: Weights,
    pub aggregate: Aggregate,
    /// All nodes of a level ask the same.
    pub oblivious: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Comparisons {
    One(Comparison),
    Ordered,
    All,
}

#[derive(Clone, Copy, Debug)]
pub enum Missing {
    True,
    False,
    Mixed,
}

/// Which outputs the leaves have weights for.
#[derive(Clone, Copy, Debug)]
pub enum Weights {
    /// One per tree, in turn.
    InTurn,
    /// All, in every leaf.
    All,
    /// Any, even none.
    Some,
}

const ORDERED: [Comparison; 4] =
    [Comparison::Less, Comparison::LessOrEqual, Comparison::Greater, Comparison::GreaterOrEqual];
const ALL: [Comparison; 6] = [
    Comparison::Less,
    Comparison::LessOrEqual,
    Comparison::Greater,
    Comparison::GreaterOrEqual,
    Comparison::Equal,
    Comparison::NotEqual,
];
const SPECIAL: [f32; 10] =
    [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-45, -1e-45, f32::MAX, f32::MIN];

impl Likeness {
    /// The ensemble, and the thresholds of each feature.
    pub fn ensemble(&self) -> (Ensemble, Vec<Vec<f32>>) {
        let mut random = Random(self.seed);
        let thresholds: Vec<Vec<f32>> = (0..self.width)
            .map(|_| {
                let some = |random: &mut Random| if random.chance(10) { random.pick(&SPECIAL) } else { random.unit() };
                (0..self.thresholds).map(|_| some(&mut random)).collect()
            })
            .collect();
        let trees = (0..self.trees).map(|number| self.tree(number, &thresholds, &mut random)).collect();
        let base_values = (0..self.outputs).map(|_| random.unit()).collect();
        let ensemble =
            Ensemble { width: self.width, outputs: self.outputs, trees, aggregate: self.aggregate, base_values };
        (ensemble, thresholds)
    }

    fn tree(&self, number: usize, thresholds: &[Vec<f32>], random: &mut Random) -> Tree {
        let levels: Vec<Node> = (0..self.depth).map(|_| self.branch(thresholds, random)).collect();
        let mut nodes: Vec<Option<Node>> = vec![None];
        // Nodes still to be made, and their depth; in no particular order, so that the limit cuts anywhere.
        let mut waiting = vec![(0usize, 0usize)];
        while !waiting.is_empty() {
            let (at, depth) = waiting.swap_remove(random.below(waiting.len()));
            let full = nodes.len() + 2 > self.nodes;
            if depth == self.depth || full || (depth > 0 && random.chance(self.leaves)) {
                nodes[at] = Some(Node::Leaf { weights: self.leaf(number, random) });
                continue;
            }
            let mut branch = if self.oblivious { levels[depth].clone() } else { self.branch(thresholds, random) };
            if let Node::Branch { on_true, on_false, .. } = &mut branch {
                (*on_true, *on_false) = (nodes.len() as u32, nodes.len() as u32 + 1);
            }
            waiting.extend([(nodes.len(), depth + 1), (nodes.len() + 1, depth + 1)]);
            nodes.extend([None, None]);
            nodes[at] = Some(branch);
        }
        Tree { nodes: nodes.into_iter().flatten().collect() }
    }

    fn branch(&self, thresholds: &[Vec<f32>], random: &mut Random) -> Node {
        let feature = random.below(self.width);
        Node::Branch {
            feature: feature as u32,
            comparison: match self.comparisons {
                Comparisons::One(comparison) => comparison,
                Comparisons::Ordered => random.pick(&ORDERED),
                Comparisons::All => random.pick(&ALL),
            },
            threshold: random.pick(&thresholds[feature]),
            missing_tracks_true: match self.missing {
                Missing::True => true,
                Missing::False => false,
                Missing::Mixed => random.chance(50),
            },
            on_true: 0,
            on_false: 0,
        }
    }

    fn leaf(&self, number: usize, random: &mut Random) -> Vec<(u32, f32)> {
        let outputs = 0..self.outputs;
        let chosen: Vec<usize> = match self.weights {
            Weights::InTurn => vec![number % self.outputs],
            Weights::All => outputs.collect(),
            Weights::Some => outputs.filter(|_| random.chance(60)).collect(),
        };
        let weight = |random: &mut Random| if random.chance(5) { random.pick(&[0.0, -0.0]) } else { random.unit() };
        chosen.into_iter().map(|output| (output as u32, weight(random))).collect()
    }
}

/// Rows whose values are thresholds, their neighbours, special numbers or any; `missing` percent are NaN.
pub fn rows(count: usize, missing: usize, thresholds: &[Vec<f32>], seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let mut rows = Vec::new();
    for _ in 0..count {
        for thresholds in thresholds {
            let threshold = random.pick(thresholds);
            let value = match random.below(8) {
                0..3 => threshold,
                3 => threshold.next_up(),
                4 => threshold.next_down(),
                5 => random.pick(&SPECIAL),
                _ => random.unit(),
            };
            let value = if value.is_nan() { 0.5 } else { value };
            let nan = random.pick(&[f32::NAN, -f32::NAN]);
            rows.push(if random.chance(missing) { nan } else { value });
        }
    }
    rows
}
