package ledger

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// FlushQueue is the order in which this process brings balances in Stripe up to date: the customers whose balance is
// behind, largest and oldest drift first.
//
// The rule: who has waited longest goes first. A large drift counts as a longer wait, by a minute for each tenfold above
// one unit of the currency and by five at most, but never as one from before the customer's last flush. What moves while
// a customer waits is flushed with it, and it keeps the time at which its first drift was seen.
//
// So nobody starves: once a customer waits, a flush of any other is begun at most once before its own, since from then on
// the other's wait is the shorter one. With n customers and r flushes a second the wait is at most n ÷ r.
//
// The queue is only an order. It can be lost: what is to be flushed is seen from the books (StaleMirrors).
// It is safe for concurrent use. The zero value is not ready.
type FlushQueue struct {
	now func() time.Time

	mu        sync.Mutex
	customers map[Ref]*waiting
	order     flushOrder
	ready     chan struct{} // told when there is somebody to be flushed
	busy      int
}

// waiting is a customer whose balance in Stripe is behind. It takes about 200 bytes, and times are nanoseconds of the
// epoch for that reason.
type waiting struct {
	ref    Ref
	since  int64 // when its first drift was seen
	key    int64 // since, less what the size of its drift counts for
	minor  int64 // the drift, without its sign
	looked int64 // when that was seen
	again  int64 // busy, and when it was seen to have moved meanwhile; 0: not
	at     int   // in the order; -1: being flushed, or put off
	busy   bool
}

// NewFlushQueue makes an empty one. now is the ledger's clock.
func NewFlushQueue(now func() time.Time) *FlushQueue {
	return &FlushQueue{now: now, customers: make(map[Ref]*waiting), ready: make(chan struct{}, 1)}
}

// The head start of a large drift.
const (
	headStartUnit = 100 // minor units: less has none
	headStart     = time.Minute
	headStartMost = 5 * time.Minute
)

// headStartOf is what a drift counts as having waited longer.
func headStartOf(minor int64) time.Duration {
	var d time.Duration
	for ; minor >= headStartUnit && d < headStartMost; minor /= 10 {
		d += headStart
	}
	return d
}

// place is where a customer comes in: waiting since then, with such a drift, last flushed then (0: never).
func place(since, minor, flushed int64) int64 {
	return max(since-int64(headStartOf(minor)), min(flushed, since))
}

// lookAgain is how long a customer that waits is not looked at: it is to be flushed anyway, and what it has to be flushed
// by is only seen then.
const lookAgain = time.Minute

// ToLook answers which of the customers have to be compared with the books, to know whether and where they wait.
func (q *FlushQueue) ToLook(refs []Ref) []Ref {
	q.mu.Lock()
	defer q.mu.Unlock()
	seen := q.now().Add(-lookAgain).UnixNano()
	var out []Ref
	for _, ref := range refs {
		if w, ok := q.customers[ref]; !ok || w.at < 0 || w.looked < seen {
			out = append(out, ref)
		}
	}
	return out
}

// Looked tells the queue what a look at customers found: those that are behind wait from now on, at their place, and the
// others no more.
func (q *FlushQueue) Looked(refs []Ref, behind []Behind) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now().UnixNano()
	found := make(map[Ref]bool, len(behind))
	for _, d := range behind {
		found[d.Ref] = true
		q.put(d, now)
	}
	for _, ref := range refs {
		if w, ok := q.customers[ref]; ok && !found[ref] && !w.busy {
			q.forget(w)
		}
	}
	if len(q.order) > 0 {
		wake(q.ready)
	}
}

// put has a customer wait. The caller holds mu.
func (q *FlushQueue) put(d Behind, now int64) {
	since := now
	if d.Since != nil {
		since = min(now, d.Since.UnixNano())
	}
	w, ok := q.customers[d.Ref]
	if !ok {
		w = &waiting{ref: d.Ref, since: since, at: -1}
		q.customers[d.Ref] = w
	}
	w.looked, w.minor = now, d.Minor
	if w.busy {
		if w.again == 0 {
			w.again = now
		}
		return
	}
	var flushed int64
	if d.Flushed != nil {
		flushed = d.Flushed.UnixNano()
	}
	w.since = min(w.since, since)
	w.key = place(w.since, w.minor, flushed)
	switch {
	case d.Later && w.at >= 0:
		heap.Remove(&q.order, w.at)
	case d.Later:
	case w.at >= 0:
		heap.Fix(&q.order, w.at)
	default:
		heap.Push(&q.order, w)
	}
}

