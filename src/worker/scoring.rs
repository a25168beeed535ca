//! A batch through the stages: admitted, scored, what came before it committed if that is due, its messages queued.

use std::time::{Duration, Instant};

use super::counts::Counts;
use super::positions::Admitted;
use super::protocol::Event;
use super::thread::ScoringThread;
use crate::kafka::batch::{Batch, Record};
use crate::kafka::outbox::BATCHES;
use crate::kafka::position::{Gone, Next};
use crate::log_events;
use crate::model::exchange::Seat;
use crate::pipeline::engine::{Outcome, Times};
use crate::telemetry::metrics::Stage;
use crate::transaction::Interruption;

/// Longest wait for a record: how long a membership change or a signal waits at most on an idle thread.
const IDLE_WAIT: Duration = Duration::from_millis(20);

/// How often payloads are left for candidates to try themselves on.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

impl ScoringThread {
    /// Takes the next batch, scores it, commits what came before it if that is due, and queues its messages.
    pub(super) fn score_batch(&mut self) -> Result<(), Interruption> {
        let queue = self.subscription.queue();
        let mut buffer = std::mem::take(&mut self.buffer);
        let wait = self.committer.due_in().map_or(IDLE_WAIT, |due| due.min(IDLE_WAIT));
        let scored = self.score(queue.fill(&mut buffer, wait));
        self.buffer = buffer;
        let NotScored { cut, again, damaged, is_outdated } = scored?;
        // It holds the member, which may be about to leave.
        drop(queue);
        if is_outdated {
            return self.leave_topic_that_is_gone();
        }
        if !again.is_empty() {
            self.seek_again(&again)?;
        }
        for (partition, reason) in damaged {
            self.reason = reason;
            self.handle(Event::Unreadable(partition))?;
        }
        if cut.is_empty() { Ok(()) } else { self.handle(Event::Cut(cut)) }
    }

    fn score(&mut self, batch: Batch<'_>) -> Result<NotScored, Interruption> {
        self.idle = batch.is_empty();
        if self.idle {
            self.subscription.progress().emptied();
        }
        if !self.idle && self.subscription.is_recreated() {
            // None of these are of the topic that the offsets so far are of.
            return Ok(NotScored { is_outdated: true, ..NotScored::default() });
        }
        let (positions, is_active) = self.protocol.positions_and_active();
        let Admitted { records, runs, gone, cut, again, damaged } =
            positions.admit(&batch, is_active, &self.subscription)?;
        let working = !records.is_empty() && !self.shutdown.is_aborted();
        let taken = Instant::now();
        let times = if working { self.model.engine.run(records.iter().map(Record::payload)) } else { Times::default() };
        // After the scores and before the verdicts: while this batch was scored, the last one's verdicts were delivered.
        self.commit_if_due(batch.len())?;
        if working {
            self.handle(Event::BatchBegins)?;
            self.write(&records, taken, times)?;
            self.next.clear();
            self.next.extend(runs.iter().map(|run| (run.partition, Next { offset: run.next, epoch: run.epoch })));
            self.end_batch()?;
            if self.samples_left.is_none_or(|left| left.elapsed() >= SAMPLE_INTERVAL) {
                self.samples_left = Some(Instant::now());
                leave_samples(&self.seat, &records, self.model.engine.outcomes());
            }
        }
        for (partition, position, begin) in gone {
            self.say_gone(partition, position, (begin, -1), Gone::Deleted { records: begin - position });
        }
        Ok(NotScored { cut, again, damaged, is_outdated: false })
    }

    /// Takes note of what was committed or delivered since, and commits what is due.
    fn commit_if_due(&mut self, came: usize) -> Result<(), Interruption> {
        if self.protocol.is_pending()
            && let Some(took) = self.committer.poll_commit()?
        {
            self.counts.commit_took(took);
            self.handle(Event::Committed)?;
        }
        let mut any = false;
        while let Some((oldest, _)) = self.protocol.on_their_way()
            && self.committer.is_settled(oldest, Duration::ZERO)
        {
            self.handle(Event::Settled)?;
            any = true;
        }
        if any {
            self.committer.check_failures()?;
            self.handle(Event::NoFailure)?;
        }
        self.committer.check_unsettled()?;
        let behind = came >= self.settings.max_batch;
        if self.committer.is_due(behind, came > 0) { self.handle(Event::Due) } else { Ok(()) }
    }

