package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"lockstep/handlers"
	"lockstep/ledger"
)

// reconcileFlags are what the command may be told.
type reconcileFlags struct {
	repair, full, restart, json bool
	customer                    string
	since                       time.Duration
	grace                       time.Duration
}

func (o *reconcileFlags) parse(args []string, stderr io.Writer) error {
	f := flags("reconcile", stderr)
	f.BoolVar(&o.repair, "repair", false, "repair what can be, by the ordinary ways")
	f.BoolVar(&o.full, "full", false, "read everything of every customer: many reads at Stripe")
	f.BoolVar(&o.restart, "restart", false, "begin anew instead of going on with a walk that was stopped")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.StringVar(&o.customer, "customer", "", "only this one")
	f.DurationVar(&o.grace, "grace", handlers.DefaultGrace, "what is younger is not judged: its webhook may be on its way")
	since := f.String("since", "40d", "how far back payments are walked: days (40d) or a date (2026-10-31)")
	if err := parse(f, args); err != nil {
		return err
	}
	var err error
	if o.since, err = daysBack(*since, time.Now()); err != nil {
		fmt.Fprintf(stderr, "-since %s: %v\n", *since, err)
		return errUsage
	}
	if f.NArg() > 0 {
		fmt.Fprintf(stderr, "reconcile takes no %q; name a customer with -customer\n", f.Arg(0))
		return errUsage
	}
	if o.customer != "" && (o.full || o.restart || o.since != handlers.DefaultSince) {
		fmt.Fprintln(stderr, "-customer goes without -full, -restart and -since: it is quick, and reads the last 40 days")
		return errUsage
	}
	return nil
}

// daysBack reads "40d" or a date as whole days, so that the same words mean the same on the same day.
func daysBack(text string, now time.Time) (time.Duration, error) {
	const day = 24 * time.Hour
	if n, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.Atoi(n)
		if err != nil || days < 1 || days > 3650 {
			return 0, errors.New("days are 1d to 3650d")
		}
		return time.Duration(days) * day, nil
	}
	date, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return 0, errors.New("neither days such as 40d nor a date such as 2026-10-31")
	}
	back := now.UTC().Truncate(day).Sub(date) + day
	if back < day || back > 3650*day {
		return 0, errors.New("the date must lie in the last ten years")
	}
	return back, nil
}

// reconcile compares customers with Stripe. What it finds is printed; it fails where somebody has to look at something.
func reconcile(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o reconcileFlags
	if err := o.parse(args, stderr); err != nil {
		return err
	}
	c, err := loadConfig()
	if err != nil {
		return err
	}
	if c.StripeSecretKey == "" {
		return errors.New("STRIPE_SECRET_KEY is missing: reconciling asks Stripe")
	}
	log := c.logger(stderr)
	url, stop, err := openDatabase(ctx, c, log)
	if err != nil {
		return err
	}
	g, err := newGateway(ctx, c, log, url)
	if err != nil {
		return errors.Join(err, stop())
	}
	err = g.reconcile(ctx, o, stdout, stderr)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // in the database's words it is a query that was canceled
	}
	return errors.Join(err, g.ledger.Close(), stop())
}

func (g *gateway) reconcile(ctx context.Context, o reconcileFlags, stdout, stderr io.Writer) error {
	var r handlers.Reconciliation
	var err error
	if o.customer != "" {
		r, err = g.server.ReconcileOne(ctx, o.customer, o.repair, o.grace)
	} else {
		var st handlers.Walked
		st, err = g.walk(ctx, o, stderr)
		r = st.Reconciliation()
	}
	if err != nil {
		return err
	}
	if err := printReconciliation(stdout, r, o.json); err != nil {
		return err
	}
	return verdict(r)
}

