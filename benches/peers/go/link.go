package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// link is one member of the consumer group with its producer, by guarantee.
type link interface {
	client() *kgo.Client
	begin() error
	// commit makes everything produced since begin, and the offsets of what was polled, durable.
	commit(undelivered <-chan error) error
	allowRebalance()
	close()
}

func connect(c config, thread int) (link, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(c.brokers...),
		kgo.ConsumerGroup(c.group),
		kgo.ConsumeTopics(c.in),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.DisableAutoCommit(),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(c.linger),
		kgo.MaxBufferedRecords(200_000),
	}
	if c.exactlyOnce {
		session, err := kgo.NewGroupTransactSession(append(options,
			kgo.TransactionalID(fmt.Sprintf("%s-%d", c.group, thread)),
			kgo.RequireStableFetchOffsets())...)
		return transactional{session}, err
	}
	a := &atLeastOnce{}
	var err error
	a.kafka, err = kgo.NewClient(append(options,
		// Partitions move only between batches, and what was polled from them is committed first.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsRevoked(func(ctx context.Context, client *kgo.Client, _ map[string][]int32) {
			if client.Flush(ctx) == nil {
				_ = client.CommitUncommittedOffsets(ctx)
			}
		}))...)
	return a, err
}

// atLeastOnce flushes verdicts, then commits offsets.
type atLeastOnce struct{ kafka *kgo.Client }

func (a *atLeastOnce) client() *kgo.Client { return a.kafka }
func (a *atLeastOnce) begin() error        { return nil }
func (a *atLeastOnce) allowRebalance()     { a.kafka.AllowRebalance() }
func (a *atLeastOnce) close()              { a.kafka.CloseAllowingRebalance() }

func (a *atLeastOnce) commit(undelivered <-chan error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := a.kafka.Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-undelivered:
		return err // not committed: the next run reads these records again
	default:
		return a.kafka.CommitUncommittedOffsets(ctx)
	}
}

// transactional ends a transaction that holds verdicts and offsets. If the group rebalanced
// meanwhile the session aborts it and rewinds, and the records are polled again.
type transactional struct{ session *kgo.GroupTransactSession }

func (t transactional) client() *kgo.Client { return t.session.Client() }
func (t transactional) begin() error        { return t.session.Begin() }
func (t transactional) allowRebalance()     {}
func (t transactional) close()              { t.session.Close() }

func (t transactional) commit(undelivered <-chan error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := t.session.Client().Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-undelivered:
		return err // the broker aborts the open transaction
	default:
	}
	_, err := t.session.End(ctx, kgo.TryCommit)
	return err
}
