package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// benchSample is what one run of a case, or of the yardstick, showed. Latencies are milliseconds.
type benchSample struct {
	Rate    float64 `json:"rate"`             // events, or the yardstick's transactions, a second
	Beside  float64 `json:"beside,omitzero"`  // the yardstick's, right before and after
	Offered float64 `json:"offered,omitzero"` // events a second that an open loop sent
	P50     float64 `json:"p50_ms,omitzero"`
	P99     float64 `json:"p99_ms,omitzero"`
	P999    float64 `json:"p999_ms,omitzero"`
	Commit  float64 `json:"commit_ms,omitzero"`    // half of the transactions of one client of the yardstick took no longer
	Lag     float64 `json:"mirror_lag_s,omitzero"` // from the end of the load until Stripe showed what it should
	benchUse
}

// benchFigures are a case's medians over the rounds. The ratio is the median of each round's.
type benchFigures struct {
	Case        string `json:"case"`
	Connections int    `json:"connections"`
	benchSample
	Ratio   float64       `json:"ratio,omitzero"`
	Commits float64       `json:"commits,omitzero"` // a lone debit's latency beside a lone transaction's
	Target  float64       `json:"target,omitzero"`
	Within  float64       `json:"within_ms,omitzero"`
	Limit   float64       `json:"within_mb,omitzero"`
	Rounds  []benchSample `json:"rounds"`
}

// benchReport is all that the benchmark found out.
type benchReport struct {
	At         time.Time      `json:"at"`
	Machine    benchMachine   `json:"machine"`
	Rounds     int            `json:"rounds"`
	Seconds    int            `json:"seconds"`
	Customers  int            `json:"customers"`
	Yardstick  benchFigures   `json:"yardstick"`
	Cases      []benchFigures `json:"cases"`
	Flat       []benchFlat    `json:"flat,omitempty"`
	Gateway    float64        `json:"gateway_cpu_seconds"`
	Unmeasured []string       `json:"unmeasured,omitempty"` // what could not be measured here, and why
	Books      *benchBooks    `json:"books"`
}

// benchSampleOf is what the workers of a run measured together.
func benchSampleOf(workers []*benchWorker, measured time.Duration) benchSample {
	var all []time.Duration
	events := 0
	for _, w := range workers {
		all = append(all, w.latencies...)
		events += w.measured
	}
	slices.Sort(all)
	return benchSample{Rate: float64(events) / measured.Seconds(),
		P50: benchPercentile(all, 0.5), P99: benchPercentile(all, 0.99), P999: benchPercentile(all, 0.999)}
}

// benchPercentile is the least of sorted durations that a part p of them does not exceed, in milliseconds.
func benchPercentile(sorted []time.Duration, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	// The product is a little above a whole number at times, 0.999 × 1000 for one.
	rank := int(math.Ceil(p*float64(len(sorted)) - 1e-9))
	return float64(sorted[max(rank, 1)-1]) / float64(time.Millisecond)
}

// benchMedian is the middle one of some numbers, or the mean of the middle two.
func benchMedian(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// benchMedians takes the median of each figure by itself.
func benchMedians(samples []benchSample) benchSample {
	median := func(of func(*benchSample) float64) float64 {
		values := make([]float64, len(samples))
		for i := range samples {
			values[i] = of(&samples[i])
		}
		return benchMedian(values)
	}
	return benchSample{
		Rate:    median(func(s *benchSample) float64 { return s.Rate }),
		Beside:  median(func(s *benchSample) float64 { return s.Beside }),
		Offered: median(func(s *benchSample) float64 { return s.Offered }),
		P50:     median(func(s *benchSample) float64 { return s.P50 }),
		P99:     median(func(s *benchSample) float64 { return s.P99 }),
		P999:    median(func(s *benchSample) float64 { return s.P999 }),
		Commit:  median(func(s *benchSample) float64 { return s.Commit }),
		Lag:     median(func(s *benchSample) float64 { return s.Lag }),
		benchUse: benchUse{
			Gateway:  median(func(s *benchSample) float64 { return s.Gateway }),
			Postgres: median(func(s *benchSample) float64 { return s.Postgres }),
			Load:     median(func(s *benchSample) float64 { return s.Load }),
			WAL:      median(func(s *benchSample) float64 { return s.WAL }),
			Memory:   median(func(s *benchSample) float64 { return s.Memory }),
		},
	}
}

// add counts the samples of one case; nil is the yardstick.
func (r *benchReport) add(c *benchCase, samples []benchSample) {
	f := benchFigures{benchSample: benchMedians(samples), Rounds: samples}
	if c == nil {
		f.Case, f.Connections = "pgbench", yardstickClients
		r.Yardstick = f
		return
	}
	f.Case, f.Connections, f.Target, f.Within, f.Limit = c.Name, c.Connections, c.Target, c.Within, c.Memory
	var ratios, commits []float64
	for _, s := range samples {
		if beside := cmp.Or(s.Beside, r.Yardstick.Rate); beside > 0 && c.compared() {
			ratios = append(ratios, s.Rate/beside)
		}
		if s.Commit > 0 {
			commits = append(commits, s.P50/s.Commit)
		}
	}
	f.Ratio, f.Commits = benchMedian(ratios), benchMedian(commits)
	r.Cases = append(r.Cases, f)
}

// missed names the cases that missed their targets.
func (r *benchReport) missed() error {
	var short []string
	for _, f := range r.Cases {
		if f.Ratio < f.Target {
			short = append(short, fmt.Sprintf("%s is %.2f times pgbench, wanted %.2g", f.Case, f.Ratio, f.Target))
		}
		if f.Within > 0 && f.P99 >= f.Within {
			short = append(short, fmt.Sprintf("%s has a p99 of %.1f ms, wanted less than %.3g", f.Case, f.P99, f.Within))
		}
		if f.Limit > 0 && f.Memory >= f.Limit {
			short = append(short, fmt.Sprintf("%s takes the gateway %.0f MB, wanted less than %.3g", f.Case, f.Memory, f.Limit))
		}
	}
	for _, f := range r.Flat {
		if f.Cost > flatWithin {
			short = append(short, fmt.Sprintf("a debit on %s costs %.2f times one that is not, wanted at most %.2g", f.Case, f.Cost, flatWithin))
		}
	}
	if len(short) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(short, "; "))
	}
	return nil
}

// save writes the report for machines.
func (r *benchReport) save(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
