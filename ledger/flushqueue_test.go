package ledger

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// line is a queue with a clock that the test moves, from second 1,000 on.
type line struct {
	*FlushQueue
	at time.Time
}

func newLine() *line {
	l := &line{at: time.Unix(1000, 0)}
	l.FlushQueue = NewFlushQueue(func() time.Time { return l.at })
	return l
}

func (l *line) pass(d time.Duration) { l.at = l.at.Add(d) }

// look has customers looked at who are all behind.
func (l *line) look(behind ...Behind) {
	refs := make([]Ref, len(behind))
	for i, b := range behind {
		refs[i] = b.Ref
	}
	l.Looked(refs, behind)
}

// rest takes everybody, in order.
func (l *line) rest() string {
	var ids []string
	for {
		ref, ok := l.take()
		if !ok {
			return fmt.Sprint(ids)
		}
		ids = append(ids, ref.ID)
	}
}

func customer(id string, minor int64) Behind { return Behind{Ref: Ref{ID: id}, Minor: minor} }

func since(b Behind, seconds int64) Behind {
	at := time.Unix(seconds, 0)
	b.Since = &at
	return b
}

func flushed(b Behind, seconds int64) Behind {
	at := time.Unix(seconds, 0)
	b.Flushed = &at
	return b
}

// The largest drift and the oldest go first: a tenfold of drift counts as much as a minute.
func TestFlushOrder(t *testing.T) {
	for name, tc := range map[string]struct {
		behind []Behind
		want   string
	}{
		"the largest of one moment": {[]Behind{customer("cent", 1), customer("2000.00", 200_000), customer("9.99", 999), customer("10.00", 1000), customer("9.98", 998)},
			"[2000.00 10.00 9.99 9.98 cent]"},
		"the oldest of one size":        {[]Behind{customer("now", 50), since(customer("before", 50), 900), since(customer("between", 50), 950)}, "[before between now]"},
		"a large one before an older":   {[]Behind{since(customer("cent", 1), 950), customer("1.00", 100)}, "[1.00 cent]"},
		"not before a much older":       {[]Behind{since(customer("cent", 1), 930), customer("1.00", 100)}, "[cent 1.00]"},
		"the largest has five minutes":  {[]Behind{since(customer("cent", 1), 699), customer("huge", 1<<62), since(customer("penny", 1), 701)}, "[cent huge penny]"},
		"none from before its flush":    {[]Behind{since(customer("cent", 1), 990), flushed(customer("huge", 1<<62), 995)}, "[cent huge]"},
		"an import without a drift":     {[]Behind{customer("import", 0), customer("9.99", 999)}, "[9.99 import]"},
		"a clock that was ahead of us":  {[]Behind{customer("cent", 1), since(flushed(customer("huge", 1<<62), 5000), 5000)}, "[huge cent]"},
		"who has to be left alone is":   {[]Behind{customer("cent", 1), {Ref: Ref{ID: "later"}, Minor: 100, Later: true}}, "[cent]"},
		"the smallest number is no sum": {[]Behind{customer("cent", 1), customer("least", max(0, -(-1<<63+1)))}, "[least cent]"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine()
			l.look(tc.behind...)
			if got := l.rest(); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

// However the others move, and whatever fails: from the moment that a customer waits, no flush of another is begun twice
// before its own. It follows that n customers at r flushes a second wait n ÷ r at most.
func TestNobodyIsFlushedTwiceBeforeOneWhoWaits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLine()
		last := map[Ref]time.Time{} // flushed
		busy := map[Ref]bool{}
		begun := map[Ref]map[Ref]int{} // of one who waits: whose flush was begun since
		took := func(ref Ref, ok bool) {
			if !ok {
				return
			}
			delete(begun, ref)
			busy[ref] = true
			for other, since := range begun {
				if busy[other] { // it moved while its own flush is under way
					continue
				}
				if since[ref]++; since[ref] > 1 {
					t.Fatalf("%s was flushed %d times while %s waited", ref.ID, since[ref], other.ID)
				}
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			l.pass(time.Duration(rapid.IntRange(1, 90_000).Draw(t, "milliseconds")) * time.Millisecond)
			b := customer(fmt.Sprint(rapid.IntRange(1, 12).Draw(t, "customer")), rapid.Int64Range(0, 10_000_000).Draw(t, "drift"))
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1: // it moves
				if at, ok := last[b.Ref]; ok {
					b.Flushed = &at
				}
				l.look(b)
				if begun[b.Ref] == nil {
					begun[b.Ref] = map[Ref]int{}
				}
			case 2:
				took(l.take())
			case 3:
				if !busy[b.Ref] {
					continue
				}
				delete(busy, b.Ref)
				outcome := Flushed
				if rapid.IntRange(0, 9).Draw(t, "hurried") == 0 {
					outcome = Hurried
					for _, since := range begun { // that was none
						since[b.Ref] = 0
					}
					if begun[b.Ref] == nil {
						begun[b.Ref] = map[Ref]int{}
					}
				} else {
					last[b.Ref] = l.at
				}
				l.end(b.Ref, outcome)
			}
		}
	})
}

