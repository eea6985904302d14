package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A percentile is a duration that was measured: the least that so many do not exceed.
func TestBenchPercentile(t *testing.T) {
	thousand := make([]time.Duration, 1000)
	for i := range thousand {
		thousand[i] = time.Duration(i+1) * time.Millisecond
	}
	for _, c := range []struct {
		of   []time.Duration
		p    float64
		want float64
	}{
		{nil, 0.5, 0},
		{thousand[:1], 0.5, 1}, {thousand[:1], 0.999, 1},
		{thousand[:2], 0.5, 1}, {thousand[:2], 0.99, 2},
		{thousand[:3], 0.5, 2},
		{thousand, 0.5, 500}, {thousand, 0.99, 990}, {thousand, 0.999, 999}, {thousand, 1, 1000},
	} {
		if got := benchPercentile(c.of, c.p); got != c.want {
			t.Errorf("percentile %v of %d: %v, want %v", c.p, len(c.of), got, c.want)
		}
	}
}

func TestBenchMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{7}, 7}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 9, 2}, 3}} {
		if got := benchMedian(c.of); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.of, got, c.want)
		}
	}
}

// The ratio is of medians, and a case without a target can't miss it.
func TestBenchReport(t *testing.T) {
	r := &benchReport{Rounds: 3, Seconds: 5, Customers: 10_000, Books: &benchBooks{Acknowledged: 10, Entries: 10},
		Machine: benchMachine{Postgres: "15.18", Cores: 2, Go: "go1.26", Sync: 0.001, Settings: map[string]string{"fsync": "off"}}}
	r.add(nil, []benchSample{{Rate: 900}, {Rate: 1000}, {Rate: 5000}})
	r.add(&benchCase{Name: "slow"}, []benchSample{{Rate: 500}})
	r.add(&benchCase{Name: "good", Target: 1.5}, []benchSample{{Rate: 1500, P50: 1}, {Rate: 1500, P50: 3}, {Rate: 1, P50: 2}})
	if err := r.missed(); err != nil {
		t.Error(err)
	}
	r.add(&benchCase{Name: "bad", Target: 4}, []benchSample{{Rate: 3990}})
	if err := r.missed(); err == nil || err.Error() != "missed: bad is 3.99 times pgbench, wanted 4" {
		t.Errorf("missed: %v", err)
	}
	var text bytes.Buffer
	if err := r.print(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"pgbench               1000          1\n",
		"slow                   500       0.50              0.00      0.00      0.00\n",
		"good                  1500       1.50   ≥ 1.5      2.00      0.00      0.00\n",
		"bad                   3990       3.99     ≥ 4      0.00      0.00      0.00\n",
		"beware: fsync is off", "does not wait for writes",
		"10 events acknowledged, 10 in the ledger: 0 missing, 0 never sent; 0 findings\n",
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("no line %q in\n%s", line, &text)
		}
	}
}

