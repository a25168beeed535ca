package peers;

/** What the harness says to every contender, in environment variables. */
public record Settings(
    String brokers,
    String in,
    String out,
    String group,
    String model,
    int threads,
    boolean exactlyOnce,
    int commitMillis,
    int lingerMillis,
    int batch) {

  public static Settings fromEnvironment() {
    return new Settings(
        text("BROKERS", null),
        text("IN", null),
        text("OUT", null),
        text("GROUP", null),
        text("MODEL", null),
        number("THREADS", 1),
        text("GUARANTEE", "alo").equals("eos"),
        number("COMMIT_MS", 1000),
        number("LINGER", 5),
        number("BATCH", 1000));
  }

  /** A contender's own further number. */
  public static int number(String name, int otherwise) {
    return Integer.parseInt(text(name, Integer.toString(otherwise)));
  }

  private static String text(String name, String otherwise) {
    String value = System.getenv(name);
    if (value != null && !value.isEmpty()) {
      return value;
    }
    if (otherwise == null) {
      throw new IllegalArgumentException(name + " is not set");
    }
    return otherwise;
  }
}
