package peers;

import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Collects records and scores them in one ONNX call: when the batch is full, 20 ms after its first
 * record, and before every checkpoint, so that no checkpoint covers a record that still waits here.
 */
final class BatchOperator extends AbstractStreamOperator<Tuple2<byte[], byte[]>>
    implements OneInputStreamOperator<Tuple2<byte[], byte[]>, Tuple2<byte[], byte[]>> {
  private static final long PATIENCE_MILLIS = 20;

  private final String model;
  private final int capacity;
  private transient Scorer scorer;
  private transient List<byte[]> keys;
  private transient boolean[] valid;
  private transient boolean timerSet;
  private transient StreamRecord<Tuple2<byte[], byte[]>> carrier;

  BatchOperator(String model, int capacity) {
    this.model = model;
    this.capacity = capacity;
  }

  @Override
  public void open() throws Exception {
    super.open();
    scorer = new Scorer(model, capacity);
    keys = new ArrayList<>(capacity);
    valid = new boolean[capacity];
    carrier = new StreamRecord<>(null);
  }

  @Override
  public void processElement(StreamRecord<Tuple2<byte[], byte[]>> element) {
    Tuple2<byte[], byte[]> pair = element.getValue();
    int row = keys.size();
    valid[row] = Records.read(pair.f1, scorer.rows(), row);
    keys.add(pair.f0);
    if (keys.size() == capacity) {
      drain();
    } else if (!timerSet) {
      timerSet = true;
      var clock = getProcessingTimeService();
      clock.registerTimer(
          clock.getCurrentProcessingTime() + PATIENCE_MILLIS,
          now -> {
            timerSet = false;
            drain();
          });
    }
  }

  @Override
  public void prepareSnapshotPreBarrier(long checkpoint) throws Exception {
    super.prepareSnapshotPreBarrier(checkpoint);
    drain();
  }

  @Override
  public void finish() throws Exception {
    drain();
    super.finish();
  }

  private void drain() {
    int count = keys.size();
    if (count == 0) {
      return;
    }
    scorer.run(count);
    for (int row = 0; row < count; row++) {
      byte[] key = keys.get(row);
      byte[] verdict =
          valid[row] ? Records.verdict(key, scorer.score(row)) : Records.rejection(key);
      output.collect(carrier.replace(Tuple2.of(key, verdict)));
    }
    keys.clear();
  }
}
