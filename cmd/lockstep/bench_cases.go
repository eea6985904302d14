package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// benchCase is one kind of load on the gateway.
type benchCase struct {
	Name        string
	About       string // for people who choose
	Connections int
	One         int           // every event is for this one of the customers that are alone; 0: they are spread over all others
	Zipf        bool          // spread by a zipf distribution, not evenly
	Mix         bool          // spread over the customers with cards and rules
	Batch       int           // events in a request to /v1/usage/batch; 0: one each
	HalfOf      *benchCase    // open loop, at half of the rate that this case showed last; nil: closed loop
	Pause       time.Duration // between an answer and the next request
	Replicas    int           // gateways beside the first, which the connections take turns with

	// call makes one request, or those that belong together, and judges the answer; nil: a debit by POST /v1/usage.
	call func(*benchRun, *benchWorker, *benchConn) error

	Target float64 // the rate is to be at least so many times the yardstick's; 0: nothing is asked
	Within float64 // 99 of 100 are to be answered within so many milliseconds; 0: nothing is asked
	Memory float64 // the gateway is to stay below so many megabytes; 0: nothing is asked
}

var (
	benchPeak = &benchCase{Name: "uniform-256", About: "debits, spread evenly over the wallets, on 256 connections",
		Connections: 256, Target: 2.5}
	benchBatch = &benchCase{Name: "batch-500", About: "batches of 500 debits on 16 connections; an event is a debit",
		Connections: 16, Batch: 500, Target: 10}
)

// benchCases are in the order of a round. The open loop comes soon after the case that says how fast it is to be.
var benchCases = []*benchCase{
	{Name: "uniform-64", About: "debits, spread evenly over the wallets, on 64 connections", Connections: 64},
	benchPeak,
	{Name: "open-loop", About: "debits due at a fixed rate, half of uniform-256's; latencies run from when one was due",
		Connections: 256, HalfOf: benchPeak, Within: 25},
	{Name: "uniform-1024", About: "uniform-256 on 1,024 connections", Connections: 1024, Memory: 150},
	{Name: "zipf", About: "debits on 256 connections, the first wallet gets a seventh of them, the next a fifteenth, …",
		Connections: 256, Zipf: true},
	{Name: "hot-64", About: "debits of one wallet on 64 connections", Connections: 64, One: benchHot},
	{Name: "hot-256", About: "the same on 256", Connections: 256, One: benchHot, Target: 3},
	{Name: "replicas-2", About: "the same with two gateways on one database, half of the connections to each",
		Connections: 256, One: benchHot, Replicas: 1, Target: 1.5},
	benchBatch,
	{Name: "check", About: "GET /v1/customers/{customer}/check on 256 connections", Connections: 256, call: callCheck, Target: 4},
	{Name: "lone", About: "one debit after another with pauses, beside one client of pgbench with such pauses",
		Connections: 1, Pause: 20 * time.Millisecond},
	{Name: "holds", About: "a hold and its capture on 64 connections; an event is both requests", Connections: 64, call: callHold},
	{Name: "mix", About: "debits on 64 connections, one in 500 of which has a saved card charged, and Stripe kept in step",
		Connections: 64, Mix: true},
}

// lone reports whether a case is of one request at a time, to be compared with one transaction at a time.
func (c *benchCase) lone() bool { return c.Pause > 0 }

// compared reports whether a case's rate says something beside the yardstick's: not where the load decides on it.
func (c *benchCase) compared() bool { return c.HalfOf == nil && !c.lone() }

