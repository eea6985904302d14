package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"lockstep/ledger"
)

// archive moves old entries out of the way of the debits.
func archive(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flags("archive", stderr)
	var before *time.Time
	f.Func("before", "what is older goes: 2026-01-31 or 2026-01-31T12:00:00Z; 35 days ago at the latest (required)", moment(&before))
	var in ledger.ArchiveInput
	f.StringVar(&in.Tablespace, "tablespace", "", "where months are kept that have to be made (default: with everything else)")
	f.DurationVar(&in.Pause, "pause", 100*time.Millisecond, "rest after each transaction of a few thousand entries")
	f.BoolVar(&in.DryRun, "dry-run", false, "only count")
	f.Usage = func() {
		fmt.Fprint(stderr, "Usage: lockstep archive -before TIME [-dry-run] [-pause 100ms] [-tablespace NAME]\n"+
			"Moves entries to the archive, a month a partition, beside a working service. Stopped by ^C, it goes on next time.\n")
		f.PrintDefaults()
	}
	if err := parse(f, args); err != nil {
		return err
	}
	if f.NArg() > 0 || before == nil || in.Pause < 0 {
		f.Usage()
		return errUsage
	}
	in.Before = *before
	return withLedger(ctx, stderr, func(l *ledger.Ledger) error {
		shown := newProgress(stderr, "archive")
		a, err := l.Archive(ctx, in, shown.at)
		shown.end()
		if err == nil || a.Entries+a.Answers > 0 {
			fmt.Fprintln(stdout, archived(a, in.DryRun))
		}
		return err
	})
}

func archived(a ledger.Archived, dry bool) string {
	verb := "were"
	if dry {
		verb = "would be"
	}
	text := fmt.Sprintf("%d entries %s moved to the archive, and %d answers forgotten", a.Entries, verb, a.Answers)
	if dry && !a.Oldest.IsZero() {
		text += "; the oldest is of " + a.Oldest.Format(time.DateOnly)
	}
	if len(a.Months) > 0 {
		text += "; made " + strings.Join(a.Months, ", ")
	}
	return text
}
