package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The benchmark measures the gateway against a yardstick on the same PostgreSQL in the same run, since a
// rate by itself says more of the machine than of the gateway: pgbench with one INSERT and one UPDATE a
// transaction, then debits over HTTP, in rounds that take turns, so that whatever else the machine does
// meets all of them. Load generator, gateway and database share the machine's cores.

// benchOptions are the command's flags.
type benchOptions struct {
	rounds, seconds, customers int
	warmUp                     int // seconds, of all before the first round
	only, json, dir            string
	targets                    bool
	grown                      bool
	entries                    int // that the tables grow by
}

func parseBenchFlags(args []string, stderr io.Writer) (*benchOptions, error) {
	o := &benchOptions{warmUp: 12}
	quick := false
	f := flags("bench", stderr)
	f.IntVar(&o.rounds, "rounds", 3, "how often each case is measured")
	f.IntVar(&o.seconds, "seconds", 5, "how long each time")
	f.IntVar(&o.customers, "customers", 10_000, "wallets that the debits are spread over")
	f.StringVar(&o.only, "only", "", "measure only the cases with this in their `name`")
	f.StringVar(&o.json, "json", "", "write all figures to this `file`")
	f.StringVar(&o.dir, "dir", benchFolder(), "where the embedded PostgreSQL keeps its data for the time: a `folder` on a real disk")
	f.BoolVar(&o.targets, "targets", false, "fail when a case falls short of its target")
	f.BoolVar(&o.grown, "grown", false, "measure instead what a debit costs on a wallet with thousands of grants and in tables that have grown")
	f.IntVar(&o.entries, "entries", 10_000_000, "entries that the tables grow by for -grown")
	f.BoolVar(&quick, "quick", false, "a short run that shows that all works; its figures mean nothing")
	f.Usage = func() {
		fmt.Fprintln(stderr, "Measures debits over HTTP against pgbench on the same PostgreSQL: DATABASE_URL's, or one of its own.")
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
	if len(o.cases()) == 0 {
		return nil, fmt.Errorf("-only: no case has %q in its name", o.only)
	}
	return o, nil
}

// cases are those that were asked for.
func (o *benchOptions) cases() []*benchCase {
	return slices.DeleteFunc(slices.Clone(benchCases), func(c *benchCase) bool { return !strings.Contains(c.Name, o.only) })
}

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
	load := &benchLoad{addr: bed.gateway.addr, key: bed.apiKey, customers: o.customers}
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
	if report.Books, err = verifyBench(ctx, bed.ledger, load); err != nil {
		return errors.Join(failure, err)
	}
	if failure != nil {
		return errors.Join(failure, report.Books.err())
	}
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
	if o.targets {
		return report.missed()
	}
	return nil
}

// benchRound is one round of the cases: each once, the yardstick (nil) before every other one.
func benchRound(cases []*benchCase) []*benchCase {
	var round []*benchCase
	for i, c := range cases {
		if i%2 == 0 {
			round = append(round, nil)
		}
		round = append(round, c)
	}
	return round
}

// measureBench runs the rounds and fills in the report.
func measureBench(ctx context.Context, o *benchOptions, bed *benchBed, load *benchLoad, report *benchReport, stderr io.Writer) error {
	warm := max(1, o.seconds/5)
	round := benchRound(o.cases())
	progress := newBenchProgress(stderr, o.warmUp+o.rounds*len(round)*(warm+o.seconds))
	defer progress.end()
	if err := warmUpBench(ctx, o.warmUp, bed, load, progress); err != nil {
		return err
	}
	samples, err := benchRounds(ctx, o, round, bed, load, progress)
	if err != nil {
		return err
	}
	report.add(nil, samples[nil])
	for _, c := range o.cases() {
		report.add(c, samples[c])
	}
	return nil
}

// benchRounds measures each case of a round as often as was asked for.
func benchRounds(ctx context.Context, o *benchOptions, round []*benchCase, bed *benchBed, load *benchLoad, progress *benchProgress) (map[*benchCase][]benchSample, error) {
	warm := max(1, o.seconds/5)
	samples := make(map[*benchCase][]benchSample)
	for n := range o.rounds {
		for _, c := range round {
			name := "pgbench"
			if c != nil {
				name = c.Name
			}
			done := progress.step(fmt.Sprintf("round %d of %d, %s", n+1, o.rounds, name), warm+o.seconds)
			sample, err := measureBenchCase(ctx, c, bed, load, warm, o.seconds)
			if err != nil {
				done("failed")
				return nil, err
			}
			done(fmt.Sprintf("%.0f/s", sample.Rate))
			samples[c] = append(samples[c], sample)
		}
	}
	return samples, nil
}

func measureBenchCase(ctx context.Context, c *benchCase, bed *benchBed, load *benchLoad, warm, seconds int) (benchSample, error) {
	if c == nil {
		return bed.yardstick.measure(ctx, warm, seconds)
	}
	sample, err := load.run(ctx, c, time.Duration(warm)*time.Second, time.Duration(seconds)*time.Second)
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
	round := []*benchCase{nil, benchCases[1], benchCases[4]}
	each := seconds / len(round)
	if each == 0 {
		return nil
	}
	var rates []string
	done := progress.step("warm-up", seconds)
	defer func() { done(strings.Join(rates, ", ")) }()
	for _, c := range round {
		sample, err := measureBenchCase(ctx, c, bed, load, 1, max(1, each-1))
		if err != nil {
			return err
		}
		rates = append(rates, fmt.Sprintf("%.0f/s", sample.Rate))
	}
	return nil
}
