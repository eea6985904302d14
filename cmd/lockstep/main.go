// Lockstep keeps prepaid balances in a ledger on PostgreSQL and customer balances in Stripe in lockstep.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// commands, in the order in which help names them.
var commands = []struct {
	name, help string
	run        func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}{
	{"dev", "try it: an embedded database, a simulated Stripe, a demo customer", dev},
	{"serve", "run the gateway", serve},
	{"migrate", "bring the database's schema up to date", migrate},
	{"doctor", "look at the settings, Stripe and the database, and say how to mend what is wrong", doctor},
	{"stripe", "stripe setup: make or mend the webhook endpoint in Stripe", stripeCommand},
	{"keys", "make, list and revoke API keys", keys},
	{"verify", "check every invariant of the books", verify},
	{"export", "write the entries of the ledger as CSV or JSON lines", export},
	{"archive", "move old entries out of the way of the debits", archive},
	{"reconcile", "compare all customers with Stripe, and repair them with --repair", reconcile},
	{"replay", "work events from Stripe off again", replay},
	{"bench", "measure it against pgbench on the same database", bench},
	{"version", "say which build this is", version},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second ^C ends the process at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// errUsage has been explained to the caller already.
var errUsage = errors.New("usage")

// run is main without the process: it answers the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return 2
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(stdout)
		return 0
	}
	for _, c := range commands {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, args[1:], stdout, stderr)
		switch {
		case err == nil, errors.Is(err, flag.ErrHelp):
			return 0
		case errors.Is(err, errUsage):
			return 2
		case errors.Is(err, context.Canceled) && ctx.Err() != nil:
			fmt.Fprintf(stderr, "lockstep %s: stopped\n", c.name)
			return 130
		}
		fmt.Fprintf(stderr, "lockstep %s: %v\n", c.name, err)
		return 1
	}
	fmt.Fprintf(stderr, "lockstep: there is no command %q\n\n", args[0])
	usage(stderr)
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: lockstep <command>\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-10s  %s\n", c.name, c.help)
	}
	fmt.Fprint(w, "\nEvery setting is an environment variable; .env.example lists them.\n")
}

// flags makes the flag set of a command.
func flags(name string, stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet("lockstep "+name, flag.ContinueOnError)
	f.SetOutput(stderr)
	return f
}

// parse reads a command's flags; what is wrong with them has been said when it fails.
func parse(f *flag.FlagSet, args []string) error {
	err := f.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return errUsage
	}
	return err
}
