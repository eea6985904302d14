package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Each wallet gets its share of the events by a zipf distribution, and no key goes to none.
func TestBenchZipf(t *testing.T) {
	const n, events = 100, 200_000
	z := newBenchZipf(n)
	counts := make([]int, n)
	for i := range events {
		counts[z.pick(benchKey(3, i))]++
	}
	sum := 0.0
	for rank := 1; rank <= n; rank++ {
		sum += math.Pow(float64(rank), -benchSkew)
	}
	for _, rank := range []int{1, 2, 10, n} {
		want := events * math.Pow(float64(rank), -benchSkew) / sum
		if got := float64(counts[rank-1]); math.Abs(got-want) > 6*math.Sqrt(want) {
			t.Errorf("wallet %d got %.0f events, want about %.0f", rank, got, want)
		}
	}
	if z.pick(0) != 0 || z.pick(math.MaxUint64) != n-1 {
		t.Errorf("the ends are %d and %d", z.pick(0), z.pick(math.MaxUint64))
	}
}

// A gateway that stands still is seen by all that was due meanwhile, not by the one request that was on its way.
func TestBenchOpenLoop(t *testing.T) {
	begun := time.Now().Add(-time.Hour)
	after := func(d time.Duration) time.Time { return begun.Add(d) }
	r := &benchRun{c: &benchCase{}, rate: 10, begun: begun, from: after(200 * time.Millisecond), to: after(time.Second)}
	w := &benchWorker{}
	for n := range 11 {
		due, ok := r.due()
		if ok != (n < 10) || ok && !due.Equal(after(time.Duration(n)*100*time.Millisecond)) {
			t.Fatalf("request %d is due at %v, %v", n, due.Sub(begun), ok)
		}
		if ok {
			r.count(w, due, after(2*time.Second)) // all are answered at once, a second after the end
		}
	}
	var want []time.Duration
	for d := 1800 * time.Millisecond; d > time.Second; d -= 100 * time.Millisecond {
		want = append(want, d)
	}
	if !slices.Equal(w.latencies, want) || w.measured != 0 {
		t.Errorf("latencies %v, want %v; %d within the time", w.latencies, want, w.measured)
	}

	closed := &benchRun{c: &benchCase{Batch: 5}, from: r.from, to: r.to}
	w = &benchWorker{}
	closed.count(w, after(100*time.Millisecond), after(200*time.Millisecond)) // the warm-up's
	closed.count(w, after(100*time.Millisecond), after(300*time.Millisecond))
	closed.count(w, after(900*time.Millisecond), after(1100*time.Millisecond)) // too late
	if !slices.Equal(w.latencies, []time.Duration{200 * time.Millisecond}) || w.measured != 5 {
		t.Errorf("closed loop: %v, %d", w.latencies, w.measured)
	}
	if at, ok := closed.due(); ok {
		t.Errorf("a request is due at %v, after the end", at)
	}
}

// A case is compared with the yardstick right before and right after it, and the ratio is the median of its rounds'.
func TestBenchBeside(t *testing.T) {
	a, b, c := &benchCase{Name: "a"}, &benchCase{Name: "b"}, &benchCase{Name: "c"}
	round := benchRound([]*benchCase{a, b, c})
	if !slices.Equal(round, []*benchCase{nil, a, b, nil, c, nil}) {
		t.Fatalf("round %v", round)
	}
	if alone := benchRound([]*benchCase{a}); !slices.Equal(alone, []*benchCase{nil, a}) {
		t.Errorf("a case by itself: %v", alone)
	}
	samples := []benchSample{{Rate: 100}, {}, {}, {Rate: 200}, {}, {Rate: 400}}
	beside(round, samples)
	if samples[1].Beside != 150 || samples[2].Beside != 150 || samples[4].Beside != 300 || samples[0].Beside != 0 {
		t.Errorf("%+v", samples)
	}
	r := &benchReport{}
	r.add(nil, []benchSample{{Rate: 1000}})
	r.add(a, []benchSample{{Rate: 200, Beside: 100}, {Rate: 3000, Beside: 1000}, {Rate: 50_000, Beside: 10_000}})
	r.add(&benchCase{Name: "lone", Pause: 1}, []benchSample{{Rate: 50, P50: 3, Commit: 2}, {Rate: 50, P50: 10, Commit: 1}, {Rate: 50, P50: 4, Commit: 2}})
	if got := r.Cases; got[0].Ratio != 3 || got[1].Ratio != 0 || got[1].Commits != 2 {
		t.Errorf("%+v", got)
	}
}

