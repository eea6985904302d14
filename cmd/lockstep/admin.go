package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"

	"lockstep/handlers"
	"lockstep/ledger"
	"lockstep/migrations"
)

func eventTypes() []string {
	types := handlers.EventTypes()
	slices.Sort(types)
	return types
}

// withLedger opens the configured database for a command and closes it after.
func withLedger(ctx context.Context, stderr io.Writer, do func(*ledger.Ledger) error) error {
	c, err := loadConfig()
	if err != nil {
		return err
	}
	url, stop, err := openDatabase(ctx, c, c.logger(stderr))
	if err != nil {
		return err
	}
	l, err := ledger.Open(ctx, ledger.Options{URL: url, DefaultAsset: c.DefaultAsset, Render: handlers.Render})
	if err != nil {
		return errors.Join(err, stop())
	}
	if err = do(l); err != nil && ctx.Err() != nil {
		err = ctx.Err() // in the database's words it is a query that was canceled
	}
	return errors.Join(err, l.Close(), stop())
}

func migrate(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flags("migrate", stderr)
	citus := f.Bool("citus", false, "spread the tables over the nodes of Citus by bucket, what is spread already left out (serve can't use that yet: see the README)")
	shards := f.Int("shards", migrations.DefaultShards, "with -citus: how many shards each table is spread over")
	if err := parse(f, args); err != nil {
		return err
	}
	return withLedger(ctx, stderr, func(l *ledger.Ledger) error { // opening brings it up to date
		if _, err := fmt.Fprintln(stdout, "the schema is up to date"); err != nil || !*citus {
			return err
		}
		n := 0
		err := migrations.Spread(ctx, l.DB().DB, *shards, func(table, how string) {
			n++
			fmt.Fprintf(stdout, "%s: %s\n", table, how)
		})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%d tables were spread, all others had been\n", n)
		return err
	})
}

// verify checks every invariant of the books and draws their digest, which names what they are: it is the same
// wherever the same books are, and another when any entry is.
func verify(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flags("verify", stderr)
	if err := parse(f, args); err != nil {
		return err
	}
	return withLedger(ctx, stderr, func(l *ledger.Ledger) error {
		shown := newProgress(stderr, "verify")
		v, err := l.Verify(ctx, func(done, of int) { shown.at(int64(done), int64(of)) })
		shown.end()
		if err != nil {
			return err
		}
		if len(v.Findings) > 0 {
			fmt.Fprintln(stdout, ledger.Describe(v.Findings))
			return fmt.Errorf("the books are wrong in %d places", len(v.Findings))
		}
		_, err = fmt.Fprintf(stdout, "the books are right: %d invariants hold over %d entries of %d wallets\ndigest %s\n",
			ledger.Invariants(), v.Entries, v.Wallets, v.Digest)
		return err
	})
}

func keys(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flags("keys", stderr)
	name := f.String("name", "", "what the key is for")
	scopes := f.String("scopes", "usage,read,write", "what it may do, of "+strings.Join(ledger.Scopes, ", "))
	f.Usage = func() {
		fmt.Fprint(stderr, "Usage: lockstep keys list | create [-name NAME] [-scopes LIST] | revoke ID\n")
		f.PrintDefaults()
	}
	if len(args) == 0 {
		f.Usage()
		return errUsage
	}
	if err := parse(f, args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "list":
		return withLedger(ctx, stderr, func(l *ledger.Ledger) error { return listKeys(ctx, l, stdout) })
	case "create":
		return withLedger(ctx, stderr, func(l *ledger.Ledger) error {
			k, secret, err := l.CreateKey(ctx, *name, strings.Split(*scopes, ","))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(stdout, "%s  %s\n\n%s\n\nThis is the only time that the key is shown.\n", k.ID, k.ScopeList, secret)
			return err
		})
	case "revoke":
		if f.NArg() != 1 {
			f.Usage()
			return errUsage
		}
		return withLedger(ctx, stderr, func(l *ledger.Ledger) error { return l.RevokeKey(ctx, f.Arg(0)) })
	default:
		f.Usage()
		return errUsage
	}
}

func listKeys(ctx context.Context, l *ledger.Ledger, stdout io.Writer) error {
	all, err := l.Keys(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tKEY\tSCOPES\tCREATED\tREVOKED")
	for _, k := range all {
		revoked := ""
		if k.RevokedAt != nil {
			revoked = k.RevokedAt.UTC().Format("2006-01-02 15:04")
		}
		fmt.Fprintf(w, "%s\t%s\t…%s\t%s\t%s\t%s\n", k.ID, k.Name, k.Hint, k.ScopeList, k.CreatedAt.UTC().Format("2006-01-02 15:04"), revoked)
	}
	return w.Flush()
}

func replay(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flags("replay", stderr)
	failed := f.Bool("failed", false, "every event that was given up")
	f.Usage = func() {
		fmt.Fprint(stderr, "Usage: lockstep replay evt_… [evt_…] | --failed\nA running gateway works them off within a second.\n")
	}
	if err := parse(f, args); err != nil {
		return err
	}
	if *failed == (f.NArg() > 0) {
		f.Usage()
		return errUsage
	}
	return withLedger(ctx, stderr, func(l *ledger.Ledger) error {
		n, err := l.Replay(ctx, f.Args())
		if err != nil {
			return err
		}
		if n < int64(f.NArg()) {
			return fmt.Errorf("%d of %d events are known", n, f.NArg())
		}
		_, err = fmt.Fprintf(stdout, "%d events will be worked off again\n", n)
		return err
	})
}

func version(_ context.Context, _ []string, stdout, _ io.Writer) error {
	v := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		v = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v += " " + s.Value
			}
		}
	}
	_, err := fmt.Fprintln(stdout, "lockstep", v)
	return err
}
