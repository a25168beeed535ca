package peers;

import java.util.Map;
import org.apache.kafka.streams.processor.StateStore;
import org.apache.kafka.streams.processor.StateStoreContext;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.internals.CacheFlushListener;
import org.apache.kafka.streams.state.internals.CachedStateStore;

/**
 * A store that stores nothing. A stream task calls {@code flushCache()} of its cached stores just
 * before it collects the offsets to commit, and nothing public runs at that moment. CachedStateStore
 * is internal to Kafka Streams and may change with any version.
 */
final class CommitHook implements StateStore, CachedStateStore<byte[], byte[]> {
  static final String NAME = "commit-hook";
  static final StoreBuilder<CommitHook> BUILDER = new Builder();

  private Runnable action = () -> {};
  private boolean open;

  void beforeCommit(Runnable action) {
    this.action = action;
  }

  @Override
  public void flushCache() {
    action.run();
  }

  @Override
  public void init(StateStoreContext context, StateStore root) {
    context.register(root, (key, value) -> {});
    open = true;
  }

  @Override
  public String name() {
    return NAME;
  }

  @Override
  public void flush() {}

  @Override
  public void close() {
    open = false;
  }

  @Override
  public boolean persistent() {
    return false;
  }

  @Override
  public boolean isOpen() {
    return open;
  }

  @Override
  public boolean setFlushListener(CacheFlushListener<byte[], byte[]> listener, boolean withOld) {
    return false;
  }

  @Override
  public void clearCache() {}

  private static final class Builder implements StoreBuilder<CommitHook> {
    @Override
    public CommitHook build() {
      return new CommitHook();
    }

    @Override
    public String name() {
      return NAME;
    }

    @Override
    public boolean loggingEnabled() {
      return false;
    }

    @Override
    public Map<String, String> logConfig() {
      return Map.of();
    }

    @Override
    public StoreBuilder<CommitHook> withCachingEnabled() {
      return this;
    }

    @Override
    public StoreBuilder<CommitHook> withCachingDisabled() {
      return this;
    }

    @Override
    public StoreBuilder<CommitHook> withLoggingEnabled(Map<String, String> config) {
      return this;
    }

    @Override
    public StoreBuilder<CommitHook> withLoggingDisabled() {
      return this;
    }
  }
}
