package peers;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A Kafka scorer on the plain Java clients, with ONNX Runtime.
 *
 * <p>Guarantee: GUARANTEE=alo flushes the producer and then commits offsets, every COMMIT_MS.
 * GUARANTEE=eos puts verdicts and offsets of each COMMIT_MS into one transaction.
 *
 * <p>Tuning: polls of up to BATCH records scored by one ONNX call over direct buffers; producer
 * batches of 128 KiB, LINGER ms, acks=all, idempotent, no compression. One consumer and one producer
 * per thread.
 */
public final class Plain implements Runnable, ConsumerRebalanceListener {
  private static volatile boolean stopping;

  private final Settings settings;
  private final Scorer scorer;
  private final boolean[] valid;
  private final KafkaConsumer<byte[], byte[]> consumer;
  private final KafkaProducer<byte[], byte[]> producer;

  /** Positions behind what was scored since the last commit; a transaction is open while there are any. */
  private final Map<TopicPartition, OffsetAndMetadata> pending = new HashMap<>();

  private volatile Exception undelivered;

  public static void main(String[] arguments) {
    Settings settings = Settings.fromEnvironment();
    List<Thread> threads = new ArrayList<>();
    for (int number = 0; number < settings.threads(); number++) {
      threads.add(new Thread(new Plain(settings, number), "scorer-" + number));
    }
    Runtime.getRuntime().addShutdownHook(new Thread(() -> drain(threads)));
    threads.forEach(Thread::start);
  }

  private static void drain(List<Thread> threads) {
    stopping = true;
    for (Thread thread : threads) {
      try {
        thread.join();
      } catch (InterruptedException e) {
        break;
      }
    }
    // After a signal the JVM would say 143.
    Runtime.getRuntime().halt(0);
  }

  private Plain(Settings settings, int number) {
    this.settings = settings;
    scorer = new Scorer(settings.model(), settings.batch());
    valid = new boolean[settings.batch()];

    Properties reading = new Properties();
    reading.put("bootstrap.servers", settings.brokers());
    reading.put("group.id", settings.group());
    reading.put("auto.offset.reset", "earliest");
    reading.put("enable.auto.commit", "false");
    reading.put("isolation.level", "read_committed");
    reading.put("max.poll.records", settings.batch());
    consumer =
        new KafkaConsumer<>(reading, new ByteArrayDeserializer(), new ByteArrayDeserializer());

    Properties writing = new Properties();
    writing.put("bootstrap.servers", settings.brokers());
    writing.put("acks", "all");
    writing.put("linger.ms", settings.lingerMillis());
    writing.put("batch.size", 131072);
    if (settings.exactlyOnce()) {
      writing.put("transactional.id", settings.group() + "-" + number);
    }
    producer = new KafkaProducer<>(writing, new ByteArraySerializer(), new ByteArraySerializer());
  }

  @Override
  public void run() {
    try (consumer;
        producer) {
      if (settings.exactlyOnce()) {
        producer.initTransactions();
      }
      consumer.subscribe(List.of(settings.in()), this);
      Duration wait = Duration.ofMillis(Math.min(settings.commitMillis(), 50));
      long interval = settings.commitMillis() * 1_000_000L;
      long committed = System.nanoTime();
      while (!stopping) {
        score(consumer.poll(wait));
        if (!pending.isEmpty() && System.nanoTime() - committed >= interval) {
          commit();
          committed = System.nanoTime();
        }
      }
      commit();
    } catch (Exception e) {
      // What is not committed is read again by the next run.
      e.printStackTrace();
      Runtime.getRuntime().halt(1);
    }
  }

  private void score(ConsumerRecords<byte[], byte[]> records) {
    if (records.isEmpty()) {
      return;
    }
    int count = 0;
    for (ConsumerRecord<byte[], byte[]> record : records) {
      valid[count] = Records.read(record.value(), scorer.rows(), count);
      count++;
    }
    scorer.run(count);
    if (settings.exactlyOnce() && pending.isEmpty()) {
      producer.beginTransaction();
    }
    int row = 0;
    for (ConsumerRecord<byte[], byte[]> record : records) {
      byte[] verdict =
          valid[row]
              ? Records.verdict(record.key(), scorer.score(row))
              : Records.rejection(record.key());
      producer.send(
          new ProducerRecord<>(settings.out(), record.key(), verdict),
          (metadata, failure) -> {
            if (failure != null) {
              undelivered = failure;
            }
          });
      row++;
    }
    pending.putAll(records.nextOffsets());
  }

  private void commit() {
    if (pending.isEmpty()) {
      return;
    }
    if (settings.exactlyOnce()) {
      producer.sendOffsetsToTransaction(pending, consumer.groupMetadata());
      producer.commitTransaction();
    } else {
      producer.flush();
      if (undelivered != null) {
        throw new IllegalStateException("a verdict was not delivered", undelivered);
      }
      consumer.commitSync(pending);
    }
    pending.clear();
  }

  @Override
  public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
    commit();
  }

  @Override
  public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}
}
