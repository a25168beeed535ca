package peers;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.internals.InternalProcessorContext;
import org.apache.kafka.streams.processor.internals.ProcessorNode;

/**
 * Collects records and scores them in one ONNX call: when BATCH are there, every 20 ms, and, through
 * {@link CommitHook}, before every commit. Without the last, Streams would commit the offsets of
 * records that still wait here, and a crash would lose them.
 */
final class BatchProcessor implements Processor<byte[], byte[], byte[], byte[]> {
  private static final Duration PATIENCE = Duration.ofMillis(20);

  /** One for all tasks of a stream thread: the tasks of a thread never run at the same time. */
  private static final ThreadLocal<Scorer> SCORERS = new ThreadLocal<>();

  private final Settings settings;
  private final List<Record<byte[], byte[]>> waiting;
  private final boolean[] valid;
  private ProcessorContext<byte[], byte[]> context;

  BatchProcessor(Settings settings) {
    this.settings = settings;
    waiting = new ArrayList<>(settings.batch());
    valid = new boolean[settings.batch()];
  }

  @Override
  public void init(ProcessorContext<byte[], byte[]> context) {
    this.context = context;
    context.schedule(PATIENCE, PunctuationType.WALL_CLOCK_TIME, now -> flush());
    InternalProcessorContext<?, ?> internal = (InternalProcessorContext<?, ?>) context;
    ProcessorNode<?, ?, ?, ?> here = internal.currentNode();
    CommitHook hook = context.getStateStore(CommitHook.NAME);
    hook.beforeCommit(
        () -> {
          // forward() sends from the current node, and at a commit that is not this one.
          ProcessorNode<?, ?, ?, ?> current = internal.currentNode();
          internal.setCurrentNode(here);
          try {
            flush();
          } finally {
            internal.setCurrentNode(current);
          }
        });
  }

  @Override
  public void process(Record<byte[], byte[]> record) {
    waiting.add(record);
    if (waiting.size() == settings.batch()) {
      flush();
    }
  }

  private void flush() {
    int count = waiting.size();
    if (count == 0) {
      return;
    }
    Scorer scorer = scorer();
    for (int row = 0; row < count; row++) {
      valid[row] = Records.read(waiting.get(row).value(), scorer.rows(), row);
    }
    scorer.run(count);
    for (int row = 0; row < count; row++) {
      Record<byte[], byte[]> record = waiting.get(row);
      context.forward(
          record.withValue(
              valid[row]
                  ? Records.verdict(record.key(), scorer.score(row))
                  : Records.rejection(record.key())));
    }
    waiting.clear();
  }

  private Scorer scorer() {
    if (SCORERS.get() == null) {
      SCORERS.set(new Scorer(settings.model(), settings.batch()));
    }
    return SCORERS.get();
  }
}
