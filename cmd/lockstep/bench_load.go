package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// benchCase is one kind of load on the gateway.
type benchCase struct {
	Name        string
	Connections int
	One         int     // every event is for this one of the customers below; 0: they are spread over all others
	Batch       int     // events in a request to /v1/usage/batch; 0: POST /v1/usage
	Target      float64 // the rate is to be at least so many times the yardstick's; 0: nothing is asked
}

var benchCases = []*benchCase{
	{Name: "uniform-64", Connections: 64},
	{Name: "uniform-256", Connections: 256, Target: 1.5},
	{Name: "hot-64", Connections: 64, One: benchHot},
	{Name: "hot-256", Connections: 256, One: benchHot, Target: 2},
	{Name: "batch-500", Connections: 16, Batch: 500, Target: 4},
}

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
	one       int
	issued    int
	unsure    []benchRange // sent, but not acknowledged: the ledger may have them or not
	latencies []time.Duration
	measured  int // events acknowledged in the measured time
}

// benchKey is the part of an event's key that spreads: keys of real callers are random, and an index is
// touched in other places by random keys than by ascending ones. (splitmix64)
func benchKey(worker, n int) uint64 {
	z := uint64(worker)<<40 + uint64(n) + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// benchCustomer is the customer of an event.
func benchCustomer(one int, key uint64, customers int) int {
	if one != 0 {
		return one
	}
	return int((key >> 8) % uint64(customers))
}

// appendBenchKey writes the idempotency key of an event, from which it can be found again.
func appendBenchKey(buf []byte, key uint64, worker, n int) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		buf = append(buf, "0123456789abcdef"[key>>shift&15])
	}
	buf = strconv.AppendInt(append(buf, '-'), int64(worker), 10)
	return strconv.AppendInt(append(buf, '-'), int64(n), 10)
}

// benchLoad sends load to a gateway and remembers what it was told.
type benchLoad struct {
	addr, key string
	customers int
	workers   []*benchWorker // of all runs so far
}

// acknowledged is how many events the gateway has answered with success in all.
func (l *benchLoad) acknowledged() (n int) {
	for _, w := range l.workers {
		n += w.issued
		for _, r := range w.unsure {
			n -= r.to - r.from
		}
	}
	return n
}

// run puts the load of a case on the gateway, first unmeasured to warm up. Each connection sends its next
// request when the last was answered; those on their way at the end are waited for, so none is cut off.
func (l *benchLoad) run(ctx context.Context, c *benchCase, warm, measure time.Duration) (benchSample, error) {
	path := "/v1/usage"
	if c.Batch > 0 {
		path = "/v1/usage/batch"
	}
	conns := make([]*benchConn, 0, c.Connections)
	defer func() {
		for _, conn := range conns {
			conn.close()
		}
	}()
	for range c.Connections {
		conn, err := dialBench(ctx, l.addr, path, l.key)
		if err != nil {
			return benchSample{}, err
		}
		conns = append(conns, conn)
	}
	r := &benchRun{c: c, customers: l.customers, from: time.Now().Add(warm), to: time.Now().Add(warm + measure)}
	undo := context.AfterFunc(ctx, func() {
		r.stop.Store(true)
		for _, conn := range conns {
			conn.stopBy(time.Now().Add(5 * time.Second)) // what is on its way may still arrive
		}
	})
	defer undo()
	workers := make([]*benchWorker, len(conns))
	var wg sync.WaitGroup
	for i, conn := range conns {
		conn.stopBy(r.to.Add(time.Minute)) // a gateway that hangs fails the run
		workers[i] = &benchWorker{id: len(l.workers), one: c.One, latencies: make([]time.Duration, 0, 4096)}
		l.workers = append(l.workers, workers[i])
		wg.Go(func() { r.work(workers[i], conn) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return benchSample{}, err
	}
	sample := benchSampleOf(workers, measure)
	for _, w := range workers {
		w.latencies = nil
	}
	if err := r.failure.Load(); err != nil {
		return sample, fmt.Errorf("%s: %w", c.Name, *err)
	}
	return sample, nil
}

// benchRun is one run of a case.
type benchRun struct {
	c         *benchCase
	customers int
	from, to  time.Time // what is answered between counts
	stop      atomic.Bool
	failure   atomic.Pointer[error] // the first
}

// work sends one request after the other. The first request that is not acknowledged ends the whole run:
// nothing that is measured here is ever refused.
func (r *benchRun) work(w *benchWorker, conn *benchConn) {
	var body []byte
	events := max(1, r.c.Batch)
	for sent := time.Now(); sent.Before(r.to) && !r.stop.Load(); {
		body = r.body(body[:0], w)
		first := w.issued
		w.issued += events
		sent = time.Now()
		status, answer, err := conn.post(body)
		done := time.Now()
		if err == nil {
			err = r.judge(status, answer)
		}
		if err != nil {
			w.unsure = append(w.unsure, benchRange{first, w.issued})
			r.failure.CompareAndSwap(nil, &err)
			r.stop.Store(true)
			return
		}
		if done.After(r.from) && !done.After(r.to) {
			w.latencies = append(w.latencies, done.Sub(sent))
			w.measured += events
		}
		sent = done
	}
}

// body writes the worker's next request.
func (r *benchRun) body(buf []byte, w *benchWorker) []byte {
	if r.c.Batch == 0 {
		return r.event(buf, w, w.issued)
	}
	buf = append(buf, `{"events":[`...)
	for i := range r.c.Batch {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = r.event(buf, w, w.issued+i)
	}
	return append(buf, `]}`...)
}

func (r *benchRun) event(buf []byte, w *benchWorker, n int) []byte {
	key := benchKey(w.id, n)
	buf = append(buf, `{"customer":"`...)
	buf = appendBenchCustomer(buf, benchCustomer(w.one, key, r.customers))
	buf = append(buf, `","asset":"usd","amount":"`+benchAmount+`","idempotency_key":"`...)
	buf = appendBenchKey(buf, key, w.id, n)
	return append(buf, `"}`...)
}

var (
	benchDebit       = []byte(`"object":"debit"`)
	benchNoneRefused = []byte(`"rejected":0`)
)

// judge reports whether an answer acknowledges all that was sent.
func (r *benchRun) judge(status int, answer []byte) error {
	ok := status == 200 && bytes.Contains(answer, benchDebit)
	if ok && r.c.Batch > 0 {
		accepted := strconv.AppendInt([]byte(`"accepted":`), int64(r.c.Batch), 10)
		ok = bytes.Contains(answer, append(accepted, ',')) && bytes.Contains(answer, benchNoneRefused)
	}
	if !ok {
		return fmt.Errorf("answer %d: %.300s", status, answer)
	}
	return nil
}
