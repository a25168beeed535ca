package peers;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.Map;

/**
 * ONNX Runtime on one thread's buffers. Rows and probabilities live in direct memory that the
 * library reads and writes in place; the tensors of a whole batch, by far the most frequent size,
 * are made once. All scorers of a process share one session, which has no threads of its own.
 */
public final class Scorer {
  public static final int FEATURES = 29;

  private static final OrtEnvironment ENVIRONMENT = OrtEnvironment.getEnvironment();
  private static OrtSession shared;

  private final OrtSession session;
  private final FloatBuffer rows;
  private final FloatBuffer probabilities;
  private final int capacity;
  private final Tensors whole;

  public Scorer(String model, int capacity) {
    this.capacity = capacity;
    rows = direct(capacity * FEATURES);
    probabilities = direct(capacity * 2);
    try {
      session = session(model);
      whole = tensors(capacity);
    } catch (OrtException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Where rows to score are written, one after the other. */
  public FloatBuffer rows() {
    return rows;
  }

  public int capacity() {
    return capacity;
  }

  /** Scores rows 0 to {@code count - 1}. */
  public void run(int count) {
    try {
      if (count == capacity) {
        run(whole);
      } else {
        try (Tensors part = tensors(count)) {
          run(part);
        }
      }
    } catch (OrtException e) {
      throw new IllegalStateException(e);
    }
  }

  /** The probability of label 1, from the last run. */
  public float score(int row) {
    return probabilities.get(row * 2 + 1);
  }

  private void run(Tensors tensors) throws OrtException {
    session
        .run(Map.of("input", tensors.input), Map.of("probabilities", tensors.probabilities))
        .close();
  }

  private Tensors tensors(int count) throws OrtException {
    return new Tensors(
        OnnxTensor.createTensor(
            ENVIRONMENT, rows.slice(0, count * FEATURES), new long[] {count, FEATURES}),
        OnnxTensor.createTensor(
            ENVIRONMENT, probabilities.slice(0, count * 2), new long[] {count, 2}));
  }

  private record Tensors(OnnxTensor input, OnnxTensor probabilities) implements AutoCloseable {
    @Override
    public void close() {
      input.close();
      probabilities.close();
    }
  }

  private static synchronized OrtSession session(String model) throws OrtException {
    if (shared == null) {
      OrtSession.SessionOptions options = new OrtSession.SessionOptions();
      options.setIntraOpNumThreads(1);
      options.setInterOpNumThreads(1);
      shared = ENVIRONMENT.createSession(model, options);
    }
    return shared;
  }

  private static FloatBuffer direct(int floats) {
    return ByteBuffer.allocateDirect(floats * Float.BYTES)
        .order(ByteOrder.nativeOrder())
        .asFloatBuffer();
  }
}
