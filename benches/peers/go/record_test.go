package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// line is a record as the load generator writes them, and its numbers.
func line(random *rand.Rand) ([]byte, []float32) {
	names, numbers, row := make([]string, features), make([]string, features), make([]float32, features)
	for i := range features {
		value := math.Round(random.NormFloat64()*1e6) / 1e6
		names[i], numbers[i], row[i] = fmt.Sprintf("%q", fmt.Sprint("V", i+1)), fmt.Sprint(value), float32(value)
	}
	return fmt.Appendf(nil, `{"columns": [%s], "data": [[%s]]}`,
		strings.Join(names, ", "), strings.Join(numbers, ", ")), row
}

func TestRowsAreReadAsWritten(t *testing.T) {
	random, decode, row := rand.New(rand.NewPCG(1, 1)), newDecoder(), make([]float32, features)
	for range 1000 {
		text, want := line(random)
		if !decode.row(text, row) {
			t.Fatalf("refused: %s", text)
		}
		for i := range want {
			if row[i] != want[i] {
				t.Fatalf("feature %d of %s: %v", i, text, row[i])
			}
		}
	}
}

func TestAnythingButOneRowIsRefused(t *testing.T) {
	decode, row := newDecoder(), make([]float32, features)
	good, _ := line(rand.New(rand.NewPCG(2, 2)))
	if !decode.row(good, row) {
		t.Fatal("refused a good row")
	}
	for _, text := range []string{``, `{`, `{}`, `{"data": []}`, `{"data": [[]]}`, `{"data": [[1, 2]]}`, `{"data": [["x"]]}`} {
		if decode.row([]byte(text), row) {
			t.Errorf("took %q", text)
		}
	}
}

func TestVerdictsAreJSON(t *testing.T) {
	for _, key := range []string{"plain", `quote " backslash \`, "é", ""} {
		var verdict struct {
			Key   string
			Score float32
			Label int
			Error string
		}
		for _, valid := range []bool{true, false} {
			text := appendVerdict(nil, []byte(key), valid, 0.75)
			if err := json.Unmarshal(text, &verdict); err != nil || verdict.Key != key {
				t.Errorf("%s: %v", text, err)
			}
		}
		if verdict.Score != 0.75 || verdict.Label != 1 || verdict.Error == "" {
			t.Errorf("%+v", verdict)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	random, decode, row := rand.New(rand.NewPCG(3, 3)), newDecoder(), make([]float32, features)
	texts := make([][]byte, 1000)
	for i := range texts {
		texts[i], _ = line(random)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		decode.row(texts[i%len(texts)], row)
	}
}