// Each kind of target is missed by its own name.
func TestBenchTargets(t *testing.T) {
	r := &benchReport{}
	r.add(nil, []benchSample{{Rate: 1000}})
	r.add(&benchCase{Name: "rate", Target: 2.5}, []benchSample{{Rate: 2499}})
	r.add(&benchCase{Name: "open", HalfOf: benchPeak, Within: 25}, []benchSample{{Rate: 1, P99: 25}})
	r.add(&benchCase{Name: "memory", Memory: 150}, []benchSample{{Rate: 1, benchUse: benchUse{Memory: 151}}})
	const want = "missed: rate is 2.50 times pgbench, wanted 2.5; open has a p99 of 25.0 ms, wanted less than 25; memory takes the gateway 151 MB, wanted less than 150"
	if err := r.missed(); err == nil || err.Error() != want {
		t.Errorf("missed: %v", err)
	}
	r.Cases = nil
	r.add(&benchCase{Name: "met", Target: 2.5, Within: 25, Memory: 150}, []benchSample{{Rate: 2500, P99: 24.9, benchUse: benchUse{Memory: 149}}})
	if err := r.missed(); err != nil {
		t.Errorf("missed: %v", err)
	}
}

// What an event costs is printed where it was measured, and a reason where it was not: never a zero.
func TestBenchUse(t *testing.T) {
	before := benchReading{at: time.Unix(100, 0), gateway: time.Second, wal: 1000}
	after := benchReading{at: time.Unix(102, 0), gateway: 2 * time.Second, postgres: time.Second, load: 500 * time.Millisecond, wal: 9000}
	use := after.since(before).per(200)
	if use != (benchUse{Gateway: 2500, Postgres: 2500, Load: 1250, WAL: 20}) {
		t.Errorf("%+v", use)
	}
	r := &benchReport{Books: &benchBooks{}, Unmeasured: []string{"PostgreSQL is far away"}}
	use.Postgres = 0
	r.add(nil, []benchSample{{Rate: 1000}})
	r.add(&benchCase{Name: "one"}, []benchSample{{Rate: 100, benchUse: use}})
	var text bytes.Buffer
	if err := r.print(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"one                      2500                      1250         20\n", "PostgreSQL is far away\n"} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("no line %q in\n%s", line, &text)
		}
	}
	figures, err := json.Marshal(r.Cases[0])
	if err != nil || !bytes.Contains(figures, []byte(`"gateway_cpu_us":2500,"load_cpu_us":1250,"wal_bytes":20`)) || bytes.Contains(figures, []byte("postgres")) {
		t.Errorf("%s, %v", figures, err)
	}
}

