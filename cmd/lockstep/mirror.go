package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep/handlers"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

// syncRounds bounds how often one look at a customer plans: an import may make a flush needed, and a flush
// may show that there is something to import.
const syncRounds = 5

// syncCustomer brings a customer's balance in Stripe up to date: imports what strangers did, then posts the
// difference. One process has a customer at a time; where another has it, or a failure is still to be waited
// out, leased is false and nothing was done.
func (g *gateway) syncCustomer(ctx context.Context, ref ledger.Ref) (leased bool, err error) {
	m, leased, err := g.ledger.LeaseMirror(ctx, ref)
	if err != nil || !leased {
		return false, err
	}
	for range syncRounds {
		var more bool
		if more, err = g.syncRound(ctx, m); err != nil || !more {
			break
		}
		if m, _, err = g.mirror(ctx, ref); err != nil {
			break
		}
	}
	if errors.Is(err, stripeutil.ErrNotFound) || errors.Is(err, stripeutil.ErrInvalid) {
		err = errors.Join(err, g.lookAtCustomer(ctx, m))
	}
	release := g.ledger.ReleaseMirror(context.WithoutCancel(ctx), ref, err != nil && !stripeutil.NoRoom(err))
	return true, errors.Join(err, release)
}

// lookAtCustomer finds out why Stripe refuses to write a customer's balance: it may have been deleted, or be kept in
// another currency, and the event that tells of it be lost or late.
func (g *gateway) lookAtCustomer(ctx context.Context, m ledger.Mirror) error {
	c, err := g.stripe.Customer(ctx, m.StripeCustomer)
	if err != nil {
		return err
	}
	if c.Deleted {
		return g.ledger.CustomerDeleted(ctx, m.Ref())
	}
	if c.Currency != "" && c.Currency != m.Currency {
		_, err = g.ledger.CurrencyFixed(ctx, m.Ref(), c.Currency)
	}
	return err
}

func (g *gateway) mirror(ctx context.Context, ref ledger.Ref) (ledger.Mirror, bool, error) {
	v, found, err := g.ledger.MirrorOf(ctx, ref)
	return v.Mirror, found, err
}

// syncNow is syncCustomer for a caller who waits: where another has the customer it tries again shortly.
func (g *gateway) syncNow(ctx context.Context, ref ledger.Ref) error {
	for range 20 {
		if _, err := g.syncCustomer(ctx, ref); err != nil {
			return err
		}
		behind, err := g.ledger.OutOfStep(ctx, []ledger.Ref{ref}, false)
		if err != nil || len(behind) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return errors.New("the customer's balance is being written by somebody else; try again shortly")
}

// syncRound does one thing for a leased mirror; more says that there may be another.
func (g *gateway) syncRound(ctx context.Context, m ledger.Mirror) (more bool, err error) {
	if err := g.ledger.RenewMirror(ctx, m.Ref()); err != nil {
		return false, err
	}
	if m.ImportDue || m.ListedTo == nil {
		list, err := g.server.ListTransactions(ctx, &m)
		if err != nil {
			return false, err
		}
		crash("mirror.listed")
		strangers, err := g.ledger.Import(ctx, m, list)
		if err != nil {
			return false, err
		}
		crash("mirror.imported")
		if strangers > 0 {
			g.log.Info("imported from Stripe", "customer", m.Customer, "transactions", strangers)
		}
		return true, nil
	}
	f, found, err := g.ledger.PlanFlush(ctx, m)
	if err != nil || !found {
		return false, err
	}
	crash("mirror.planned")
	return true, g.flush(ctx, m, f)
}

// doubtfulFor is how long a flush that Stripe answered with a saved 500 is looked for. A balance transaction
// is no money: should it turn up after all, the import books it and the next flush levels it.
const doubtfulFor = 5 * time.Second

// flush posts a balance transaction. Its parameters are the row's, so that whoever resends it after a crash
// sends the same under the same key.
func (g *gateway) flush(ctx context.Context, m ledger.Mirror, f ledger.Flush) error {
	p, err := f.Params()
	if err != nil {
		return err
	}
	at, err := g.ledger.FlushCalled(ctx, f)
	if err != nil {
		return err
	}
	age := g.ledger.Now().Sub(at)
	if age > resendFor {
		return g.findFlush(ctx, m, f)
	}
	t, err := g.stripe.CreateBalanceTransaction(ctx, stripeutil.BalanceTransactionParams{
		Customer: p.StripeCustomer, Amount: f.Amount, Currency: p.Currency, Description: "Prepaid credit",
		Metadata:       map[string]string{handlers.FlushMetadata: f.ID, "lockstep_from": ledger.Range(p.From), "lockstep_to": ledger.Range(p.To)},
		IdempotencyKey: "mirror:" + f.ID,
	})
	crash("mirror.called")
	var se *stripeutil.Error
	switch {
	case err == nil:
		g.server.Flushed()
		return g.ledger.RecordFlush(ctx, f, ledger.StripeTransaction{ID: t.ID, Amount: t.Amount, EndingBalance: t.EndingBalance, Type: t.Type, Created: t.Created})
	case errors.Is(err, stripeutil.ErrInvalid), errors.Is(err, stripeutil.ErrNotFound):
		return errors.Join(fmt.Errorf("flush %s: %w", f.ID, err), g.ledger.FailFlush(ctx, f))
	case errors.Is(err, stripeutil.ErrKeyMismatch), errors.As(err, &se) && se.HTTPStatus == 500:
		if age > doubtfulFor {
			return g.findFlush(ctx, m, f)
		}
		return errors.Join(err, g.ledger.ImportDue(ctx, m.Ref()))
	default:
		return err
	}
}

// findFlush looks for a flush at Stripe by its metadata; one that is not there is given up, and the next
// look plans anew.
func (g *gateway) findFlush(ctx context.Context, m ledger.Mirror, f ledger.Flush) error {
	list, err := g.server.ListTransactions(ctx, &m)
	if err != nil {
		return err
	}
	if _, err := g.ledger.Import(ctx, m, list); err != nil {
		return err
	}
	return g.ledger.FailFlush(ctx, f) // does nothing to one that the import has closed
}
