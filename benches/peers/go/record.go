package main

import (
	"strconv"

	json "github.com/goccy/go-json"
)

const features = 29

// decoder reads the first row of "data"; "columns" is skipped and the order taken for granted,
// which favours this program: fraud-scorer looks at the names.
type decoder struct{ message message }

type message struct {
	Data [][]float32 `json:"data"`
}

func newDecoder() *decoder {
	return &decoder{message{Data: make([][]float32, 0, 1)}}
}

// row fills `row` from a record's value; false if that is not one row of `features` numbers.
func (d *decoder) row(value []byte, row []float32) bool {
	d.message.Data = d.message.Data[:0] // keeps the arrays behind it
	if json.Unmarshal(value, &d.message) != nil ||
		len(d.message.Data) != 1 || len(d.message.Data[0]) != features {
		return false
	}
	copy(row, d.message.Data[0])
	return true
}

// appendVerdict writes {"key":…,"score":…,"label":…}, or an error in place of score and label.
func appendVerdict(text, key []byte, valid bool, score float32) []byte {
	text = append(text, `{"key":`...)
	text = appendString(text, key)
	if !valid {
		return append(text, `,"error":"no row of 29 numbers"}`...)
	}
	text = append(text, `,"score":`...)
	text = strconv.AppendFloat(text, float64(score), 'g', -1, 32)
	if score > 0.5 {
		return append(text, `,"label":1}`...)
	}
	return append(text, `,"label":0}`...)
}

func appendString(text, key []byte) []byte {
	for _, c := range key {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			quoted, err := json.Marshal(string(key))
			if err != nil {
				quoted = []byte("null")
			}
			return append(text, quoted...)
		}
	}
	text = append(text, '"')
	text = append(text, key...)
	return append(text, '"')
}