// A process's name may be anything; a child's time is its parent's once it has ended; what has no fit form is an error.
func TestBenchProc(t *testing.T) {
	stat := func(name string, parent, utime, stime, cutime, cstime int) string {
		fields := []int{parent, 1, 1, 0, -1, 4194560, 1, 2, 3, 4, utime, stime, cutime, cstime, 20, 0, 1, 0, 12345}
		text := "77 (" + name + ") S"
		for _, f := range fields {
			text += " " + strconv.Itoa(f)
		}
		return text + "\n"
	}
	got, err := parseProcStat([]byte(stat("a) S 9 (b", 5, 150, 50, 7, 3)))
	if want := (procStat{"a) S 9 (b", 5, 2 * time.Second, 100 * time.Millisecond}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "77 (a", "77 (a) S 1 2", strings.Replace(stat("a", 5, 150, 1, 1, 1), " 150 ", " x ", 1), strings.Replace(stat("a", 5, 1, 1, 1, 1), " 5 ", " . ", 1)} {
		if _, err := parseProcStat([]byte(bad)); !errors.Is(err, errProcStat) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	proc := t.TempDir()
	for pid, text := range map[string]string{"10": stat("postgres", 1, 100, 0, 200, 0), "11": stat("postgres", 10, 10, 20, 0, 0),
		"12": stat("postgres", 10, 1, 0, 0, 2), "13": stat("other", 1, 5000, 0, 0, 0), "self": "", "14": "ended"} {
		if err := os.Mkdir(filepath.Join(proc, pid), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "stat"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if sum, err := familyCPU(proc, 10); err != nil || sum != 3330*time.Millisecond {
		t.Errorf("the family took %v, %v", sum, err)
	}
	if peak, err := parsePeakMemory([]byte("VmPeak:\t 9 kB\nVmHWM:\t  2048 kB\nVmRSS:\t 7 kB\n")); err != nil || peak != 2<<20 {
		t.Errorf("peak %d, %v", peak, err)
	}
	if _, err := parsePeakMemory([]byte("VmHWM:\t many kB\n")); err == nil {
		t.Error("many kB passed")
	}
}

// Without /proc the report says so.
func TestBenchMeterMissing(t *testing.T) {
	m, err := newBenchMeter(t.Context(), nil, filepath.Join(t.TempDir(), "proc"))
	if err != nil || len(m.missing) != 1 || !strings.Contains(m.missing[0], "/proc") {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestParsePgbenchLog(t *testing.T) {
	took, err := parsePgbenchLog("0 1 1500 0 1700000000 12 500\n0 2 1100 0 1700000000 13 300\n0 3 2000 0 1700000000 14 0\n")
	if err != nil || !slices.Equal(took, []time.Duration{800 * time.Microsecond, time.Millisecond, 2 * time.Millisecond}) {
		t.Errorf("%v, %v", took, err)
	}
	for _, bad := range []string{"", "0 1 1500 0 1700000000 12\n", "0 1 skipped 0 1700000000 12 500\n", "0 1 100 0 1700000000 12 500\n"} {
		if _, err := parsePgbenchLog(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

// The picture is well-formed XML, names every case as it is, has a bar for each rate that is compared, and says in what
// color a target is.
func TestBenchSVG(t *testing.T) {
	r := &benchReport{Rounds: 3, Seconds: 5, Machine: benchMachine{Postgres: `15 "<&>`}}
	r.add(nil, []benchSample{{Rate: 1000}})
	r.add(&benchCase{Name: "<met> & more", Target: 2}, []benchSample{{Rate: 3000, P50: 1.5, P99: 30}})
	r.add(&benchCase{Name: "short", Target: 10}, []benchSample{{Rate: 3000, P50: 100, P99: 900}})
	r.add(&benchCase{Name: "open", HalfOf: benchPeak, Within: 25}, []benchSample{{Rate: 500, P50: 2, P99: 20}})
	r.add(&benchCase{Name: "lone", Pause: 1}, []benchSample{{Rate: 50, P50: 2, P99: 3, Commit: 1}})
	r.add(&benchCase{Name: "nothing"}, []benchSample{{}})
	picture := r.svg()
	var texts []string
	count := make(map[string]int)
	d := xml.NewDecoder(bytes.NewReader(picture))
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
		switch token := token.(type) {
		case xml.StartElement:
			count[token.Name.Local]++
			for _, a := range token.Attr {
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("%s has %s", token.Name.Local, a.Value)
				}
				if a.Name.Local == "class" {
					count[a.Value]++
				}
			}
		case xml.CharData:
			texts = append(texts, string(token))
		}
	}
	for _, want := range []string{"<met> & more", "short", "3.00×  3000/s", "1.5 / 30"} {
		if !slices.Contains(texts, want) {
			t.Errorf("no text %q in %q", want, texts)
		}
	}
	if count["rect"] != 3 || count["met"] != 3 || count["missed"] != 2 { // two of each verdict's lines are the legend's
		t.Errorf("%v", count)
	}
	if !bytes.Contains(picture, []byte("prefers-color-scheme: dark")) {
		t.Error("the picture knows no dark mode")
	}
	(&benchReport{}).svg() // nothing measured is no reason to fail
}