    /// Queues the verdicts of the batch that was just scored, and its comparisons with the challenger.
    fn write(&mut self, records: &[Record<'_>], taken: Instant, times: Times) -> Result<(), Interruption> {
        let began = Instant::now();
        let Counts { open, measured, .. } = &mut self.counts;
        self.writer.write((records, taken), &self.model, &mut self.committer, open)?;
        measured.stage(Stage::Decode, times.decode);
        measured.stage(Stage::Inference, times.inference);
        measured.stage(Stage::Produce, began.elapsed());
        measured.batch(self.model.engine.row_count());
        self.model.engine.observe_drift(began, &mut open.drift);
        if let Some(shadow) = self.challenger.shadow.as_deref_mut().filter(|shadow| shadow.is_active()) {
            // Behind the verdicts: they do not wait for it, only for the next turn.
            let (began, engine) = (Instant::now(), &self.model.engine);
            let failed = shadow.run(engine, records.iter().map(|record| (record.partition(), record.offset())));
            self.instruments.challenger().failed(failed);
            let dropped = self.comparer.write(records, engine, shadow, &mut self.committer, open)?;
            if dropped > 0 {
                self.instruments.dropped(dropped);
            }
            measured.stage(Stage::Challenger, began.elapsed());
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), Interruption> {
        let next = std::mem::take(&mut self.next);
        let queued = self.handle(Event::Queued(&next));
        self.next = next;
        queued?;
        // Numbers of batches are reused after a turn of the ring: never have more batches out.
        while let Some((oldest, _)) = self.protocol.on_their_way().filter(|(_, count)| *count >= BATCHES - 1) {
            self.committer.await_settled(oldest)?;
            self.handle(Event::Settled)?;
        }
        self.committer.end_batch()
    }

    /// Takes up the model that is to score, between two batches: what was scored keeps its version. Where the shelf is in
    /// use, the next turn tries again.
    #[cold]
    pub(super) fn exchange_model(&mut self) {
        if self.seat.exchange(&mut self.model) {
            log_events::pipeline::ModelTakenUp { thread: &self.settings.name, model: &self.model.model.id() }.log();
            self.fit_amount();
            self.fit_challenger();
        }
    }

    /// After a change of champion: which of its features is the amount.
    pub(super) fn fit_amount(&mut self) {
        if self.writer.fit(&self.model.model) {
            self.instruments.amounts().show();
        }
    }

    /// After a change of champion or challenger: which of the rows' columns the challenger gets.
    pub(super) fn fit_challenger(&mut self) {
        let Some(shadow) = self.challenger.shadow.as_deref_mut() else { return };
        // Where it does not fit it rests; the exchange has said why.
        if shadow.fit(&self.model.model).is_ok() {
            self.comparer.between(&self.model.model, shadow.model());
        }
    }
}

/// What of a batch was not scored.
#[derive(Default)]
struct NotScored {
    /// Partitions whose log was cut short below what was read, and where to go on as far as is known.
    cut: Vec<(i32, Option<i64>)>,
    /// Partitions to be read again from where they are.
    again: Vec<i32>,
    /// Partitions whose next batch is damaged, and why that is thought.
    damaged: Vec<(i32, String)>,
    /// Nothing of it: the topic was deleted and made again.
    is_outdated: bool,
}

/// Leaves payloads that were scored for candidates to try themselves on.
fn leave_samples<'a>(seat: &Seat, records: &[Record<'a>], outcomes: &[Outcome]) {
    let scored = |(record, outcome): (&Record<'a>, &Outcome)| match outcome {
        Outcome::Scored(_) => record.payload(),
        Outcome::Rejected(_) => None,
    };
    // The latest ones: some partition's end.
    seat.samples().leave(records.iter().zip(outcomes).rev().filter_map(scored));
}
