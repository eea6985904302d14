package ledger

import (
	"sync"
	"testing"
	"time"
)

// still is a lane that takes nothing: what is put into it waits.
func still() *lane {
	ln := &lane{}
	ln.some.L = &ln.mu
	return ln
}

// What comes past the bound of a lane's queue is refused at once, and what is in it stays.
func TestFullLaneRefuses(t *testing.T) {
	t.Parallel()
	ln := still()
	var done sync.WaitGroup
	for range laneQueue {
		if err := ln.put(&debitCall{done: &done}); err != nil {
			t.Fatal(err)
		}
	}
	if err := ln.put(&debitCall{done: &done}); !IsCode(err, CodeRateLimited) {
		t.Errorf("one more: %v", err)
	}
	if batch := ln.take(); len(batch) != laneBatch {
		t.Errorf("a batch of %d", len(batch))
	}
	if err := ln.put(&debitCall{done: &done}); err != nil {
		t.Errorf("after a batch was taken: %v", err)
	}
}

// What has waited for too long is refused, and nothing else.
func TestLateCallsAreRefused(t *testing.T) {
	t.Parallel()
	ln := still()
	var done sync.WaitGroup
	done.Add(1)
	old, fresh := &debitCall{done: &done}, &debitCall{}
	for _, c := range []*debitCall{old, fresh} {
		if err := ln.put(c); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	old.since, fresh.since = now.Add(-laneWait-time.Millisecond), now.Add(-laneWait/2)
	ln.clear(now)
	done.Wait()
	if !IsCode(old.result.Err, CodeUnavailable) {
		t.Errorf("the old one: %v", old.result.Err)
	}
	if batch := ln.take(); len(batch) != 1 || batch[0] != fresh || fresh.result.Err != nil {
		t.Errorf("a batch of %d", len(batch))
	}
}

// A lane that has been at one batch for too long takes nothing more until it has ended it.
func TestStuckLaneRefuses(t *testing.T) {
	t.Parallel()
	ln := still()
	call := func() *debitCall { return &debitCall{} }
	if err := ln.put(call()); err != nil {
		t.Fatal(err)
	}
	ln.take()
	if err := ln.put(call()); err != nil {
		t.Errorf("while it works: %v", err)
	}
	ln.busy = time.Now().Add(-laneWait - time.Second)
	if err := ln.put(call()); !IsCode(err, CodeUnavailable) {
		t.Errorf("while it is stuck: %v", err)
	}
	ln.take()
	if err := ln.put(call()); err != nil {
		t.Errorf("at its next batch: %v", err)
	}
}
