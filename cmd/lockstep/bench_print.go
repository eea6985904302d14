package main

import (
	"fmt"
	"io"
	"strings"
)

// print writes the report for people.
func (r *benchReport) print(w io.Writer) error {
	var text strings.Builder
	r.printRates(&text)
	r.printUse(&text)
	r.printRemarks(&text)
	b := r.Books
	fmt.Fprintf(&text, "\nmedians of %d × %d s, %d customers; PostgreSQL %s, %d cores, %s%s\n"+
		"%d events acknowledged, %d in the ledger: %d missing, %d never sent; %d findings\n",
		r.Rounds, r.Seconds, r.Customers, r.Machine.Postgres, r.Machine.Cores, r.Machine.Go, r.Machine.remarks(),
		b.Acknowledged, b.Entries, b.Missing, b.Unasked, b.Findings)
	if m := b.Mix; m != nil {
		fmt.Fprintf(&text, "the mix: %d customers, %d top-ups paid, %d balance transactions; %d customers not in step with Stripe at the end\n",
			m.Customers, m.Topups, m.Flushes, m.Behind)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// benchRow writes a row of a table without blanks at its end.
func benchRow(text *strings.Builder, format string, cells ...any) {
	fmt.Fprintln(text, strings.TrimRight(fmt.Sprintf(format, cells...), " "))
}

// benchNumber writes a figure; one that was not measured stays empty.
func benchNumber(format string, v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}

// benchCost is benchNumber for what may be a part of one and may be thousands.
func benchCost(v float64) string {
	if v < 9.95 {
		return benchNumber("%.1f", v)
	}
	return benchNumber("%.0f", v)
}

func (r *benchReport) printRates(text *strings.Builder) {
	const format = "%-16s %9s  %9s  %6s  %8s  %8s  %8s"
	ms := func(v float64) string { return fmt.Sprintf("%.2f", v) }
	benchRow(text, format, "case", "rate/s", "× pgbench", "wanted", "p50 ms", "p99 ms", "p99.9 ms")
	benchRow(text, format, r.Yardstick.Case, fmt.Sprintf("%.0f", r.Yardstick.Rate), "1", "", "", "", "")
	for _, f := range r.Cases {
		wanted := ""
		if f.Target > 0 {
			wanted = fmt.Sprintf("≥ %.2g", f.Target)
		}
		benchRow(text, format, f.Case, fmt.Sprintf("%.0f", f.Rate), benchNumber("%.2f", f.Ratio), wanted, ms(f.P50), ms(f.P99), ms(f.P999))
	}
}

// printUse writes what an event costs beside time.
func (r *benchReport) printUse(text *strings.Builder) {
	const format = "%-16s %12s  %13s  %9s  %9s  %10s"
	measured := false
	for _, f := range append([]benchFigures{r.Yardstick}, r.Cases...) {
		if f.benchUse == (benchUse{}) {
			continue
		}
		if !measured {
			benchRow(text, "\n"+format, "an event costs", "gateway µs", "PostgreSQL µs", "load µs", "WAL bytes", "gateway MB")
			measured = true
		}
		benchRow(text, format, f.Case, benchCost(f.Gateway), benchCost(f.Postgres), benchCost(f.Load), benchCost(f.WAL), benchCost(f.Memory))
	}
	for _, why := range r.Unmeasured {
		fmt.Fprintln(text, why)
	}
}

// printRemarks says of each case what its row has no column for.
func (r *benchReport) printRemarks(text *strings.Builder) {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, f := range r.Cases {
		if f.Offered > 0 {
			say("%s: %.0f debits a second were due, latencies run from then; a p99 below %.3g ms is wanted", f.Case, f.Offered, f.Within)
		}
		if f.Commit > 0 {
			say("%s: a debit took %.2f × as long as a transaction of one client of pgbench, which took %.2f ms (p50)", f.Case, f.Commits, f.Commit)
		}
		if f.Limit > 0 && f.Memory > 0 {
			say("%s: the gateway took %.0f MB at most; less than %.3g is wanted", f.Case, f.Memory, f.Limit)
		}
		if f.Lag > 0 {
			say("%s: %.1f s after the load Stripe showed every balance as it is", f.Case, f.Lag)
		}
	}
	if len(r.Flat) > 0 {
		say("a debit beside one on a fresh wallet: %d grants live or spent; tables grown by %d entries", grantsOfOne, r.Flat[0].Entries)
	}
	for _, f := range r.Flat {
		say("%-16s %5.2f × the cost, wanted ≤ %.2g", f.Case, f.Cost, flatWithin)
	}
	if len(lines) > 0 {
		fmt.Fprintf(text, "\n%s\n", strings.Join(lines, "\n"))
	}
}