func (q *FlushQueue) forget(w *waiting) {
	if w.at >= 0 {
		heap.Remove(&q.order, w.at)
	}
	delete(q.customers, w.ref)
}

// FlushOutcome is how the flush of a customer ended.
type FlushOutcome int

// The outcomes.
const (
	Flushed FlushOutcome = iota // Stripe shows what it should
	Hurried                     // Stripe takes no more just now: it keeps its place
	Taken                       // another has the customer: put off, until a later look puts it back as of its first time
	Failed                      // so as well, and for a while
)

// take answers the customer whose turn it is.
func (q *FlushQueue) take() (Ref, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return Ref{}, false
	}
	w, ok := heap.Pop(&q.order).(*waiting)
	if !ok {
		return Ref{}, false
	}
	w.busy = true
	q.busy++
	return w.ref, true
}

// end tells how it went.
func (q *FlushQueue) end(ref Ref, o FlushOutcome) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w, ok := q.customers[ref]
	if !ok || !w.busy {
		return
	}
	w.busy = false
	q.busy--
	switch {
	case o == Flushed && w.again == 0:
		delete(q.customers, ref)
		return
	case o == Flushed:
		w.since, w.key = w.again, w.again
	}
	seen := w.again != 0 // no other look may follow
	w.again = 0
	if o == Flushed || o == Hurried || seen {
		heap.Push(&q.order, w)
		wake(q.ready)
	}
}

// Run flushes who waits until ctx ends, atOnce at a time, and returns when the last has ended. turn waits until there is
// room at Stripe for one more; only then is it decided who is most urgent. It answers the context that carries the
// turn, and what gives it back if nothing was sent in it.
func (q *FlushQueue) Run(ctx context.Context, atOnce int, turn func(context.Context) (context.Context, func(), error), flush func(context.Context, Ref) FlushOutcome) {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, max(1, atOnce))
	for q.wait(ctx) {
		select {
		case <-ctx.Done():
			return
		case room <- struct{}{}:
		}
		own, giveBack, err := turn(ctx)
		if err != nil {
			return // ctx has ended
		}
		ref, ok := q.take()
		if !ok { // it was seen to be in step meanwhile
			giveBack()
			<-room
			continue
		}
		wg.Go(func() {
			o := flush(own, ref)
			if o == Flushed || o == Taken { // where nothing goes well, nobody is to go faster than the turns
				giveBack()
			}
			q.end(ref, o)
			<-room
		})
	}
}

// wait returns true when somebody is to be flushed, false when ctx has ended.
func (q *FlushQueue) wait(ctx context.Context) bool {
	for {
		q.mu.Lock()
		n := len(q.order)
		q.mu.Unlock()
		if n > 0 {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-q.ready:
		}
	}
}

// QueueState is what may be known of a FlushQueue.
type QueueState struct {
	Waiting  int           // customers whose balance in Stripe is behind, those that are being flushed among them
	Flushing int           // of those
	Lag      time.Duration // since the oldest drift was first seen
}

// State answers how the queue stands.
func (q *FlushQueue) State() QueueState {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now().UnixNano()
	oldest := now
	for _, w := range q.customers {
		oldest = min(oldest, w.since)
	}
	return QueueState{Waiting: len(q.customers), Flushing: q.busy, Lag: time.Duration(now - oldest)}
}

// flushOrder is a heap, the most urgent first; of two who wait alike, the larger drift.
type flushOrder []*waiting

func (o flushOrder) Len() int { return len(o) }
func (o flushOrder) Less(i, j int) bool {
	if o[i].key != o[j].key {
		return o[i].key < o[j].key
	}
	return o[i].minor > o[j].minor
}
func (o flushOrder) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].at, o[j].at = i, j
}
func (o *flushOrder) Push(x any) {
	if w, ok := x.(*waiting); ok {
		w.at = len(*o)
		*o = append(*o, w)
	}
}
func (o *flushOrder) Pop() any {
	old := *o
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*o = old[:len(old)-1]
	w.at = -1
	return w
}
