package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// The benchmark measures the gateway against a yardstick on the same PostgreSQL in the same run, since a
// rate by itself says more of the machine than of the gateway: pgbench with one INSERT and one UPDATE a
// transaction, then requests over HTTP, in rounds that take turns, so that whatever else the machine does
// meets all of them. A case is compared with the yardstick's runs right before and after it. Load generator, gateway and
// database share the machine's cores.

// benchOptions are the command's flags.
type benchOptions struct {
	rounds, seconds, customers int
	warmUp                     int // seconds, of all before the first round
	only, json, svg, dir       string
	targets                    bool
	grown                      bool
	entries                    int // that the tables grow by
	cases                      []*benchCase
}

func parseBenchFlags(args []string, stderr io.Writer) (*benchOptions, error) {
	o := &benchOptions{warmUp: 12}
	quick := false
	f := flags("bench", stderr)
	f.IntVar(&o.rounds, "rounds", 3, "how often each case is measured")
	f.IntVar(&o.seconds, "seconds", 5, "how long each time")
	f.IntVar(&o.customers, "customers", 10_000, "wallets that the debits are spread over")
	f.StringVar(&o.only, "only", "", "measure only the cases with this in their `name`; several with commas between")
	f.StringVar(&o.json, "json", "", "write all figures to this `file`")
	f.StringVar(&o.svg, "svg", "", "draw rates and latencies into this `file`")
	f.StringVar(&o.dir, "dir", benchFolder(), "where the embedded PostgreSQL keeps its data for the time: a `folder` on a real disk")
	f.BoolVar(&o.targets, "targets", false, "fail when a case misses its target")
	f.BoolVar(&o.grown, "grown", false, "measure instead what a debit costs on a wallet with thousands of grants and in tables that have grown")
	f.IntVar(&o.entries, "entries", 10_000_000, "entries that the tables grow by for -grown")
	f.BoolVar(&quick, "quick", false, "a short run that shows that all works; its figures mean nothing")
	f.Usage = func() {
		fmt.Fprintln(stderr, "Measures requests over HTTP against pgbench on the same PostgreSQL: DATABASE_URL's, or one of its own. Cases:")
		for _, c := range benchCases {
			fmt.Fprintf(stderr, "  %-14s%s\n", c.Name, c.About)
		}
		f.PrintDefaults()
	}
	if err := parse(f, args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("lockstep bench takes no argument %q", f.Arg(0))
	}
	if quick {
		given := make(map[string]bool)
		f.Visit(func(f *flag.Flag) { given[f.Name] = true })
		o.warmUp = 0
		for name, v := range map[string]struct {
			of *int
			to int
		}{"rounds": {&o.rounds, 1}, "seconds": {&o.seconds, 1}, "customers": {&o.customers, 200}} {
			if !given[name] {
				*v.of = v.to
			}
		}
	}
	if o.rounds < 1 || o.seconds < 1 || o.customers < 1 || o.entries < 1 {
		return nil, errors.New("-rounds, -seconds, -customers and -entries are at least 1")
	}
	if o.grown {
		return o, nil
	}
	if o.cases = chooseBenchCases(o.only); len(o.cases) == 0 {
		return nil, fmt.Errorf("-only: no case has %q in its name", o.only)
	}
	return o, nil
}

// warm is how many seconds of each run are not measured.
func (o *benchOptions) warm() int { return max(1, o.seconds/5) }

// bench is the command `lockstep bench`.
func bench(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parseBenchFlags(args, stderr)
	if err != nil {
		return err
	}
	fmt.Fprintln(stderr, "setting up a database, a simulated Stripe and the gateway")
	bed, err := makeBenchBed(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.close()) }()
	report := &benchReport{At: time.Now().UTC(), Rounds: o.rounds, Seconds: o.seconds, Customers: o.customers}
	if report.Machine, err = describeMachine(ctx, bed); err != nil {
		return err
	}
	report.Unmeasured = bed.meter.missing
	load := &benchLoad{addrs: []string{bed.gateway.addr}, key: bed.apiKey, customers: o.customers, meter: bed.meter}
	measure := measureBench
	if o.grown {
		measure = measureGrown
	}
	failure := measure(ctx, o, bed, load, report, stderr)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// What was acknowledged before a failure must be in the ledger all the same.
	failure = errors.Join(failure, bed.gateway.stop())
	report.Gateway = bed.gateway.usedCPU().Seconds()
	fmt.Fprintln(stderr, "comparing the ledger with what was acknowledged")
	if failure != nil {
		bed.mix = nil // it was not waited for
	}
	if report.Books, err = verifyBench(ctx, bed.ledger, load, bed.mix); err != nil {
		return errors.Join(failure, err)
	}
	if failure != nil {
		return errors.Join(failure, report.Books.err())
	}
	return o.publish(report, stdout)
}

// publish says what came out, in all the ways that were asked for. Figures of a run whose books are wrong are not kept.
func (o *benchOptions) publish(report *benchReport, stdout io.Writer) error {
	if err := report.print(stdout); err != nil {
		return err
	}
	if err := report.Books.err(); err != nil {
		return err
	}
	if o.json != "" {
		if err := report.save(o.json); err != nil {
			return err
		}
	}
	if o.svg != "" {
		if err := os.WriteFile(o.svg, report.svg(), 0o644); err != nil {
			return err
		}
	}
	if o.targets {
		return report.missed()
	}
	return nil
}

// benchRound is one round of the cases: each once, the yardstick (nil) before every other one and, where there are
// several, at the end, so that each case has it right before or right after, and not far on the other side.
func benchRound(cases []*benchCase) []*benchCase {
	var round []*benchCase
	for i, c := range cases {
		if i%2 == 0 {
			round = append(round, nil)
		}
		round = append(round, c)
	}
	if len(cases) > 1 {
		round = append(round, nil)
	}
	return round
}

