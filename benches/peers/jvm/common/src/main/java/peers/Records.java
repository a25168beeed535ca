package peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.StreamWriteFeature;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;

/**
 * Records in, verdicts out, by Jackson's streaming interface with its fast number parser and writer.
 * Only "data" becomes numbers; "columns" is skipped and the order taken for granted, which favours
 * these contenders: fraud-scorer looks at the names.
 */
public final class Records {
  private static final JsonFactory JSON =
      JsonFactory.builder()
          .enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER)
          .enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER)
          .build();

  private Records() {}

  /** Reads a record's row to row {@code row} of {@code rows}; false if it is not one row of 29. */
  public static boolean read(byte[] value, FloatBuffer rows, int row) {
    try (JsonParser parser = JSON.createParser(value)) {
      if (parser.nextToken() != JsonToken.START_OBJECT) {
        return false;
      }
      for (String name; (name = parser.nextFieldName()) != null; ) {
        JsonToken first = parser.nextToken();
        if (name.equals("data")) {
          return first == JsonToken.START_ARRAY && readData(parser, rows, row * Scorer.FEATURES);
        }
        parser.skipChildren();
      }
      return false;
    } catch (IOException malformed) {
      return false;
    }
  }

  private static boolean readData(JsonParser parser, FloatBuffer rows, int at) throws IOException {
    if (parser.nextToken() != JsonToken.START_ARRAY) {
      return false;
    }
    int count = 0;
    for (JsonToken token; (token = parser.nextToken()) != JsonToken.END_ARRAY; count++) {
      if (!token.isNumeric() || count == Scorer.FEATURES) {
        return false;
      }
      rows.put(at + count, parser.getFloatValue());
    }
    return count == Scorer.FEATURES && parser.nextToken() == JsonToken.END_ARRAY;
  }

  /** The verdict of a record that could be read. */
  public static byte[] verdict(byte[] key, float score) {
    return write(key, true, score);
  }

  /** The verdict of one that could not. */
  public static byte[] rejection(byte[] key) {
    return write(key, false, 0);
  }

  private static byte[] write(byte[] key, boolean valid, float score) {
    ByteArrayOutputStream text = new ByteArrayOutputStream(96);
    try (JsonGenerator json = JSON.createGenerator(text)) {
      json.writeStartObject();
      json.writeStringField("key", key == null ? null : new String(key, StandardCharsets.UTF_8));
      if (valid) {
        json.writeNumberField("score", score);
        json.writeNumberField("label", score > 0.5f ? 1 : 0);
      } else {
        json.writeStringField("error", "no row of 29 numbers");
      }
      json.writeEndObject();
    } catch (IOException impossible) {
      throw new UncheckedIOException(impossible);
    }
    return text.toByteArray();
  }
}
