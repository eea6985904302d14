package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// How many of each kind of work run at once in one process.
const (
	topupWorkers = 4
	eventWorkers = 4
)

// flushesAtOnce is how many balances are written at once: half a second's worth of turns, so that as long as a flush
// takes no longer, all turns are used.
func flushesAtOnce(perSecond float64) int { return int(min(50, max(8, perSecond/2))) }

// startWorkers starts every loop. The channel closes when all have ended after ctx has.
func (g *gateway) startWorkers(ctx context.Context) <-chan struct{} {
	var wg sync.WaitGroup
	for range topupWorkers {
		wg.Go(func() { g.loop(ctx, "top-ups", time.Second, g.ledger.TopupsDue(), g.runDueTopups) })
	}
	for range eventWorkers {
		wg.Go(func() { g.loop(ctx, "events", time.Second, g.events, g.runDueEvents) })
	}
	wg.Go(func() { g.flushes.Run(ctx, flushesAtOnce(g.stripe.Pace().Full), g.laterTurn, g.flushOne) })
	wg.Go(func() { g.loop(ctx, "mirror", g.cfg.MirrorInterval, nil, g.mirrorDirty) })
	wg.Go(func() { g.loop(ctx, "mirror sweep", time.Minute, nil, g.mirrorStale) })
	wg.Go(func() { g.loop(ctx, "backfill", g.cfg.BackfillInterval, nil, g.backfill) })
	wg.Go(func() { g.loop(ctx, "nightly reconciliation", nightlyLook, nil, g.reconcileAtNight) })
	wg.Go(func() { g.loop(ctx, "sweep", 5*time.Second, nil, g.sweep) })
	wg.Go(func() { g.loop(ctx, "events out", time.Second, g.ledger.EventsDue(), g.fanOut) })
	wg.Go(func() { g.loop(ctx, "deliveries", time.Second, g.ledger.DeliveriesDue(), g.deliverDue) })
	wg.Go(func() { g.loop(ctx, "old events", time.Hour, nil, g.pruneEvents) })
	wg.Go(func() { g.loop(ctx, "expiry warnings", 5*time.Second, nil, g.warnExpiring) })
	wg.Go(func() { g.loop(ctx, "runways", 3*time.Second, nil, g.ledger.LookAhead) })
	wg.Go(func() { g.loop(ctx, "customers", 30*time.Second, nil, g.linkCustomers) })
	done := make(chan struct{})
	go func() { wg.Wait(); g.outbound.wg.Wait(); close(done) }()
	return done
}

// loop runs work now, every interval, and whenever it is woken. What fails is logged and tried again: the
// rows that it works from are all still there.
func (g *gateway) loop(ctx context.Context, name string, interval time.Duration, woken <-chan struct{}, work func(context.Context) error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := work(ctx); err != nil && ctx.Err() == nil {
			g.log.Warn("work to be done again", "work", name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-woken:
		}
	}
}

// wake tells a loop that there is work, unless it has been told already.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// runDueTopups runs top-ups until none is due.
func (g *gateway) runDueTopups(ctx context.Context) error {
	for ctx.Err() == nil {
		found, err := g.dueTopup(ctx)
		if err != nil || !found {
			return err
		}
	}
	return nil
}

// runDueEvents works events off until none is due.
func (g *gateway) runDueEvents(ctx context.Context) error {
	for ctx.Err() == nil {
		events, err := g.ledger.LeaseEvents(ctx, 4)
		if err != nil || len(events) == 0 {
			return err
		}
		if len(events) == 4 {
			wake(g.events) // there may be more: let the others help
		}
		for _, e := range events {
			if err := g.runEvent(context.WithoutCancel(ctx), e); err != nil {
				return err
			}
		}
	}
	return nil
}

// runEvent works one event off. A crash in between leaves it pending: it is worked off again, and every
// effect is one that can be had twice.
func (g *gateway) runEvent(ctx context.Context, row ledger.StripeEvent) error {
	e, err := stripeutil.ParseEvent([]byte(row.Payload))
	var handled bool
	if err == nil {
		handled, err = g.server.Apply(ctx, e)
	}
	crash("event.applied")
	status := "ignored"
	if handled {
		status = "done"
	}
	if err != nil {
		g.log.Warn("event to be worked off again", "event", row.ID, "type", row.Type, "try", row.Tries, "error", err)
	}
	return g.ledger.EndEvent(ctx, row, status, err)
}

// laterTurn waits until Stripe takes one more call that nobody waits for.
func (g *gateway) laterTurn(ctx context.Context) (context.Context, func(), error) {
	ctx, turn, err := g.stripe.Turn(stripeutil.Later(ctx))
	if err != nil {
		return ctx, nil, err
	}
	return ctx, turn.GiveBack, nil
}

// flushOne brings the balance of a customer up to date whose turn has come. A customer whom Stripe just has no room for
// has not failed: it keeps its place, and the pace of all is what slows down.
func (g *gateway) flushOne(ctx context.Context, ref ledger.Ref) ledger.FlushOutcome {
	leased, err := g.syncCustomer(context.WithoutCancel(ctx), ref)
	switch {
	case err == nil && leased:
		return ledger.Flushed
	case stripeutil.NoRoom(err):
		return ledger.Hurried
	case err != nil:
		g.log.Warn("balance in Stripe not up to date", "customer", ref.ID, "error", err)
	}
	g.ledger.MarkDirty(ref)
	if err == nil {
		return ledger.Taken
	}
	return ledger.Failed
}

