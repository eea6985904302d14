package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"lockstep/handlers"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

// attemptMetadata is the name under which the page of a charge carries which of its top-up's attempts it is.
const attemptMetadata = "lockstep_attempt"

// pagePoint is a point to crash at: of a page that is in place of a charge, or of a checkout's.
func pagePoint(top ledger.Topup, step string) string {
	if top.Paged() {
		return "page." + step
	}
	return "topup." + step
}

// runCheckout takes the next step of a leased top-up that its customer pays for on a page of Stripe's.
//
//	intent → commit → parameters → commit → Stripe opens the page → commit → (the customer pays) → settle → commit
//
// Killed before the page is noted: a worker finds the row due and asks again under the same key, which gives the same
// page. After it: the webhook, the backfill or a look at the page settles.
func (g *gateway) runCheckout(ctx context.Context, top ledger.Topup) error {
	if top.CheckoutSession == nil && top.Cancel && top.CalledAt == nil { // nor will it be called
		return g.settle(ctx, ledger.Outcome{Topup: top.ID, Status: "canceled"})
	}
	if top.CheckoutSession == nil {
		return g.openCheckout(ctx, top)
	}
	if top.Cancel {
		return g.expireCheckout(ctx, top)
	}
	return g.lookAtCheckout(ctx, top)
}

// openCheckout opens the page, under a key that opens it once, also for a top-up that is to be canceled: a page that
// may be there has to be found before it can be closed.
func (g *gateway) openCheckout(ctx context.Context, top ledger.Topup) error {
	params, err := g.fixCheckout(ctx, &top)
	if err != nil || params == nil {
		return err
	}
	crash(pagePoint(top, "fixed"))
	if g.ledger.Now().Sub(*top.CalledAt) > resendFor {
		return g.findCheckout(ctx, top)
	}
	page, err := g.stripe.CreatePaymentSession(ctx, *params)
	crash(pagePoint(top, "called"))
	var se *stripeutil.Error
	switch {
	case err == nil:
		return g.checkoutOpened(ctx, top, page.ID, page.URL)
	case errors.Is(err, stripeutil.ErrKeyMismatch), errors.Is(err, stripeutil.ErrUnknown) && errors.As(err, &se) && se.HTTPStatus == 500:
		// Stripe answers this key so for a day, whatever it did: only a look tells.
		return errors.Join(err, g.findCheckout(ctx, top))
	default:
		return g.refusedOrLater(ctx, top, err, "")
	}
}

func (g *gateway) checkoutOpened(ctx context.Context, top ledger.Topup, session, url string) error {
	if err := g.ledger.CheckoutOpened(ctx, top, session, url); err != nil {
		return err
	}
	crash(pagePoint(top, "opened"))
	g.log.Info("checkout opened", "topup", top.ID, "customer", top.Customer, "checkout_session", session)
	if top.Cancel {
		top.CheckoutSession = &session
		return g.expireCheckout(ctx, top)
	}
	return nil
}

// fixCheckout answers the call's parameters, written down before the first try; nil when there is no call to make
// because the top-up has been settled.
func (g *gateway) fixCheckout(ctx context.Context, top *ledger.Topup) (*stripeutil.PaymentSessionParams, error) {
	if top.Params != nil && top.CalledAt != nil {
		var p stripeutil.PaymentSessionParams
		return &p, json.Unmarshal([]byte(*top.Params), &p)
	}
	back, metadata := deref(top.SuccessURL), map[string]string{handlers.TopupMetadata: top.ID, "lockstep_customer": top.Customer}
	if top.Paged() {
		back, metadata[attemptMetadata] = strings.TrimRight(pageReturn(g.cfg, g.stripe.Livemode()), "/")+"/portal", strconv.Itoa(top.Attempt)
	}
	return fixCall(ctx, g, top, &stripeutil.PaymentSessionParams{
		Customer: top.StripeCustomer, Amount: top.Charge, Currency: top.Currency, Name: "Credit top-up", SuccessURL: back, Metadata: metadata,
		IdempotencyKey: fmt.Sprintf("topup:%s:attempt:%d", top.ID, top.Attempt),
	}, "")
}

// findCheckout looks for the page of a call whose outcome nobody knows by its metadata. One that is not there is given
// up only when no key of ours could open it any more.
func (g *gateway) findCheckout(ctx context.Context, top ledger.Topup) error {
	since := top.CreatedAt.Add(-clockSkew)
	cs, found, err := g.stripe.FindCheckoutSession(ctx, top.StripeCustomer, since, func(cs stripeutil.CheckoutSession) bool {
		return cs.Metadata[handlers.TopupMetadata] == top.ID && (!top.Paged() || cs.Metadata[attemptMetadata] == strconv.Itoa(top.Attempt))
	})
	switch {
	case err != nil:
		return errors.Join(err, g.later(ctx, top))
	case found:
		return g.checkoutOpened(ctx, top, cs.ID, cs.URL)
	case g.ledger.Now().Sub(*top.CalledAt) > forgetAfter:
		return g.settle(ctx, ledger.Outcome{Topup: top.ID, Status: "failed", Code: "not_executed", Message: "Stripe never answered, and has no such page"})
	default:
		return g.later(ctx, top)
	}
}

// expireCheckout closes the page; one that can't be closed any more says what it has become.
func (g *gateway) expireCheckout(ctx context.Context, top ledger.Topup) error {
	// Each try has a key of its own: nothing is made by it, and so it gets past a fault that Stripe remembers.
	err := g.stripe.ExpireCheckoutSession(ctx, *top.CheckoutSession, fmt.Sprintf("topup:%s:attempt:%d:expire:%d", top.ID, top.Attempt, top.Tries))
	if err != nil && !errors.Is(err, stripeutil.ErrInvalid) {
		return errors.Join(err, g.later(ctx, top))
	}
	crash(pagePoint(top, "expired"))
	return g.lookAtCheckout(ctx, top)
}

// lookAtCheckout asks Stripe what has become of the page.
func (g *gateway) lookAtCheckout(ctx context.Context, top ledger.Topup) error {
	cs, err := g.stripe.CheckoutSession(ctx, *top.CheckoutSession)
	if err != nil {
		return errors.Join(err, g.later(ctx, top))
	}
	crash("topup.settling")
	settled, err := g.server.SettleCheckout(ctx, top, cs)
	crash("topup.settled")
	if err != nil && !settled {
		return errors.Join(err, g.later(ctx, top))
	}
	if !settled {
		return g.ledger.LookAtCheckoutAgain(ctx, top)
	}
	return err
}
