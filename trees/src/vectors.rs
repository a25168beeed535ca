//! Which vector instructions compute what: the methods that only some processors have.
//!
//! # Safety
//! [`Sliced::by`] and [`Gathered::by`] make a value only if this processor has the instructions that running it takes.

use std::sync::Arc;
use std::time::Duration;

use crate::bitsliced::{Program, WORDS, avx2, avx512};
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
        let program = Sliced::ALL.contains(&method).then(|| Program::of(plan)).flatten().map(Arc::new);
        Vectors::of(method, program.as_ref())
    }

    fn of(method: Method, program: Option<&Arc<Program>>) -> Vectors {
        let sliced = program.and_then(|program| Sliced::by(method, program));
        Vectors { sliced, worth_filling: 1, gathered: Gathered::by(method) }
    }

    /// The quickest for these trees on this processor, as a trial finds.
    pub fn choose(plan: &Plan, walk: &Walk) -> Vectors {
        let program = Program::of(plan).map(Arc::new);
        let mut ways: Vec<(Method, Vectors)> =
            Method::ALL.into_iter().map(|method| (method, Vectors::of(method, program.as_ref()))).collect();
        let block = |(method, way): &(Method, Vectors)| Some((*method, WORDS * way.sliced.as_ref()?.word()));
        let sliced: Vec<(Method, usize)> = ways.iter().filter_map(block).collect();
        let gathers: Vec<Method> =
            ways.iter().filter(|(_, way)| way.gathered.is_some()).map(|(method, _)| *method).collect();
        if sliced.is_empty() && gathers.is_empty() {
            return Vectors::default();
        }
        let most = sliced.iter().map(|(_, rows)| *rows).max().unwrap_or(portable::BLOCK);
        let (rows, mut sums) = (trial::rows(plan, most), vec![0.0; most * plan.outputs]);
        let mut scratch = Scratch::default();
        let choice = trial::choose(&sliced, &gathers, |method, count| {
            let Some((_, way)) = ways.iter_mut().find(|(other, _)| *other == method) else { return Duration::MAX };
            let (rows, sums) = (&rows[..count * plan.width], &mut sums[..count * plan.outputs]);
            trial::time(|| way.add(walk, plan.outputs, rows, sums, &mut scratch))
        });
        let (method, worth_filling) = choice.sliced.unzip();
        let sliced = method.and_then(|method| ways.into_iter().find(|(other, _)| *other == method)?.1.sliced);
        let gathered = choice.gathered.and_then(Gathered::by);
        Vectors { sliced, worth_filling: worth_filling.unwrap_or(0), gathered }
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
    const ALL: [Method; 2] = [Method::BitSlicedAvx512, Method::BitSlicedAvx2];

    /// With `method`, if it is a bit-sliced one and this processor can run it.
    fn by(method: Method, program: &Arc<Program>) -> Option<Sliced> {
        match method {
            Method::BitSlicedAvx512 if Vectors::available(method) => {
                Some(Sliced::Avx512(program.clone(), avx512::Scratch::of(program)))
            }
            Method::BitSlicedAvx2 if Vectors::available(method) => {
                Some(Sliced::Avx2(program.clone(), avx2::Scratch::of(program)))
            }
            _ => None,
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