// chooseBenchCases are those with one of the parts, which are separated by commas, in their names, and those that they need.
func chooseBenchCases(parts string) []*benchCase {
	chosen := make(map[*benchCase]bool)
	for part := range strings.SplitSeq(parts, ",") {
		for _, c := range benchCases {
			if strings.Contains(c.Name, strings.TrimSpace(part)) {
				chosen[c] = true
			}
		}
	}
	for _, c := range benchCases {
		if chosen[c] && c.HalfOf != nil {
			chosen[c.HalfOf] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(benchCases), func(c *benchCase) bool { return !chosen[c] })
}

// do makes the case's next request.
func (r *benchRun) do(w *benchWorker, conn *benchConn) error {
	switch {
	case r.c.call != nil:
		return r.c.call(r, w, conn)
	case r.c.Batch > 0:
		return callBatch(r, w, conn)
	}
	return callUsage(r, w, conn)
}

var (
	benchUsagePath = []byte("/v1/usage")
	benchBatchPath = []byte("/v1/usage/batch")
	benchHoldPath  = []byte("/v1/holds")

	benchDebit       = []byte(`"object":"debit"`)
	benchNoneRefused = []byte(`"rejected":0`)
	benchAllowed     = []byte(`"allowed":true`)
	benchCaptured    = []byte(`"status":"captured"`)
	benchHoldID      = []byte(`"id":"`)
)

// refusedBench says that an answer acknowledges nothing.
func refusedBench(status int, answer []byte) error {
	return fmt.Errorf("answer %d: %.300s", status, answer)
}

// callUsage is a debit.
func callUsage(r *benchRun, w *benchWorker, conn *benchConn) error {
	w.body = r.event(w.body[:0], w, w.issue(1), benchAmount)
	status, answer, err := conn.post(benchUsagePath, w.body)
	if err == nil && (status != 200 || !bytes.Contains(answer, benchDebit)) {
		err = refusedBench(status, answer)
	}
	return err
}

// callBatch is a batch of debits, all of which must be accepted.
func callBatch(r *benchRun, w *benchWorker, conn *benchConn) error {
	first := w.issue(r.c.Batch)
	w.body = append(w.body[:0], `{"events":[`...)
	for i := range r.c.Batch {
		if i > 0 {
			w.body = append(w.body, ',')
		}
		w.body = r.event(w.body, w, first+i, benchAmount)
	}
	w.body = append(w.body, `]}`...)
	status, answer, err := conn.post(benchBatchPath, w.body)
	if err != nil {
		return err
	}
	accepted := append(strconv.AppendInt([]byte(`"accepted":`), int64(r.c.Batch), 10), ',')
	if status != 200 || !bytes.Contains(answer, benchDebit) || !bytes.Contains(answer, accepted) || !bytes.Contains(answer, benchNoneRefused) {
		return refusedBench(status, answer)
	}
	return nil
}

// callCheck asks whether a customer could pay, as all can. It books nothing, so its events have a count of their own.
func callCheck(r *benchRun, w *benchWorker, conn *benchConn) error {
	n := w.asked
	w.asked++
	w.body = append(w.body[:0], "/v1/customers/"...)
	w.body = appendBenchCustomer(w.body, r.load.pick(r.c, benchKey(w.id, n)))
	w.body = append(w.body, "/check?asset=usd&amount="+benchAmount...)
	status, answer, err := conn.get(w.body)
	if err == nil && (status != 200 || !bytes.Contains(answer, benchAllowed)) {
		err = refusedBench(status, answer)
	}
	return err
}

// benchHeld is what a hold sets aside: twice what is captured of it, so that the rest goes back.
const benchHeld = "0.002"

// callHold is a hold and its capture, two requests and one event.
func callHold(r *benchRun, w *benchWorker, conn *benchConn) error {
	w.body = r.event(w.body[:0], w, w.issue(1), benchHeld)
	status, answer, err := conn.post(benchHoldPath, w.body)
	if err != nil {
		return err
	}
	_, rest, _ := bytes.Cut(answer, benchHoldID)
	id, _, found := bytes.Cut(rest, []byte(`"`))
	if status != 201 || !found {
		return refusedBench(status, answer)
	}
	path := append(append([]byte("/v1/holds/"), id...), "/capture"...)
	status, answer, err = conn.post(path, []byte(`{"amount":"`+benchAmount+`","final":true}`))
	if err == nil && (status != 200 || !bytes.Contains(answer, benchCaptured)) {
		err = refusedBench(status, answer)
	}
	return err
}

// event writes an event of a worker.
func (r *benchRun) event(buf []byte, w *benchWorker, n int, amount string) []byte {
	key := benchKey(w.id, n)
	buf = append(buf, `{"customer":"`...)
	buf = appendBenchCustomer(buf, r.load.pick(r.c, key))
	buf = append(buf, `","asset":"usd","amount":"`...)
	buf = append(buf, amount...)
	buf = append(buf, `","idempotency_key":"`...)
	buf = appendBenchKey(buf, key, w.id, n)
	return append(buf, `"}`...)
}