func TestParsePgbench(t *testing.T) {
	const report = `transaction type: yardstick.sql
number of failed transactions: %d (0.000%%)
latency average = 9.5 ms
initial connection time = 40.1 ms
tps = %s (without initial connection time)
`
	got, err := parsePgbench(fmt.Sprintf(report, 0, "6837.099842"))
	if err != nil || got.Rate != 6837.099842 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "tps = fast", fmt.Sprintf(report, 3, "100"), fmt.Sprintf(report, 0, "0.0")} {
		if _, err := parsePgbench(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

// The client reads answers with a length and in chunks, one after the other on one connection, and notices
// one that is cut off.
func TestBenchConn(t *testing.T) {
	long := strings.Repeat("0123456789", 10_000) // more than any buffer on the way
	var mu sync.Mutex
	connections := make(map[string]bool)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		connections[r.RemoteAddr] = true
		mu.Unlock()
		if r.Method == "GET" && r.Header.Get("Authorization") == "Bearer secret" {
			_, _ = io.WriteString(w, r.URL.RawQuery)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/usage" || r.Header.Get("Authorization") != "Bearer secret" ||
			r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v: %v", r.URL, r.Header, err)
		}
		switch string(body) {
		case "chunks":
			for part := range strings.SplitSeq(long, "5") {
				_, _ = io.WriteString(w, part)
				w.(http.Flusher).Flush()
			}
		case "refuse":
			w.WriteHeader(http.StatusPaymentRequired)
		case "cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
		default:
			_, _ = w.Write(body)
		}
	}))
	defer server.Close()
	conn, err := dialBench(t.Context(), server.Listener.Addr().String(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	conn.stopBy(time.Now().Add(30 * time.Second))
	path := []byte("/v1/usage")
	for _, c := range []struct {
		send   string
		status int
		want   string
	}{{"short", 200, "short"}, {"chunks", 200, strings.ReplaceAll(long, "5", "")}, {"", 200, ""}, {"refuse", 402, ""}, {long, 200, long}, {"short", 200, "short"}} {
		status, answer, err := conn.post(path, []byte(c.send))
		if err != nil || status != c.status || string(answer) != c.want {
			t.Errorf("%.20q: %d, %.20q (%d bytes), %v", c.send, status, answer, len(answer), err)
		}
	}
	if status, answer, err := conn.get([]byte("/check?amount=1")); err != nil || status != 200 || string(answer) != "amount=1" {
		t.Errorf("get: %d, %q, %v", status, answer, err)
	}
	if len(connections) != 1 {
		t.Errorf("%d connections were made", len(connections))
	}
	if _, _, err := conn.post(path, []byte("cut")); err == nil {
		t.Error("an answer that was cut off passed")
	}
}

// benchFake stands in for a gateway: it acknowledges everything, and notes it.
type benchFake struct {
	t        *testing.T
	mu       sync.Mutex
	seen     map[string]string // key → customer
	captured map[string]int    // key of the hold → captures
	checks   int
	refuse   bool
}

type benchFakeEvent struct {
	Customer, Asset, Amount string
	Key                     string `json:"idempotency_key"`
}

func (f *benchFake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, ok := strings.CutPrefix(r.URL.Path, "/v1/customers/bench-"); ok && r.Method == "GET" {
		f.checks++
		_, _ = fmt.Fprintf(w, `{"object":"check","allowed":%v}`, strings.HasSuffix(n, "/check") && r.URL.Query().Get("amount") == benchAmount)
		return
	}
	if key, ok := strings.CutPrefix(r.URL.Path, "/v1/holds/hld_"); ok {
		f.captured[strings.TrimSuffix(key, "/capture")]++
		_, _ = io.WriteString(w, `{"object":"hold","id":"hld_","status":"captured"}`)
		return
	}
	var in struct {
		benchFakeEvent
		Events []benchFakeEvent
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		f.t.Error(err)
	}
	if f.refuse {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	amount := benchAmount
	switch r.URL.Path {
	case "/v1/usage":
		in.Events = []benchFakeEvent{in.benchFakeEvent}
	case "/v1/holds":
		in.Events, amount = []benchFakeEvent{in.benchFakeEvent}, benchHeld
	}
	for _, e := range in.Events {
		if f.seen[e.Key] != "" || e.Asset != "usd" || e.Amount != amount {
			f.t.Errorf("event %+v", e)
		}
		f.seen[e.Key] = e.Customer
	}
	if r.URL.Path == "/v1/holds" {
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"object":"hold","id":"hld_%s","status":"open"}`, in.Key)
		return
	}
	_, _ = fmt.Fprintf(w, `{"accepted":%d,"rejected":0,"data":[{"object":"debit"}]}`, len(in.Events))
}

// What a fake gateway acknowledges is counted, every event under its own key, and the first answer that is
// no acknowledgement ends the run and is not counted.
func TestBenchLoad(t *testing.T) {
	fake := &benchFake{t: t, seen: make(map[string]string), captured: make(map[string]int)}
	server := httptest.NewServer(fake)
	defer server.Close()
	load := &benchLoad{addrs: []string{server.Listener.Addr().String()}, key: "secret", customers: 100, mixed: 5}
	run := func(c *benchCase) (benchSample, error) {
		at := benchTime{warm: 20 * time.Millisecond, measure: 100 * time.Millisecond}
		if c.HalfOf != nil {
			at.rate = 1000
		}
		for { // a machine that stands still for all of the time shows nothing
			sample, err := load.run(t.Context(), c, at)
			if err != nil || sample.Rate > 0 {
				return sample, err
			}
		}
	}
	holds := &benchCase{Name: "holds", Connections: 2, call: callHold}
	for _, c := range []*benchCase{{Name: "uniform", Connections: 4}, {Name: "hot", Connections: 2, One: benchHot}, {Name: "batch", Connections: 2, Batch: 50},
		{Name: "zipf", Connections: 1, Zipf: true}, {Name: "mix", Connections: 1, Mix: true}, {Name: "check", Connections: 1, call: callCheck},
		{Name: "open", Connections: 4, HalfOf: holds}, {Name: "lone", Connections: 1, Pause: time.Millisecond}, holds} {
		sample, err := run(c)
		if err != nil || sample.P50 <= 0 || sample.P999 < sample.P50 {
			t.Errorf("%s: %+v, %v", c.Name, sample, err)
		}
	}
	if got := load.acknowledged(); got != len(fake.seen) {
		t.Errorf("%d acknowledged, %d seen", got, len(fake.seen))
	}
	customers := make(map[string]int)
	for key, customer := range fake.seen {
		customers[customer]++
		w, n, ok := load.event(key)
		if !ok || load.customer(w, n) != customer {
			t.Fatalf("key %q of %s is not found again", key, customer)
		}
	}
	if len(customers) != 106 || customers["bench-hot"] == 0 || customers["bench-mix-4"] == 0 {
		t.Errorf("%d customers, %d events for the hot one", len(customers), customers["bench-hot"])
	}
	held := 0
	for _, w := range load.workers {
		if w.c == holds {
			held += w.issued
		}
	}
	if held == 0 || len(fake.captured) != held || fake.checks == 0 {
		t.Errorf("%d holds, %d captured; %d checks", held, len(fake.captured), fake.checks)
	}
	fake.refuse = true
	if _, err := run(&benchCase{Name: "refused", Connections: 1}); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("refused: %v", err)
	}
	if got := load.acknowledged(); got != len(fake.seen) {
		t.Errorf("%d acknowledged after the refusal, %d seen", got, len(fake.seen))
	}
}

// Keys that nobody made are told apart from those that were.
func TestBenchBooks(t *testing.T) {
	load := &benchLoad{customers: 10, workers: []*benchWorker{{id: 0, c: &benchCase{}, issued: 4, unsure: []benchRange{{1, 2}, {3, 4}}}}}
	good := string(appendBenchKey(nil, benchKey(0, 2), 0, 2))
	for _, key := range []string{"", good + "0", good[1:], "x-0-2", "0000000000000000-0-2", good + "-1", strings.Replace(good, "-0-", "-1-", 1),
		string(appendBenchKey(nil, benchKey(0, 4), 0, 4))} {
		if _, _, ok := load.event(key); ok {
			t.Errorf("key %q passed", key)
		}
	}
	if _, n, ok := load.event(good); !ok || n != 2 {
		t.Errorf("key %q: %d, %v", good, n, ok)
	}
	var b benchBooks
	b.tick(load.workers[0], []bool{true, true, false, false})
	if b.Missing != 1 || b.Unsure != 1 || b.err() == nil {
		t.Errorf("books %+v", b)
	}
}

func TestBenchDatabaseURL(t *testing.T) {
	for server, want := range map[string]string{
		"postgres://u:p%40@h:5433/app?sslmode=disable&dbname=x": "postgres://u:p%40@h:5433/mine?sslmode=disable",
		"postgresql://h": "postgresql://h/mine",
	} {
		got, err := benchDatabaseURL(server, "mine")
		if err != nil || got != want {
			t.Errorf("%s: %s, %v", server, got, err)
		}
		env, err := libpqEnv(got)
		if text := strings.Join(env, "\n") + "\n"; err != nil || !strings.Contains(text, "\nPGHOST=h\n") || !strings.Contains(text, "\nPGDATABASE=mine\n") {
			t.Errorf("%s: %v", got, err)
		}
	}
	if _, err := benchDatabaseURL("host=h password=secret", "mine"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("not a URL: %v", err)
	}
}

func TestBenchFlags(t *testing.T) {
	o, err := parseBenchFlags([]string{"-quick", "-customers", "7"}, io.Discard)
	if err != nil || o.rounds != 1 || o.seconds != 1 || o.customers != 7 || o.warmUp != 0 {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = parseBenchFlags([]string{"-only=open, lone"}, io.Discard); err != nil || len(o.cases) != 3 || o.cases[0] != benchPeak {
		t.Errorf("the open loop is without its peak: %+v, %v", o, err)
	}
	for _, bad := range []string{"-rounds=0", "-seconds=x", "more", "-nope", "-only=none"} {
		if _, err := parseBenchFlags([]string{bad}, io.Discard); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// The whole command, briefly: a gateway of its own on a database of its own, and the books are right.
func TestBenchQuick(t *testing.T) {
	t.Parallel() // no figure is held to anything, and most of it waits
	if testing.Short() || raced {
		t.Skip("takes some seconds, of a program without the race detector")
	}
	if _, err := findPgbench(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	exe := filepath.Join(dir, "lockstep")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		args  []string
		cases int
		flat  int
	}{{[]string{"-only=batch"}, 1, 0}, {[]string{"-grown", "-entries=3000", "-customers=50"}, 4, 4}} {
		r := quickBench(t, exe, filepath.Join(dir, "figures.json"), tt.args)
		if len(r.Cases) != tt.cases || len(r.Flat) != tt.flat || r.Yardstick.Rate <= 0 || r.Books.Acknowledged == 0 || r.Books.Acknowledged != r.Books.Entries {
			t.Errorf("%v: %+v", tt.args, r)
		}
		for _, f := range r.Cases {
			if f.Rate <= 0 || f.Ratio <= 0 || f.P99 <= 0 {
				t.Errorf("%s: %+v", f.Case, f)
			}
		}
		for _, f := range r.Flat {
			if f.Cost <= 0 {
				t.Errorf("%+v", f)
			}
		}
	}
}

func quickBench(t *testing.T, exe, figures string, args []string) (r benchReport) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, append([]string{"bench", "-quick", "-json", figures}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("bench %v: %v\n%s", args, err, out)
	}
	text, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r
}
