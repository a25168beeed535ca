use super::*;

fn run(partition: i32, first: i64, next: i64) -> Run {
    Run { partition, next, epoch: 4, first, last_timestamp: None }
}

#[test]
fn a_record_is_new_once() {
    let mut positions = Positions::default();
    positions.begin(1, Next::at(3));
    positions.read(&run(1, 3, 7));
    let runs = [run(0, 4, 9), run(2, 0, 1)];
    for (partition, offset, new) in
        [(1, 6, false), (1, 7, true), (0, 8, false), (0, 9, true), (2, 1, true), (3, 0, true)]
    {
        assert_eq!(positions.is_new(&runs, partition, offset), new, "{partition} {offset}");
    }
    positions.thrown_away();
    assert!(positions.has_unread(), "what was read is thrown away");
    positions.rewound(&Offsets::from([(1, Next::at(5))]));
    assert!(!positions.is_new(&[], 1, 4), "the last commit decides");
    assert!(positions.is_new(&[], 1, 5) && positions.has_unread());
    positions.read(&run(1, 5, 7));
    assert!(!positions.has_unread(), "all of it was read again");
    assert_eq!(positions.back(&BTreeMap::new()), Offsets::from([(1, Next::at(3))]));
    let committed = |is_of_this_topic| Committed { next: Next::at(6), is_of_this_topic };
    assert_eq!(positions.back(&BTreeMap::from([(1, committed(true))]))[&1], Next::at(6));
    assert_eq!(positions.back(&BTreeMap::from([(1, committed(false))]))[&1], Next::at(3));
    positions.forget(&[1]);
    assert_eq!(positions.begun().count(), 0);
}

#[test]
fn a_gap_after_a_new_beginning_is_looked_at_twice_and_a_partition_rests_where_no_record_came() {
    let mut positions = Positions::default();
    positions.begin(1, Next::at(3));
    assert!(!positions.is_doubtful(&[], 1, 3), "it is what was to come");
    assert!(positions.is_doubtful(&[], 1, 5));
    assert!(!positions.is_doubtful(&[], 1, 5), "the gap is the log's own");
    assert!(positions.is_doubtful(&[], 1, 4) && positions.is_doubtful(&[], 1, 6), "another gap");
    (0..DOUBTFUL_TICKS).for_each(|_| positions.tick());
    assert!(!positions.is_doubtful(&[], 1, 7));

    assert!(positions.at_rest().is_empty(), "it was not asked before");
    assert_eq!(positions.at_rest(), [(1, Next::at(3))]);
    positions.read(&run(1, 3, 4));
    assert!(positions.at_rest().is_empty(), "a record came");
    assert_eq!(positions.at_rest(), [(1, Next { offset: 4, epoch: 4 })]);
    positions.pass(1, 5);
    assert!(positions.at_rest().is_empty() && !positions.has_unread());
    assert_eq!(positions.next(1).map(|next| next.offset), Some(5));
}

#[test]
fn an_older_offset_of_a_later_leader_is_a_log_that_was_cut_short() {
    let mut positions = Positions::default();
    positions.begin(1, Next::at(3));
    assert!(!positions.is_of_later_leader(&[], 1, 9), "nothing was read yet");
    positions.read(&run(1, 3, 7));
    for (epoch, later) in [(NO_EPOCH, false), (3, false), (4, false), (5, true)] {
        assert_eq!(positions.is_of_later_leader(&[], 1, epoch), later, "{epoch}");
    }
    assert!(!positions.is_of_later_leader(&[Run { epoch: 5, ..run(1, 7, 8) }], 1, 5));
    assert_eq!(positions.next(1), Some(Next { offset: 7, epoch: 4 }));
}