// measureBench runs the rounds and fills in the report.
func measureBench(ctx context.Context, o *benchOptions, bed *benchBed, load *benchLoad, report *benchReport, stderr io.Writer) error {
	if slices.ContainsFunc(o.cases, func(c *benchCase) bool { return c.Mix }) {
		load.mixed = min(o.customers, mixCustomers)
		fmt.Fprintf(stderr, "making %d customers with cards and rules\n", load.mixed)
		var err error
		if bed.mix, err = makeMix(ctx, bed, load.mixed); err != nil {
			return err
		}
	}
	round := benchRound(o.cases)
	progress := newBenchProgress(stderr, o.warmUp+o.rounds*o.secondsOf(round...))
	defer progress.end()
	if err := warmUpBench(ctx, o.warmUp, bed, load, progress); err != nil {
		return err
	}
	samples, err := benchRounds(ctx, o, round, bed, load, progress)
	if err != nil {
		return err
	}
	report.add(nil, samples[nil])
	for _, c := range o.cases {
		report.add(c, samples[c])
	}
	return nil
}

// secondsOf is how long some runs take.
func (o *benchOptions) secondsOf(cases ...*benchCase) int {
	seconds := len(cases) * (o.warm() + o.seconds)
	for _, c := range cases {
		if c != nil && c.lone() {
			seconds += o.seconds // a client of the yardstick alone
		}
	}
	return seconds
}

// benchRounds measures each case of a round as often as was asked for.
func benchRounds(ctx context.Context, o *benchOptions, round []*benchCase, bed *benchBed, load *benchLoad, progress *benchProgress) (map[*benchCase][]benchSample, error) {
	samples := make(map[*benchCase][]benchSample)
	for n := range o.rounds {
		this := make([]benchSample, len(round))
		for i, c := range round {
			name, t := "pgbench", benchTime{time.Duration(o.warm()) * time.Second, time.Duration(o.seconds) * time.Second, 0}
			if c != nil {
				name = c.Name
				if c.HalfOf != nil {
					peak := samples[c.HalfOf]
					t.rate = peak[len(peak)-1].Rate / 2
				}
			}
			done := progress.step(fmt.Sprintf("round %d of %d, %s", n+1, o.rounds, name), o.secondsOf(c))
			sample, err := measureBenchCase(ctx, c, bed, load, t)
			if err != nil {
				done("failed")
				return nil, err
			}
			done(fmt.Sprintf("%.0f/s", sample.Rate))
			this[i] = sample
			if c != nil { // the open loop asks for its peak within the round
				samples[c] = append(samples[c], sample)
			}
		}
		beside(round, this)
		for i, c := range round {
			if c == nil {
				samples[nil] = append(samples[nil], this[i])
			} else {
				samples[c][n] = this[i]
			}
		}
	}
	return samples, nil
}

// beside gives each sample of a round the rate of the yardstick beside it: the mean of the last one before and the next
// one after.
func beside(round []*benchCase, samples []benchSample) {
	for i, c := range round {
		if c == nil {
			continue
		}
		var rates []float64
		for j := i; j >= 0; j-- {
			if round[j] == nil {
				rates = append(rates, samples[j].Rate)
				break
			}
		}
		for j := i; j < len(round); j++ {
			if round[j] == nil {
				rates = append(rates, samples[j].Rate)
				break
			}
		}
		samples[i].Beside = benchMedian(rates)
	}
}

// measureBenchCase runs a case once, or the yardstick, and leaves nothing behind for what comes after.
func measureBenchCase(ctx context.Context, c *benchCase, bed *benchBed, load *benchLoad, t benchTime) (sample benchSample, err error) {
	if c == nil {
		return bed.yardstick.measure(ctx, int(t.warm/time.Second), int(t.measure/time.Second))
	}
	if c.lone() {
		if sample.Commit, err = bed.yardstick.lone(ctx, c.Pause, int(t.measure/time.Second)); err != nil {
			return sample, err
		}
	}
	commit := sample.Commit
	only := load.addrs
	err = bed.withReplicas(ctx, c.Replicas, func(addrs []string) error {
		load.addrs = addrs
		sample, err = load.run(ctx, c, t)
		return err
	})
	load.addrs, sample.Commit = only, commit
	if err == nil && c.Mix {
		var behind time.Duration
		behind, err = bed.mix.inStep(ctx)
		sample.Lag = behind.Seconds()
	}
	select {
	case <-bed.gateway.done:
		err = errors.Join(err, fmt.Errorf("the gateway has ended by itself: %w", bed.gateway.ended()))
	default:
	}
	return sample, err
}

// warmUpBench runs a little of everything before anything is measured: after the checkpoint of the start
// each page's first change is logged whole, plans and connections are not made yet, and tables are small.
func warmUpBench(ctx context.Context, seconds int, bed *benchBed, load *benchLoad, progress *benchProgress) error {
	round := []*benchCase{nil, benchPeak, benchBatch}
	each := seconds / len(round)
	if each == 0 {
		return nil
	}
	var rates []string
	done := progress.step("warm-up", seconds)
	defer func() { done(strings.Join(rates, ", ")) }()
	for _, c := range round {
		sample, err := measureBenchCase(ctx, c, bed, load, benchTime{time.Second, time.Duration(max(1, each-1)) * time.Second, 0})
		if err != nil {
			return err
		}
		rates = append(rates, fmt.Sprintf("%.0f/s", sample.Rate))
	}
	return nil
}
