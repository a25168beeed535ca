package peers;

import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.typeinfo.TypeHint;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetResetStrategy;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * A Kafka scorer on Apache Flink, in a cluster inside this process, with ONNX Runtime.
 *
 * <p>Guarantee: at least once. Offsets are committed with the checkpoints, every CHECKPOINT_MS
 * (10,000), after the sink has flushed.
 *
 * <p>MODE=record is a map function, one ONNX call per record. MODE=batch is {@link BatchOperator}.
 *
 * <p>Tuning: object reuse on (no copies between the chained operators), 5,000 records per poll,
 * producer batches of 128 KiB, LINGER ms; keys and values pass as bytes. THREADS is the parallelism.
 */
public final class Flink {
  /** A record's key and value. */
  static final TypeInformation<Tuple2<byte[], byte[]>> PAIR =
      TypeInformation.of(new TypeHint<Tuple2<byte[], byte[]>>() {});

  public static void main(String[] arguments) throws Exception {
    Settings settings = Settings.fromEnvironment();
    StreamExecutionEnvironment environment =
        StreamExecutionEnvironment.createLocalEnvironment(settings.threads(), new Configuration());
    environment.enableCheckpointing(Settings.number("CHECKPOINT_MS", 10_000));
    environment.getConfig().enableObjectReuse();

    KafkaSource<Tuple2<byte[], byte[]>> source =
        KafkaSource.<Tuple2<byte[], byte[]>>builder()
            .setBootstrapServers(settings.brokers())
            .setTopics(settings.in())
            .setGroupId(settings.group())
            .setStartingOffsets(OffsetsInitializer.committedOffsets(OffsetResetStrategy.EARLIEST))
            .setProperty("max.poll.records", "5000")
            .setDeserializer(new PairOfRecord())
            .build();

    Properties writing = new Properties();
    writing.put("acks", "all");
    writing.put("linger.ms", Integer.toString(settings.lingerMillis()));
    writing.put("batch.size", "131072");
    KafkaSink<Tuple2<byte[], byte[]>> sink =
        KafkaSink.<Tuple2<byte[], byte[]>>builder()
            .setBootstrapServers(settings.brokers())
            .setKafkaProducerConfig(writing)
            .setRecordSerializer(new RecordOfPair(settings.out()))
            .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
            .build();

    DataStream<Tuple2<byte[], byte[]>> records =
        environment.fromSource(source, WatermarkStrategy.noWatermarks(), "transactions", PAIR);
    DataStream<Tuple2<byte[], byte[]>> verdicts =
        "batch".equals(System.getenv("MODE"))
            ? records.transform(
                "score", PAIR, new BatchOperator(settings.model(), settings.batch()))
            : records.map(new Score(settings.model())).returns(PAIR);
    verdicts.sinkTo(sink);

    // A job of this kind has no end: what came after the last checkpoint is read again.
    Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(0)));
    environment.execute("scorer");
  }

  private static final class PairOfRecord
      implements KafkaRecordDeserializationSchema<Tuple2<byte[], byte[]>> {
    @Override
    public void deserialize(
        ConsumerRecord<byte[], byte[]> record, Collector<Tuple2<byte[], byte[]>> out) {
      out.collect(Tuple2.of(record.key(), record.value()));
    }

    @Override
    public TypeInformation<Tuple2<byte[], byte[]>> getProducedType() {
      return PAIR;
    }
  }

  private record RecordOfPair(String topic)
      implements KafkaRecordSerializationSchema<Tuple2<byte[], byte[]>> {
    @Override
    public ProducerRecord<byte[], byte[]> serialize(
        Tuple2<byte[], byte[]> pair, KafkaSinkContext context, Long timestamp) {
      return new ProducerRecord<>(topic, pair.f0, pair.f1);
    }
  }

  private static final class Score
      extends RichMapFunction<Tuple2<byte[], byte[]>, Tuple2<byte[], byte[]>> {
    private final String model;
    private transient Scorer scorer;

    Score(String model) {
      this.model = model;
    }

    @Override
    public void open(OpenContext context) {
      scorer = new Scorer(model, 1);
    }

    @Override
    public Tuple2<byte[], byte[]> map(Tuple2<byte[], byte[]> pair) {
      if (Records.read(pair.f1, scorer.rows(), 0)) {
        scorer.run(1);
        pair.f1 = Records.verdict(pair.f0, scorer.score(0));
      } else {
        pair.f1 = Records.rejection(pair.f0);
      }
      return pair;
    }
  }
}
