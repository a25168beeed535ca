//! Models: loaded, exchanged, fetched from the registry, kept in the cache.

use std::fmt::Display;
use std::time::Duration;

use super::log_events;

log_events! {
    target: "fraud_scorer::model";

    /// The first model passed every gate.
    info "model-verified" "model bundle verified"
    Verified<'a> {
        model: &'a str as value,
        features: usize as value,
        golden_records: usize as value,
        engine: &'a str as value,
        detail: &'a str as value,
        review: f32 as value,
        decline: f32 as value,
    }

    /// Whoever made the bundle wrote no golden records, so a changed model would not be noticed.
    warn "no-golden-records" "no golden.jsonl: scores are not checked against training's"
    NoGoldenRecords<'a> { bundle: &'a dyn Display as display }

    /// Whoever can write to the folder can change what the bundle is judged by, and nothing would tell.
    warn "file-not-hashed" "a file of the bundle is not hashed by its manifest: list it in [files]"
    FileNotHashed<'a> { bundle: &'a dyn Display as display, file: &'a str as value }

    /// The project's own kernels do not compute this kind of model.
    info "onnxruntime-scores" "ONNX Runtime scores this model"
    OnnxRuntimeScores<'a> { model: &'a str as value, reason: &'a str as value }

    /// A kernel of ours disagrees with ONNX Runtime, which is right: a fault to report, scores are not concerned.
    warn "kernel-disagrees" "ONNX Runtime scores this model"
    KernelDisagrees<'a> { model: &'a str as value, reason: &'a dyn Display as display }

    /// Another model serves; `threads_behind` of the scoring threads had not taken it up yet.
    info "model-swapped" "model swapped"
    Swapped<'a> {
        from: &'a str as value,
        to: &'a str as value,
        why: &'a str as value,
        engine: &'a str as value,
        prepared: Duration as debug,
        took: Duration as debug,
        threads_behind: usize as value,
    }

    /// A candidate failed at a gate.
    warn "model-refused" "model refused; what served goes on"
    Refused<'a> {
        from: &'a str as value,
        to: &'a str as value,
        gate: &'a dyn Display as display,
        reason: &'a str as value,
        took: Duration as debug,
    }

    /// A candidate is the serving model.
    info "model-unchanged" "offered what already serves; nothing changed"
    Unchanged<'a> { model: &'a str as value, origin: &'a str as value }

    /// Somebody asked for the model before this one.
    warn "model-rolled-back" "model rolled back"
    RolledBack<'a> {
        from: &'a str as value,
        to: &'a str as value,
        why: &'a str as value,
        took: Duration as debug,
        threads_behind: usize as value,
    }

    /// There is another challenger, or none any more.
    info "challenger-changed" "challenger changed"
    ChallengerChanged<'a> {
        from: &'a str as value,
        to: &'a str as value,
        why: &'a str as value,
        took: Duration as debug,
        threads_behind: usize as value,
    }

    /// A challenger failed at a gate.
    warn "challenger-refused" "challenger refused"
    ChallengerRefused<'a> {
        from: &'a str as value,
        to: &'a str as value,
        gate: &'a dyn Display as display,
        reason: &'a str as value,
        took: Duration as debug,
    }

    /// The challenger cannot be compared with what serves now.
    warn "challenger-rests" "the challenger rests"
    ChallengerRests<'a> { challenger: &'a str as value, serving: &'a str as value, reason: &'a str as value }

    /// A model's files came from the registry.
    info "model-fetched" "model fetched"
    Fetched<'a> {
        model: &'a dyn Display as display,
        version: &'a str as value,
        count: usize as value,
        bytes: u64 as value,
        took: Duration as debug,
        directory: &'a dyn Display as display,
    }

    /// A model's files need not be fetched.
    info "model-cached" "model is in the cache"
    Cached<'a> { model: &'a dyn Display as display, version: &'a str as value, directory: &'a dyn Display as display }

    /// What the alias stands at was refused at start-up; the version that served last does.
    warn "started-from-last" "the registry's version was refused: starting with the one that served last"
    StartedFromLast<'a> { origin: &'a dyn Display as display, refusal: &'a dyn Display as display }

    /// The registry does not answer at start-up; the version that served last does.
    warn "started-from-cache" "starting from the model cache: the alias may have moved since"
    StartedFromCache<'a> {
        model: &'a dyn Display as display,
        version: &'a str as value,
        directory: &'a dyn Display as display,
        error: &'a dyn Display as display,
    }

    /// The registry does not answer at start-up, and the cache has nothing; said once.
    warn "waiting-for-registry" "waiting for the model registry"
    WaitingForRegistry<'a> { model: &'a dyn Display as display, error: &'a dyn Display as display }

    /// The alias names another version.
    info "alias-moved" "the alias moved: offering this version"
    AliasMoved<'a> { model: &'a dyn Display as display, version: &'a str as value }

    /// The registry, or what it names, is not as it should be; said when it changes, then now and then.
    warn "registry-trouble" "{trouble}"
    RegistryTrouble<'a> { model: &'a dyn Display as display, serving: &'a str as value, trouble: &'a str as said }

    /// The end of `registry-trouble`.
    info "registry-well" "the registry is well again"
    RegistryWell<'a> { model: &'a dyn Display as display, serving: &'a str as value }

    /// The cache could not note which version serves.
    warn "cache-not-pointed" "a start without the registry will not find this version"
    CacheNotPointed<'a> { error: &'a dyn Display as display }

    /// The usual place for the cache cannot be written.
    warn "cache-elsewhere" "no place for the model cache, using temporary files; choose one with --model-cache"
    CacheElsewhere<'a> { directory: &'a dyn Display as display, error: &'a dyn Display as display }

    /// Cached files are not as they came; they are fetched again.
    warn "cached-model-spoiled" "removed from the model cache"
    CachedModelSpoiled<'a> { directory: &'a dyn Display as display, reason: &'a str as value }

    /// A directory of the cache stays, and with it its bytes on disk.
    warn "cache-not-removed" "cannot be removed from the model cache"
    CacheNotRemoved<'a> { directory: &'a dyn Display as display, error: &'a dyn Display as display }

    /// The cache keeps a few versions; this was the oldest.
    info "cache-pruned" "an old model was removed from the cache"
    CachePruned<'a> { directory: &'a dyn Display as display }

    /// Nothing says what an ordinary transaction is, or the model disagrees with its own explanation.
    info "no-reasons" "verdicts of this model have no reasons"
    NoReasons<'a> { model: &'a str as value, reason: &'a dyn Display as display }

    /// Reasons compare a row with an ordinary one: the medians of the training data, or of the golden records.
    warn "reference-unread" "reasons are told by the golden records instead"
    ReferenceUnread<'a> { error: &'a dyn Display as display }

    /// The additive explanation does not sum to the score; features are tried out one by one instead.
    warn "margin-disagrees" "the graph does not say what the model scores"
    MarginDisagrees<'a> { model: &'a str as value, margin: f64 as value, score: f32 as value }

    /// ONNX Runtime's own word on something that failed; what came of it has a line of ours.
    warn "onnxruntime-error" "ONNX Runtime reports an error" (at most every 1 s)
    OnnxRuntimeError<'a> { reason: &'a str as value }

    /// ONNX Runtime's warnings, mostly about graphs that it makes simpler.
    debug "onnxruntime-line" "ONNX Runtime warns"
    OnnxRuntimeLine<'a> { reason: &'a str as value }
}
