//! Every method gives what the interpreter gives, to the last bit.

mod common;

use common::{Comparisons, Likeness, Missing, Weights, rows};
use fraud_trees::ensemble::{Aggregate, Comparison, Ensemble, Node, Tree};
use fraud_trees::kernel::{Kernel, Method};
use proptest::prelude::*;

/// Runs every method that fits, and the kernel's own choice.
fn check(ensemble: &Ensemble, rows: &[f32]) -> Vec<Method> {
    let mut expected = Vec::new();
    ensemble.interpret(rows, &mut expected);
    let chosen = Kernel::compile(ensemble).expect("every valid ensemble compiles");
    let forced = Method::ALL.into_iter().filter_map(|method| Kernel::compile_with(ensemble, method).ok());
    let mut fitted = Vec::new();
    for (number, mut kernel) in std::iter::once(chosen).chain(forced).enumerate() {
        let mut sums = vec![f32::NAN; 3];
        // Twice: scratch memory that was used must not show.
        for _ in 0..2 {
            kernel.sums(rows, &mut sums);
            assert_eq!(sums.len(), expected.len());
            for (at, (sum, expected)) in sums.iter().zip(&expected).enumerate() {
                let same = sum.to_bits() == expected.to_bits() || sum.is_nan() && expected.is_nan();
                assert!(same, "{} (kernel {number}): {sum} instead of {expected} at {at}", kernel.method());
            }
        }
        if number > 0 {
            fitted.push(kernel.chosen());
        }
    }
    fitted
}

fn comparisons() -> impl Strategy<Value = Comparisons> {
    prop_oneof![
        Just(Comparisons::One(Comparison::Less)),
        Just(Comparisons::One(Comparison::LessOrEqual)),
        Just(Comparisons::Ordered),
        Just(Comparisons::All),
    ]
}