// walk walks through all customers, and shows on stderr how far it is.
func (g *gateway) walk(ctx context.Context, o reconcileFlags, stderr io.Writer) (handlers.Walked, error) {
	shown := newProgress(stderr, "reconcile")
	defer shown.end()
	walk := handlers.WalkOptions{Name: "command", By: walkerName(), Repair: o.repair, Full: o.full, Since: o.since, Grace: o.grace, Restart: o.restart,
		Progress: func(done, of int64) {
			if 2*done > of {
				crash("reconcile.half")
			}
			shown.at(done, of)
		},
		Mended: func() { crash("reconcile.mended") },
		Started: func(st *handlers.Walked, anew bool) {
			if !anew {
				fmt.Fprintf(stderr, "reconcile: going on with the walk that began at %s (--restart begins anew)\n", st.StartedAt.UTC().Format(time.DateTime))
				return
			}
			fmt.Fprintf(stderr, "reconcile: %d customers; about %d reads at Stripe, and up to 5 for each difference\n", st.Customers, st.Estimate)
		}}
	for {
		st, err := g.server.Walk(ctx, walk)
		if !errors.Is(err, handlers.ErrWalking) {
			if err != nil && !st.StartedAt.IsZero() {
				fmt.Fprintf(stderr, "reconcile: stopped after %d reads at Stripe; what was found is kept: the same command goes on from there\n", st.Reads)
			}
			return st, err
		}
		// Another process walks, or was killed a moment ago: its lease tells which.
		fmt.Fprintln(stderr, "reconcile: waiting for another process that walks, or was killed a moment ago")
		select {
		case <-ctx.Done():
			return st, ctx.Err()
		case <-time.After(ledger.WalkLease / 4):
		}
	}
}

// walkerName names this process among those that may walk.
func walkerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return fmt.Sprintf("%s %d %d", host, os.Getpid(), time.Now().UnixNano())
}

func printReconciliation(out io.Writer, r handlers.Reconciliation, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	if len(r.Findings) > 0 {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "CUSTOMER\tKIND\tSTATE\tLEDGER\tSTRIPE\tDRIFT\tREPAIRED")
		for _, f := range r.Findings {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", orDash(f.Customer), f.Kind, f.State, f.Ledger, f.Stripe, f.Drift, repairedWord(f))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, f := range r.Findings {
			fmt.Fprintf(out, "\n%s: %s: %s.\n", orDash(f.Customer), f.Kind, f.Explanation)
			if !f.Repaired {
				who := "to do"
				if f.Repairable {
					who = "--repair would"
				}
				fmt.Fprintf(out, "  %s: %s\n", who, f.Action)
			}
		}
		fmt.Fprintln(out)
	}
	_, err := fmt.Fprintf(out, "%d customers, %d in step, %d repaired; %d findings, %d open; %d reads at Stripe\n",
		r.Customers, r.InStep, r.Repaired, len(r.Findings), r.Open(), r.Reads)
	return err
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func repairedWord(f handlers.Finding) string {
	switch {
	case f.Repaired:
		return "yes"
	case f.Repairable:
		return "can be"
	}
	return "no"
}

// verdict is the command's error where something is left for somebody.
func verdict(r handlers.Reconciliation) error {
	can := 0
	for _, f := range r.Findings {
		if f.OpenToPerson() && f.Repairable {
			can++
		}
	}
	switch n := r.Open(); {
	case n == 0:
		return nil
	case can > 0:
		return fmt.Errorf("%d differences are left: %d can be repaired with --repair, %d need a person", n, can, n-can)
	default:
		return fmt.Errorf("%d differences need a person", n)
	}
}

// nightlyLook is how often it is looked whether it is time.
const nightlyLook = 20 * time.Second

// timeOfDay reads "03:30".
func timeOfDay(text string) (time.Duration, error) {
	at, err := time.Parse("15:04", text)
	return time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute, err
}

// reconcileAtNight walks through all customers once a day at the configured time, in one of the processes: a walk that
// was stopped, or whose process died, is gone on with by whoever looks next.
func (g *gateway) reconcileAtNight(ctx context.Context) error {
	if g.cfg.ReconcileAt == "" {
		return nil
	}
	of, err := timeOfDay(g.cfg.ReconcileAt)
	if err != nil {
		return err
	}
	now := g.ledger.Now()
	at := now.Truncate(24 * time.Hour).Add(of)
	if at.After(now) {
		at = at.Add(-24 * time.Hour)
	}
	due, err := g.ledger.WalkDue(ctx, "night", at)
	if err != nil || !due {
		return err
	}
	start := time.Now()
	st, err := g.server.Walk(ctx, handlers.WalkOptions{Name: "night", By: walkerName(), Grace: handlers.DefaultGrace, DoneFor: &at})
	if errors.Is(err, handlers.ErrWalking) {
		return nil
	}
	if err != nil {
		return err
	}
	r := st.Reconciliation()
	log := g.log.Info
	if r.Open() > 0 {
		log = g.log.Warn
	}
	log("compared all customers with Stripe", "customers", r.Customers, "in_step", r.InStep, "findings", len(r.Findings), "open", r.Open(),
		"kinds", r.Kinds(), "reads", r.Reads, "took", time.Since(start).Round(time.Millisecond))
	return nil
}