// mirrorChunk bounds how many customers one statement compares.
const mirrorChunk = 500

// mirrorDirty has the customers wait for a flush whose credit moved since the last time and that Stripe has to hear of.
func (g *gateway) mirrorDirty(ctx context.Context) error {
	refs := g.flushes.ToLook(g.ledger.TakeDirty())
	for len(refs) > 0 {
		n := min(len(refs), mirrorChunk)
		if err := g.look(ctx, refs[:n], false); err != nil {
			for _, r := range refs {
				g.ledger.MarkDirty(r)
			}
			return err
		}
		refs = refs[n:]
	}
	return nil
}

// look has those of the customers wait for a flush who are out of step.
func (g *gateway) look(ctx context.Context, refs []ledger.Ref, note bool) error {
	behind, err := g.ledger.Behind(ctx, refs, note)
	if err != nil {
		return err
	}
	g.flushes.Looked(refs, behind)
	for _, b := range behind {
		if b.Later {
			g.ledger.MarkDirty(b.Ref)
		}
	}
	return nil
}

// mirrorStale finds customers whom nobody remembers to be dirty: after a crash, or a call that failed.
func (g *gateway) mirrorStale(ctx context.Context) error {
	after := ledger.Ref{Bucket: -1}
	for ctx.Err() == nil {
		refs, err := g.ledger.StaleMirrors(ctx, after, mirrorChunk)
		if err != nil || len(refs) == 0 {
			return err
		}
		after = refs[len(refs)-1]
		if refs = g.flushes.ToLook(refs); len(refs) == 0 {
			continue
		}
		if err := g.look(ctx, refs, true); err != nil {
			return err
		}
	}
	return nil
}

// sweep turns wallets that are due and ends pauses whose time is up.
func (g *gateway) sweep(ctx context.Context) error {
	for ctx.Err() == nil {
		n, err := g.ledger.Sweep(ctx)
		if err != nil || n == 0 {
			return err
		}
	}
	return nil
}

// warnExpiring tells of the grants that expire soon.
func (g *gateway) warnExpiring(ctx context.Context) error {
	for ctx.Err() == nil && g.cfg.ExpiryWarning > 0 {
		n, err := g.ledger.WarnExpiring(ctx, g.cfg.ExpiryWarning)
		if err != nil || n == 0 {
			return err
		}
	}
	return nil
}

// linkCustomers finishes customers that a crash left without a Stripe customer.
func (g *gateway) linkCustomers(ctx context.Context) error {
	customers, err := g.ledger.Unlinked(ctx, g.ledger.Now().Add(-ledger.Lease))
	if err != nil {
		return err
	}
	var failed []error
	for _, c := range customers {
		if _, err := g.linkCustomer(ctx, c); err != nil {
			failed = append(failed, fmt.Errorf("customer %s: %w", c.ID, err))
		}
	}
	return errors.Join(failed...)
}

// linkCustomer makes a customer in Stripe. The key comes from the row, so that whoever goes on after a
// crash makes the same one.
func (g *gateway) linkCustomer(ctx context.Context, c ledger.Customer) (ledger.Customer, error) {
	crash("customer.created")
	sc, err := g.stripe.CreateCustomer(ctx, stripeutil.CustomerParams{Email: c.Email, Name: c.Name,
		Metadata:       map[string]string{"lockstep_customer": c.ID},
		IdempotencyKey: fmt.Sprintf("customer:%s:%d", c.ID, c.CreatedAt.UnixMicro())})
	if err != nil {
		return c, err
	}
	crash("customer.called")
	if err := g.ledger.LinkCustomer(ctx, c.Ref, sc.ID, sc.Currency, true); err != nil {
		return c, err
	}
	return g.ledger.Customer(ctx, c.ID)
}

// backfillProgress names how far the backfill has got: the creation of the newest event that it has seen.
const backfillProgress = "backfill"

// backfillOverlap is read again each time, for events that Stripe lists late.
const backfillOverlap = 5 * time.Minute

// backfill fetches events while nobody waits for them.
func (g *gateway) backfill(ctx context.Context) error { return g.fetchEvents(stripeutil.Later(ctx)) }

// fetchEvents fetches the events that Stripe could not deliver. Progress goes by Stripe's clock, not by ours.
func (g *gateway) fetchEvents(ctx context.Context) error {
	since, err := g.ledger.Progress(ctx, backfillProgress)
	if err != nil {
		return err
	}
	if since.IsZero() || since.Year() < 2000 { // the first start: nothing before it was about us
		since = g.ledger.Now().Add(-time.Hour)
		if err := g.ledger.SetProgress(ctx, backfillProgress, since); err != nil {
			return err
		}
	}
	newest := since
	var failed error
	err = g.stripe.Events(ctx, eventTypes(), since.Add(-backfillOverlap), func(e stripeutil.Event, raw []byte) bool {
		if e.Created.After(newest) {
			newest = e.Created
		}
		failed = g.server.StoreEvent(ctx, e, raw, "backfill")
		return failed == nil
	})
	if err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	return g.ledger.SetProgress(ctx, backfillProgress, newest)
}

// catchUpTime bounds how long events that were fetched are worked off before somebody who waits goes on.
const catchUpTime = 20 * time.Second

// catchUp fetches the events that Stripe could not deliver, and helps to work off what is due: what they tell of is no
// difference between Stripe and the books.
func (g *gateway) catchUp(ctx context.Context) error {
	if err := g.fetchEvents(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, catchUpTime)
	defer stop()
	if err := g.runDueEvents(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
