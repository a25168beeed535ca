package peers;

import java.time.Duration;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.state.StoreBuilder;

/**
 * A Kafka scorer on Kafka Streams, with ONNX Runtime.
 *
 * <p>Guarantee: processing.guarantee is exactly_once_v2 with GUARANTEE=eos, else at_least_once, with
 * commit.interval.ms = COMMIT_MS.
 *
 * <p>MODE=record is what the documentation teaches: mapValues, one ONNX call per record. MODE=batch is
 * {@link BatchProcessor}, which collects up to BATCH records for one call.
 *
 * <p>Tuning: 5,000 records per poll and per partition's buffer, producer batches of 128 KiB, LINGER ms.
 */
public final class Streams {
  public static void main(String[] arguments) {
    Settings settings = Settings.fromEnvironment();
    Properties properties = new Properties();
    properties.put("application.id", settings.group());
    properties.put("bootstrap.servers", settings.brokers());
    properties.put(
        "processing.guarantee", settings.exactlyOnce() ? "exactly_once_v2" : "at_least_once");
    properties.put("commit.interval.ms", settings.commitMillis());
    properties.put("num.stream.threads", settings.threads());
    properties.put("default.key.serde", Serdes.ByteArraySerde.class.getName());
    properties.put("default.value.serde", Serdes.ByteArraySerde.class.getName());
    properties.put("consumer.auto.offset.reset", "earliest");
    properties.put("consumer.max.poll.records", 5000);
    properties.put("buffered.records.per.partition", 5000);
    properties.put("producer.linger.ms", settings.lingerMillis());
    properties.put("producer.batch.size", 131072);

    StreamsBuilder builder = new StreamsBuilder();
    KStream<byte[], byte[]> records = builder.stream(settings.in());
    KStream<byte[], byte[]> verdicts =
        "batch".equals(System.getenv("MODE"))
            ? records.process(batches(settings))
            : oneByOne(records, settings);
    verdicts.to(settings.out());

    KafkaStreams streams = new KafkaStreams(builder.build(), properties);
    streams.setUncaughtExceptionHandler(
        failure -> {
          failure.printStackTrace();
          Runtime.getRuntime().halt(1);
          return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> end(streams)));
    streams.start();
  }

  private static void end(KafkaStreams streams) {
    boolean clean = streams.close(Duration.ofSeconds(30));
    streams.cleanUp();
    // After a signal the JVM would say 143.
    Runtime.getRuntime().halt(clean ? 0 : 1);
  }

  private static KStream<byte[], byte[]> oneByOne(
      KStream<byte[], byte[]> records, Settings settings) {
    ThreadLocal<Scorer> scorers = ThreadLocal.withInitial(() -> new Scorer(settings.model(), 1));
    return records.mapValues(
        (key, value) -> {
          Scorer scorer = scorers.get();
          if (!Records.read(value, scorer.rows(), 0)) {
            return Records.rejection(key);
          }
          scorer.run(1);
          return Records.verdict(key, scorer.score(0));
        });
  }

  private static ProcessorSupplier<byte[], byte[], byte[], byte[]> batches(Settings settings) {
    return new ProcessorSupplier<>() {
      @Override
      public Processor<byte[], byte[], byte[], byte[]> get() {
        return new BatchProcessor(settings);
      }

      @Override
      public Set<StoreBuilder<?>> stores() {
        return Set.of(CommitHook.BUILDER);
      }
    };
  }
}
