package main

import (
	"github.com/twmb/franz-go/pkg/kgo"
	ort "github.com/yalue/onnxruntime_go"
)

// batch scores up to `capacity` records per call, in buffers that are used again.
type batch struct {
	session *ort.DynamicAdvancedSession
	decode  *decoder
	rows    []float32 // one row of `features` numbers per record
	scores  []float32 // two probabilities per row: of label 0 and of label 1
	valid   []bool
}

func newBatch(capacity int, session *ort.DynamicAdvancedSession) *batch {
	return &batch{
		session: session,
		decode:  newDecoder(),
		rows:    make([]float32, capacity*features),
		scores:  make([]float32, capacity*2),
		valid:   make([]bool, capacity),
	}
}

func (b *batch) score(records []*kgo.Record, topic string) ([]kgo.Record, error) {
	for i, record := range records {
		b.valid[i] = b.decode.row(record.Value, b.rows[i*features:(i+1)*features])
	}
	if err := b.run(len(records)); err != nil {
		return nil, err
	}
	text := make([]byte, 0, len(records)*64)
	verdicts := make([]kgo.Record, len(records))
	for i, record := range records {
		begin := len(text)
		text = appendVerdict(text, record.Key, b.valid[i], b.scores[i*2+1])
		verdicts[i] = kgo.Record{Topic: topic, Key: record.Key, Value: text[begin:len(text):len(text)]}
	}
	return verdicts, nil
}

func (b *batch) run(n int) error {
	input, err := ort.NewTensor(ort.NewShape(int64(n), features), b.rows[:n*features])
	if err != nil {
		return err
	}
	defer input.Destroy()
	output, err := ort.NewTensor(ort.NewShape(int64(n), 2), b.scores[:n*2])
	if err != nil {
		return err
	}
	defer output.Destroy()
	return b.session.Run([]ort.Value{input}, []ort.Value{output})
}