// What moves while a customer waits is flushed with it, and it keeps its time; a failure does not make it wait anew, and
// what moves while it is flushed waits from then.
func TestACustomerKeepsItsTime(t *testing.T) {
	l := newLine()
	l.look(customer("acme", 1))
	l.pass(time.Minute)
	l.look(customer("acme", 70))
	if s := l.State(); s.Waiting != 1 || s.Lag != time.Minute {
		t.Errorf("moved again: %+v", s)
	}
	ref, _ := l.take()
	l.end(ref, Failed)
	if _, ok := l.take(); ok {
		t.Error("it was handed out again at once after a failure")
	}
	l.pass(time.Minute)
	l.look(Behind{Ref: ref, Minor: 70, Later: true})
	if _, ok := l.take(); ok {
		t.Error("it was handed out while the failure was waited out")
	}
	l.pass(time.Minute)
	l.look(customer("acme", 70))
	if s := l.State(); s.Lag != 3*time.Minute {
		t.Errorf("after a failure: %+v", s)
	}
	ref, ok := l.take()
	if !ok {
		t.Fatal("it was forgotten after a failure")
	}
	l.pass(time.Second)
	l.look(customer("acme", 5))
	if got := l.rest(); got != "[]" {
		t.Errorf("%s is flushed by two at once", got)
	}
	l.pass(time.Second)
	l.end(ref, Flushed)
	if s := l.State(); s.Waiting != 1 || s.Lag != time.Second {
		t.Errorf("moved while it was flushed: %+v", s)
	}
	l.take()
	l.pass(time.Second)
	l.look(customer("acme", 9))
	l.end(ref, Taken)
	if s := l.State(); s.Lag != 2*time.Second {
		t.Errorf("seen while another had it: %+v", s)
	}
	if got := l.rest(); got != "[acme]" {
		t.Errorf("seen while another had it, waits: %s", got)
	}
	l.end(ref, Failed)
	l.Looked([]Ref{ref}, nil)
	if s := l.State(); s != (QueueState{}) || l.rest() != "[]" {
		t.Errorf("in step: %+v", s)
	}
}

// A customer that waits already is not looked at each time it moves, but once a minute.
func TestOneWhoWaitsIsNotLookedAtAllTheTime(t *testing.T) {
	l := newLine()
	waits, new := Ref{ID: "waits"}, Ref{ID: "new"}
	l.look(customer("waits", 1))
	for after, want := range map[time.Duration]int{time.Second: 1, 2 * time.Minute: 2} {
		now := l.at
		l.pass(after)
		if got := l.ToLook([]Ref{waits, new}); len(got) != want {
			t.Errorf("after %s: %v", after, got)
		}
		l.at = now
	}
	l.take()
	l.pass(time.Second)
	if got := l.ToLook([]Ref{waits}); len(got) != 1 {
		t.Error("what moved while it was being flushed is not looked at")
	}
}

// Run has no more under way than it may, takes a turn for each, gives back those that were not needed, and ends when all
// have ended.
func TestRunTakesATurnForEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewFlushQueue(time.Now)
		ctx, stop := context.WithCancel(t.Context())
		var turns, back, running, most, ended atomic.Int32
		ran := make(chan struct{})
		go func() {
			defer close(ran)
			q.Run(ctx, 3, func(ctx context.Context) (context.Context, func(), error) {
				select {
				case <-ctx.Done():
					return ctx, nil, ctx.Err()
				case <-time.After(time.Second):
				}
				turns.Add(1)
				return ctx, func() { back.Add(1) }, nil
			}, func(_ context.Context, ref Ref) FlushOutcome {
				if n := running.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(10 * time.Second)
				running.Add(-1)
				ended.Add(1)
				if ref.ID == "3" {
					return Failed
				}
				return Flushed
			})
		}()
		for i := range 8 {
			ref := Ref{ID: fmt.Sprint(i)}
			q.Looked([]Ref{ref}, []Behind{{Ref: ref, Minor: 1}})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := q.State(); turns.Load() != 8 || back.Load() != 7 || ended.Load() != 8 || most.Load() != 3 || s.Waiting != 1 || s.Flushing != 0 {
			t.Errorf("%d turns, %d given back, %d ended, %d at once; %+v", turns.Load(), back.Load(), ended.Load(), most.Load(), s)
		}
		ref := Ref{ID: "last"}
		q.Looked([]Ref{ref}, []Behind{{Ref: ref, Minor: 1}})
		time.Sleep(2 * time.Second)
		stop()
		<-ran
		if ended.Load() != 9 {
			t.Error("it ended before its last flush had")
		}
	})
}

// A hundred thousand customers who wait take less than 30 MB.
func TestTheQueueIsSmall(t *testing.T) {
	const n = 100_000
	refs := make([]Ref, n)
	for i := range refs {
		refs[i] = Ref{Bucket: int16(i % 64), ID: fmt.Sprintf("customer-%06d", i)}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	l := newLine()
	for _, ref := range refs {
		l.Looked([]Ref{ref}, []Behind{{Ref: ref, Minor: int64(len(l.customers))}})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n
	t.Logf("%d bytes each", each)
	if s := l.State(); each > 300 || s.Waiting != n {
		t.Errorf("%d bytes each, %+v", each, s)
	}
}