fn likeness() -> impl Strategy<Value = Likeness> {
    let size = (1usize..40, 1usize..=5, 0usize..12, 0usize..=16);
    let tree = (prop_oneof![Just(0usize), 0usize..50], prop_oneof![Just(127usize), 1usize..600], any::<bool>());
    let tests = (
        prop_oneof![1usize..10, 200usize..300, 500usize..1200],
        comparisons(),
        prop_oneof![Just(Missing::True), Just(Missing::False), Just(Missing::Mixed)],
    );
    let weights = (
        prop_oneof![Just(Weights::InTurn), Just(Weights::All), Just(Weights::Some)],
        prop_oneof![
            4 => Just(Aggregate::Sum),
            2 => Just(Aggregate::Average),
            1 => Just(Aggregate::Min),
            1 => Just(Aggregate::Max),
        ],
    );
    (any::<u64>(), size, tree, tests, weights).prop_map(|(seed, size, tree, tests, weights)| {
        let (width, outputs, trees, depth) = size;
        let (leaves, nodes, oblivious) = tree;
        let (thresholds, comparisons, missing) = tests;
        let (weights, aggregate) = weights;
        Likeness {
            seed,
            width,
            outputs,
            trees,
            depth,
            leaves,
            nodes,
            thresholds,
            comparisons,
            missing,
            weights,
            aggregate,
            oblivious: oblivious && depth <= 9,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_method_equals_the_interpreter(
        likeness in likeness(),
        count in prop_oneof![0usize..40, 40usize..1100],
        missing in prop_oneof![2 => Just(0usize), 1 => Just(1usize), 1 => Just(30usize)],
        seed in any::<u64>(),
    ) {
        let (ensemble, thresholds) = likeness.ensemble();
        check(&ensemble, &rows(count, missing, &thresholds, seed));
    }
}

fn boosted(trees: usize, depth: usize) -> Likeness {
    Likeness {
        seed: 7,
        width: 29,
        outputs: 1,
        trees,
        depth,
        leaves: 0,
        nodes: usize::MAX,
        thresholds: 120,
        comparisons: Comparisons::One(Comparison::Less),
        missing: Missing::Mixed,
        weights: Weights::InTurn,
        aggregate: Aggregate::Sum,
        oblivious: false,
    }
}

/// Few columns that many nodes compare with: where compares are looked up.
#[test]
fn compares_that_are_looked_up_equal_the_interpreter() {
    for (thresholds, missing) in [(15, 0), (120, 20), (255, 0), (256, 1), (900, 5)] {
        for comparisons in [Comparisons::One(Comparison::Less), Comparisons::All] {
            let likeness = Likeness { width: 3, thresholds, comparisons, ..boosted(80, 6) };
            let (ensemble, thresholds) = likeness.ensemble();
            check(&ensemble, &rows(1100, missing, &thresholds, 3));
        }
    }
}

#[test]
fn every_number_of_rows_around_the_blocks_sizes() {
    let (ensemble, thresholds) = boosted(9, 4).ensemble();
    let all = rows(1100, 2, &thresholds, 1);
    let around = [0, 32, 64, 96, 128, 192, 256, 320, 448, 512, 576, 1024];
    for count in around.into_iter().flat_map(|around: usize| around.saturating_sub(9)..around + 18) {
        check(&ensemble, &all[..count * 29]);
    }
}

#[test]
fn every_depth_fits_the_methods_it_should() {
    for depth in 0..=9 {
        let (ensemble, thresholds) = boosted(5, depth).ensemble();
        let fitted = check(&ensemble, &rows(300, 1, &thresholds, 2));
        let expected = Method::ALL.into_iter().filter(|method| {
            let sliced = matches!(method, Method::BitSlicedAvx512 | Method::BitSlicedAvx2);
            method.is_available() && (!sliced || depth <= 8)
        });
        assert_eq!(fitted, expected.collect::<Vec<_>>(), "depth {depth}");
    }
}

#[test]
fn kernels_can_be_cloned_and_sent() {
    fn check<T: Clone + Send + 'static>() {}
    check::<Kernel>();
}

/// What the documentation of `fraud_trees::kernel` says.
#[test]
fn the_method_is_chosen_by_processor_and_shape() {
    let chosen = |likeness: Likeness| Kernel::compile(&likeness.ensemble().0).map(|kernel| kernel.chosen()).ok();
    let mut sliced: Vec<Option<Method>> = [Method::BitSlicedAvx512, Method::BitSlicedAvx2]
        .into_iter()
        .filter(|method| method.is_available())
        .map(Some)
        .collect();
    if sliced.is_empty() {
        sliced.push(Some(Method::Portable));
    }
    // Which of them, a trial on this processor tells.
    for likeness in [
        boosted(50, 6),
        Likeness { oblivious: true, ..boosted(50, 6) },
        Likeness { leaves: 10, nodes: 61, ..boosted(50, 12) },
    ] {
        let chosen = chosen(likeness);
        assert!(sliced.contains(&chosen), "{chosen:?}");
    }
    // Too many leaves, so walked; by gathers or not, this processor tells.
    let walked = [Method::GatheredAvx512, Method::GatheredAvx2, Method::Portable].map(Some);
    assert!(walked.contains(&chosen(boosted(5, 9))));
    // Only the portable method chooses smallest and largest weights.
    assert_eq!(chosen(Likeness { aggregate: Aggregate::Min, ..boosted(5, 6) }), Some(Method::Portable));
}

#[test]
fn one_feature_with_thousands_of_thresholds() {
    let likeness = Likeness { width: 2, thresholds: 5000, ..boosted(60, 7) };
    let (ensemble, thresholds) = likeness.ensemble();
    check(&ensemble, &rows(700, 5, &thresholds, 3));
}

#[test]
fn nan_and_infinite_weights() {
    let (mut ensemble, thresholds) = boosted(6, 3).ensemble();
    let special = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0];
    let leaves = ensemble.trees.iter_mut().flat_map(|tree| &mut tree.nodes).filter_map(|node| match node {
        Node::Leaf { weights } => weights.first_mut(),
        Node::Branch { .. } => None,
    });
    for (number, leaf) in leaves.enumerate() {
        if number % 7 == 0 {
            leaf.1 = special[number / 7 % special.len()];
        }
    }
    check(&ensemble, &rows(600, 5, &thresholds, 4));
}

#[test]
fn branches_that_share_children() {
    let branch = |comparison, on_true, on_false| Node::Branch {
        feature: 0,
        comparison,
        threshold: 0.5,
        missing_tracks_true: false,
        on_true,
        on_false,
    };
    // Sixty equality tests in a row that share where they lead: far more ways than nodes.
    let mut nodes: Vec<Node> = (0..60)
        .flat_map(|step| {
            [
                branch(Comparison::Equal, 2 * step + 1, 2 * step + 2),
                branch(Comparison::Less, 2 * step + 2, 2 * step + 3),
            ]
        })
        .collect();
    for weight in [1.0, 2.0] {
        nodes.push(Node::Leaf { weights: vec![(0, weight)] });
    }
    let ensemble = Ensemble {
        width: 1,
        outputs: 1,
        trees: vec![Tree { nodes }],
        aggregate: Aggregate::Sum,
        base_values: vec![0.0],
    };
    check(&ensemble, &[0.0, 0.5, 1.0, f32::NAN, f32::INFINITY, -0.5]);
}

#[test]
fn what_does_not_hold_together_is_refused() {
    let leaf = |output| Node::Leaf { weights: vec![(output, 1.0)] };
    let branch = |feature, on_true, on_false| Node::Branch {
        feature,
        comparison: Comparison::Less,
        threshold: 0.0,
        missing_tracks_true: false,
        on_true,
        on_false,
    };
    let ensemble = |nodes: Vec<Node>| Ensemble {
        width: 3,
        outputs: 2,
        trees: vec![Tree { nodes }],
        aggregate: Aggregate::Sum,
        base_values: vec![0.0; 2],
    };
    assert!(Kernel::compile(&ensemble(vec![branch(2, 1, 2), leaf(0), leaf(1)])).is_ok());
    for nodes in [
        vec![],
        vec![leaf(2)],
        vec![Node::Leaf { weights: vec![(1, 1.0), (1, 2.0)] }],
        vec![branch(3, 1, 2), leaf(0), leaf(1)],
        vec![branch(2, 1, 3), leaf(0), leaf(1)],
        vec![branch(2, 0, 1), leaf(0)],
    ] {
        assert!(Kernel::compile(&ensemble(nodes.clone())).is_err(), "{nodes:?}");
    }
    assert!(Kernel::compile(&Ensemble { width: 0, ..ensemble(vec![leaf(0)]) }).is_err());
    assert!(Kernel::compile(&Ensemble { base_values: vec![], ..ensemble(vec![leaf(0)]) }).is_err());
}
