//! Which vector instructions compute what: the methods that only some processors have.
//!
//! # Safety
//! [`Sliced::by`] and [`Gathered::by`] make a value only if this processor has the instructions that running it takes.

use std::sync::Arc;

use crate::bitsliced::{Program, WORDS, avx2, avx512};
use crate::cost;
use crate::gather;
use crate::kernel::Method;
use crate::plan::Plan;
use crate::portable::{self, Scratch};
use crate::trial;
use crate::walk::Walk;

/// How rows are shared out; by default, all to the portable method.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors {
    /// Computes blocks of rows.
    sliced: Option<Sliced>,
    /// Fewest rows for which a block is filled up.
    worth_filling: usize,
    /// Walks what is left, the portable method where this does not.
    gathered: Option<Gathered>,
}

#[derive(Clone, Debug)]
enum Sliced {
    Avx512(Arc<Program>, avx512::Scratch),
    Avx2(Arc<Program>, avx2::Scratch),
}

#[derive(Clone, Copy, Debug)]
enum Gathered {
    Avx512,
    Avx2,
}

impl Vectors {
    /// Whether this processor can run `method`.
    pub fn available(method: Method) -> bool {
        match method {
            Method::BitSlicedAvx512 => avx512::available(),
            Method::GatheredAvx512 => is_x86_feature_detected!("avx512f"),
            Method::BitSlicedAvx2 | Method::GatheredAvx2 => is_x86_feature_detected!("avx2"),
            Method::Portable => true,
        }
    }

    /// Only `method`, if it fits the trees.
    pub fn by(method: Method, plan: &Plan) -> Vectors {
        Vectors { sliced: Sliced::by(method, plan), worth_filling: 1, gathered: Gathered::by(method) }
    }

    /// The quickest for these trees on this processor.
    pub fn choose(plan: &Plan, walk: &Walk) -> Vectors {
        let widest =
            [Method::BitSlicedAvx512, Method::BitSlicedAvx2].into_iter().find(|&method| Self::available(method));
        let walk_cost = cost::walk(walk);
        // With what it costs, and from how many rows on it is worth filling up a block: not even for a whole one, maybe.
        let sliced = widest.and_then(|method| Sliced::by(method, plan)).and_then(|sliced| {
            let cost = cost::Sliced::of(sliced.program());
            cost.worth_filling(sliced.word(), walk_cost).map(|worth_filling| (sliced, cost, worth_filling))
        });
        match sliced {
            // The rest of a block is too few rows to be gathered.
            Some((sliced, _, worth_filling)) if worth_filling <= gather::FROM => {
                Vectors { sliced: Some(sliced), worth_filling, gathered: None }
            }
            Some((sliced, cost, worth_filling)) => {
                let gathered = Gathered::choose(plan, walk);
                let sliced = (gathered.is_none() || cost.beats_gathers(sliced.word(), walk_cost)).then_some(sliced);
                Vectors { sliced, worth_filling, gathered }
            }
            None => Vectors { gathered: Gathered::choose(plan, walk), ..Vectors::default() },
        }
    }

    /// What computes large batches; none: the portable method.
    pub fn chosen(&self) -> Option<Method> {
        match (&self.sliced, self.gathered) {
            (Some(Sliced::Avx512(..)), _) => Some(Method::BitSlicedAvx512),
            (Some(Sliced::Avx2(..)), _) => Some(Method::BitSlicedAvx2),
            (None, Some(Gathered::Avx512)) => Some(Method::GatheredAvx512),
            (None, Some(Gathered::Avx2)) => Some(Method::GatheredAvx2),
            (None, None) => None,
        }
    }

    /// Adds up the weights of `rows`, `outputs` columns each, into `sums`, which holds zeros.
    pub fn add(&mut self, walk: &Walk, outputs: usize, rows: &[f32], sums: &mut [f32], scratch: &mut Scratch) {
        let (mut rows, mut sums) = (rows, sums);
        if let Some(sliced) = &mut self.sliced {
            let count = sums.len() / outputs;
            let rest = count % (WORDS * sliced.word());
            let taken = if rest < self.worth_filling { count - rest } else { count };
            let (block_rows, more_rows) = rows.split_at(taken * walk.width);
            let (block_sums, more_sums) = sums.split_at_mut(taken * outputs);
            sliced.run(block_rows, block_sums);
            (rows, sums) = (more_rows, more_sums);
        }
        match self.gathered {
            Some(gathered) => gathered.add(walk, outputs, rows, sums, scratch),
            None => portable::add(walk, outputs, rows, sums, scratch),
        }
    }
}

impl Sliced {
    /// With `method`, if it is a bit-sliced one, this processor can run it and the trees fit.
    fn by(method: Method, plan: &Plan) -> Option<Sliced> {
        if !Vectors::available(method) || !matches!(method, Method::BitSlicedAvx512 | Method::BitSlicedAvx2) {
            return None;
        }
        let program = Arc::new(Program::of(plan)?);
        Some(if method == Method::BitSlicedAvx512 {
            let scratch = avx512::Scratch::of(&program);
            Sliced::Avx512(program, scratch)
        } else {
            let scratch = avx2::Scratch::of(&program);
            Sliced::Avx2(program, scratch)
        })
    }

    fn program(&self) -> &Program {
        match self {
            Sliced::Avx512(program, _) | Sliced::Avx2(program, _) => program,
        }
    }

    /// Rows of a word.
    fn word(&self) -> usize {
        match self {
            Sliced::Avx512(..) => avx512::WORD,
            Sliced::Avx2(..) => avx2::WORD,
        }
    }

    fn run(&mut self, rows: &[f32], sums: &mut [f32]) {
        match self {
            Sliced::Avx512(program, scratch) => {
                // SAFETY: the processor was asked before this was made.
                unsafe { avx512::run(program, rows, sums, scratch) }
            }
            Sliced::Avx2(program, scratch) => {
                // SAFETY: as above.
                unsafe { avx2::run(program, rows, sums, scratch) }
            }
        }
    }
}

impl Gathered {
    /// With `method`, if it is a gathering one and this processor can run it.
    fn by(method: Method) -> Option<Gathered> {
        match method {
            Method::GatheredAvx512 if Vectors::available(method) => Some(Gathered::Avx512),
            Method::GatheredAvx2 if Vectors::available(method) => Some(Gathered::Avx2),
            _ => None,
        }
    }

    /// The widest that this processor has, if it is quicker than the portable method.
    fn choose(plan: &Plan, walk: &Walk) -> Option<Gathered> {
        let methods = [Method::GatheredAvx512, Method::GatheredAvx2];
        methods.into_iter().filter_map(Gathered::by).find(|gathered| {
            trial::pays(plan, walk, |rows, sums, scratch| gathered.add(walk, plan.outputs, rows, sums, scratch))
        })
    }

    fn add(self, walk: &Walk, outputs: usize, rows: &[f32], sums: &mut [f32], scratch: &mut Scratch) {
        match self {
            Gathered::Avx512 => {
                // SAFETY: the processor was asked before this was made.
                unsafe { gather::add_avx512(walk, outputs, rows, sums, scratch) }
            }
            Gathered::Avx2 => {
                // SAFETY: as above.
                unsafe { gather::add_avx2(walk, outputs, rows, sums, scratch) }
            }
        }
    }
}
