package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// benchSample is what one run of a case, or of the yardstick, showed. Latencies are milliseconds.
type benchSample struct {
	Rate float64 `json:"rate"` // events, or the yardstick's transactions, a second
	P50  float64 `json:"p50_ms,omitzero"`
	P99  float64 `json:"p99_ms,omitzero"`
	P999 float64 `json:"p999_ms,omitzero"`
}

// benchFigures are a case's medians over the rounds.
type benchFigures struct {
	Case        string `json:"case"`
	Connections int    `json:"connections"`
	benchSample
	Ratio  float64       `json:"ratio,omitzero"`
	Target float64       `json:"target,omitzero"`
	Rounds []benchSample `json:"rounds"`
}

// benchReport is all that the benchmark found out.
type benchReport struct {
	At        time.Time      `json:"at"`
	Machine   benchMachine   `json:"machine"`
	Rounds    int            `json:"rounds"`
	Seconds   int            `json:"seconds"`
	Customers int            `json:"customers"`
	Yardstick benchFigures   `json:"yardstick"`
	Cases     []benchFigures `json:"cases"`
	Flat      []benchFlat    `json:"flat,omitempty"`
	Gateway   float64        `json:"gateway_cpu_seconds"`
	Books     *benchBooks    `json:"books"`
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
	median := func(of func(benchSample) float64) float64 {
		values := make([]float64, len(samples))
		for i, s := range samples {
			values[i] = of(s)
		}
		return benchMedian(values)
	}
	return benchSample{
		Rate: median(func(s benchSample) float64 { return s.Rate }),
		P50:  median(func(s benchSample) float64 { return s.P50 }),
		P99:  median(func(s benchSample) float64 { return s.P99 }),
		P999: median(func(s benchSample) float64 { return s.P999 }),
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
	f.Case, f.Connections, f.Target = c.Name, c.Connections, c.Target
	if r.Yardstick.Rate > 0 {
		f.Ratio = f.Rate / r.Yardstick.Rate
	}
	r.Cases = append(r.Cases, f)
}

// missed names the cases that fell short of their target.
func (r *benchReport) missed() error {
	var short []string
	for _, f := range r.Cases {
		if f.Ratio < f.Target {
			short = append(short, fmt.Sprintf("%s is %.2f times pgbench, wanted %.2g", f.Case, f.Ratio, f.Target))
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

// print writes the report for people.
func (r *benchReport) print(w io.Writer) error {
	var text strings.Builder
	row := func(cells ...any) {
		fmt.Fprintln(&text, strings.TrimRight(fmt.Sprintf("%-12s %9s  %9s  %6s  %8s  %8s  %8s", cells...), " "))
	}
	ms := func(v float64) string { return fmt.Sprintf("%.2f", v) }
	row("case", "rate/s", "× pgbench", "wanted", "p50 ms", "p99 ms", "p99.9 ms")
	row(r.Yardstick.Case, fmt.Sprintf("%.0f", r.Yardstick.Rate), "1", "", "", "", "")
	for _, f := range r.Cases {
		wanted := ""
		if f.Target > 0 {
			wanted = fmt.Sprintf("≥ %.2g", f.Target)
		}
		row(f.Case, fmt.Sprintf("%.0f", f.Rate), fmt.Sprintf("%.2f", f.Ratio), wanted, ms(f.P50), ms(f.P99), ms(f.P999))
	}
	if len(r.Flat) > 0 {
		fmt.Fprintf(&text, "\na debit beside one on a fresh wallet: %d grants live or spent; tables grown by %d entries\n", grantsOfOne, r.Flat[0].Entries)
	}
	for _, f := range r.Flat {
		fmt.Fprintf(&text, "%-16s %5.2f × the cost, wanted ≤ %.2g\n", f.Case, f.Cost, flatWithin)
	}
	b := r.Books
	fmt.Fprintf(&text, "\nmedians of %d × %d s, %d customers; PostgreSQL %s, %d cores, %s%s\n"+
		"%d debits acknowledged, %d in the ledger: %d missing, %d never sent; %d findings\n",
		r.Rounds, r.Seconds, r.Customers, r.Machine.Postgres, r.Machine.Cores, r.Machine.Go, r.Machine.remarks(),
		b.Acknowledged, b.Entries, b.Missing, b.Unasked, b.Findings)
	_, err := io.WriteString(w, text.String())
	return err
}

// save writes the report for machines.
func (r *benchReport) save(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
