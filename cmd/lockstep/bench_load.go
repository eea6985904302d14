package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// benchAmount is what each event costs, as sent and in steps of usd.
const (
	benchAmount      = "0.001"
	benchAmountSteps = 1000
)

// benchRange is some events of a worker: from the first on, up to but not with the second.
type benchRange struct{ from, to int }

// benchWorker is one connection of one run of a case. Its events are numbered; together with the worker's
// own number that gives each its idempotency key and its customer, so that afterwards nothing needs to be
// remembered to tell what must be in the ledger but how many there were.
type benchWorker struct {
	id        int
	c         *benchCase
	issued    int          // events that book something
	asked     int          // and that book nothing
	unsure    []benchRange // sent, but not acknowledged: the ledger may have them or not
	latencies []time.Duration
	measured  int // events acknowledged in the measured time
	body      []byte
}

// issue counts the worker's next n events and answers the number of the first.
func (w *benchWorker) issue(n int) int {
	first := w.issued
	w.issued += n
	return first
}

// benchKey is the part of an event's key that spreads: keys of real callers are random, and an index is
// touched in other places by random keys than by ascending ones. (splitmix64)
func benchKey(worker, n int) uint64 {
	z := uint64(worker)<<40 + uint64(n) + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// appendBenchKey writes the idempotency key of an event, from which it can be found again.
func appendBenchKey(buf []byte, key uint64, worker, n int) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		buf = append(buf, "0123456789abcdef"[key>>shift&15])
	}
	buf = strconv.AppendInt(append(buf, '-'), int64(worker), 10)
	return strconv.AppendInt(append(buf, '-'), int64(n), 10)
}

// benchLoad sends load to gateways and remembers what it was told.
type benchLoad struct {
	addrs     []string // of the gateways: connections take turns
	key       string
	customers int
	mixed     int            // customers with cards and rules
	meter     *benchMeter    // nil: what events cost is not measured
	workers   []*benchWorker // of all runs so far

	makeZipf sync.Once
	zipf     benchZipf
}

// pick is the customer of an event.
func (l *benchLoad) pick(c *benchCase, key uint64) int {
	switch {
	case c.One != 0:
		return c.One
	case c.Mix:
		return benchMixed + int((key>>8)%uint64(l.mixed))
	case c.Zipf:
		l.makeZipf.Do(func() { l.zipf = newBenchZipf(l.customers) })
		return l.zipf.pick(key)
	}
	return int((key >> 8) % uint64(l.customers))
}

// acknowledged is how many events the gateway has answered with success in all, but for those that book nothing.
func (l *benchLoad) acknowledged() (n int) {
	for _, w := range l.workers {
		n += w.issued
		for _, r := range w.unsure {
			n -= r.to - r.from
		}
	}
	return n
}

// benchTime is when a run is measured, and how fast it sends.
type benchTime struct {
	warm, measure time.Duration
	rate          float64 // events a second in an open loop; 0: a closed loop
}

// run puts the load of a case on the gateways, first unmeasured to warm up. In a closed loop each connection sends its
// next request when the last was answered. In an open loop requests are due at a fixed rate, whatever the answers do.
// Those on their way at the end are waited for, so none is cut off.
func (l *benchLoad) run(ctx context.Context, c *benchCase, t benchTime) (benchSample, error) {
	conns, err := l.dial(ctx, c.Connections)
	defer func() {
		for _, conn := range conns {
			conn.close()
		}
	}()
	if err != nil {
		return benchSample{}, err
	}
	begun := time.Now()
	r := &benchRun{c: c, load: l, rate: t.rate, begun: begun, from: begun.Add(t.warm), to: begun.Add(t.warm + t.measure)}
	undo := context.AfterFunc(ctx, func() {
		r.stop.Store(true)
		for _, conn := range conns {
			conn.stopBy(time.Now().Add(5 * time.Second)) // what is on its way may still arrive
		}
	})
	defer undo()
	metered := l.meter.during(ctx, r.from, r.to)
	workers := make([]*benchWorker, len(conns))
	var wg sync.WaitGroup
	for i, conn := range conns {
		conn.stopBy(r.to.Add(time.Minute)) // a gateway that hangs fails the run
		workers[i] = &benchWorker{id: len(l.workers), c: c, latencies: make([]time.Duration, 0, 4096)}
		l.workers = append(l.workers, workers[i])
		wg.Go(func() { r.work(workers[i], conn) })
	}
	wg.Wait()
	use, meterErr := metered(r.stop.Load())
	if err := ctx.Err(); err != nil {
		return benchSample{}, err
	}
	sample := benchSampleOf(workers, t.measure)
	sample.Offered = t.rate
	sample.benchUse = use.per(sample.Rate)
	for _, w := range workers {
		w.latencies, w.body = nil, nil
	}
	if err := r.failure.Load(); err != nil {
		return sample, fmt.Errorf("%s: %w", c.Name, *err)
	}
	return sample, meterErr
}

// dial makes connections to the gateways in turns. Those made before an error are answered with it.
func (l *benchLoad) dial(ctx context.Context, n int) (conns []*benchConn, err error) {
	for i := range n {
		conn, err := dialBench(ctx, l.addrs[i%len(l.addrs)], l.key)
		if err != nil {
			return conns, err
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

// benchRun is one run of a case.
type benchRun struct {
	c         *benchCase
	load      *benchLoad
	rate      float64
	begun     time.Time
	from, to  time.Time    // what is answered between counts
	scheduled atomic.Int64 // requests of an open loop so far
	stop      atomic.Bool
	failure   atomic.Pointer[error] // the first
}

// work sends one request after the other. The first request that is not acknowledged ends the whole run:
// nothing that is measured here is ever refused.
func (r *benchRun) work(w *benchWorker, conn *benchConn) {
	for !r.stop.Load() {
		due, ok := r.due()
		if !ok {
			return
		}
		first := w.issued
		if err := r.do(w, conn); err != nil {
			if w.issued > first {
				w.unsure = append(w.unsure, benchRange{first, w.issued})
			}
			r.failure.CompareAndSwap(nil, &err)
			r.stop.Store(true)
			return
		}
		r.count(w, due, time.Now())
		if r.c.Pause > 0 {
			time.Sleep(r.c.Pause)
		}
	}
}

// due waits for and answers when a worker's next request is to be sent: at once, or in an open loop at the next of the
// times that are evenly spread. ok is false when there is none left. All that were due in time are sent, however late.
func (r *benchRun) due() (at time.Time, ok bool) {
	if r.rate == 0 {
		at = time.Now()
		return at, at.Before(r.to)
	}
	n := r.scheduled.Add(1) - 1
	at = r.begun.Add(time.Duration(float64(n) / r.rate * float64(time.Second)))
	if !at.Before(r.to) {
		return at, false
	}
	time.Sleep(time.Until(at))
	return at, true
}

// count notes a request that was due and is done. In an open loop its latency runs from when it was due, not from when a
// connection was free to send it, and it counts however late it was answered: otherwise a gateway that stands still for
// a second would have one slow request for each connection instead of a second's worth of them.
func (r *benchRun) count(w *benchWorker, due, done time.Time) {
	inTime := done.After(r.from) && !done.After(r.to)
	if inTime {
		w.measured += max(1, r.c.Batch)
	}
	if r.rate > 0 {
		inTime = !due.Before(r.from)
	}
	if inTime {
		w.latencies = append(w.latencies, done.Sub(due))
	}
}
