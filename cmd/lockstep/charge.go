package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lockstep/handlers"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

// resendFor is how long a call of unknown outcome is sent again under its key. Stripe may forget a key once
// it is 24 hours old, and a call under a forgotten key would charge again: after this it is only looked up.
const resendFor = 23 * time.Hour

// forgetAfter is when a payment that Stripe can't find under its metadata is taken as never made: past the
// life of its key and of every retry of ours.
const forgetAfter = 25 * time.Hour

// clockSkew is how far Stripe's clock may be from ours.
const clockSkew = 10 * time.Minute

// chargeTopup runs a top-up's charge now, or waits for whoever runs it, and answers what is known after it.
func (g *gateway) chargeTopup(ctx context.Context, id string) (ledger.Topup, error) {
	deadline := time.Now().Add(ledger.Lease)
	for {
		top, leased, err := g.ledger.LeaseTopup(ctx, id)
		if err != nil {
			return ledger.Topup{}, err
		}
		if leased {
			// The charge goes on when the caller has gone: money may have moved.
			if err := g.runTopup(context.WithoutCancel(ctx), top); err != nil {
				g.log.Warn("top-up not settled", "topup", id, "error", err)
			}
			return g.ledger.TopupByID(context.WithoutCancel(ctx), id)
		}
		if top, err = g.ledger.TopupByID(ctx, id); err != nil || !top.InFlight() || time.Now().After(deadline) {
			return top, err
		}
		select {
		case <-ctx.Done():
			return top, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// dueTopup runs one top-up that is due; found is false when there is none.
func (g *gateway) dueTopup(ctx context.Context) (found bool, err error) {
	top, found, err := g.ledger.LeaseTopup(ctx, "")
	if err != nil || !found {
		return false, err
	}
	return true, g.runTopup(context.WithoutCancel(ctx), top)
}

// runTopup takes the next step of a leased top-up.
//
//	intent → commit → parameters → commit → Stripe → settle → commit
//
// Killed after the intent: a worker finds the row due and goes on. After the parameters: the same, and
// sends them under the same key. After Stripe executed: the same key makes the next call a replay, and the
// webhook or the backfill may settle it before. After settling: nothing is left to do.
func (g *gateway) runTopup(ctx context.Context, top ledger.Topup) error {
	crash("topup.leased")
	switch {
	case top.Mode == "checkout", top.Paged():
		return g.runCheckout(ctx, top)
	case top.Mode == "invoice":
		return g.runInvoice(ctx, top)
	case top.PageWanted():
		return g.closePayment(ctx, top)
	case top.Cancel:
		return g.cancelPayment(ctx, top)
	case top.Status != "pending":
		return g.lookAtPayment(ctx, top)
	}
	params, err := g.fixCharge(ctx, &top)
	if err != nil || params == nil {
		return err
	}
	crash("topup.fixed")
	if g.ledger.Now().Sub(*top.CalledAt) > resendFor {
		return g.findPayment(ctx, top)
	}
	pi, err := g.stripe.ChargeSavedMethod(ctx, *params)
	crash("topup.called")
	return g.charged(ctx, top, *params, pi, err)
}

// fixCharge answers the call's parameters, written down before the first try; nil when there is no call to
// make because the top-up has been settled.
func (g *gateway) fixCharge(ctx context.Context, top *ledger.Topup) (*stripeutil.ChargeParams, error) {
	var p *stripeutil.ChargeParams
	method := deref(top.PaymentMethod)
	if top.Params == nil {
		m, err := g.methodFor(ctx, top)
		if err != nil || m.ID == "" {
			return nil, err
		}
		method = m.ID
		p = &stripeutil.ChargeParams{
			Customer: top.StripeCustomer, PaymentMethod: m.ID, MethodType: m.Type, Amount: top.Charge, Currency: top.Currency,
			Description:    "Credit top-up",
			Metadata:       map[string]string{handlers.TopupMetadata: top.ID, "lockstep_customer": top.Customer},
			IdempotencyKey: fmt.Sprintf("topup:%s:attempt:%d", top.ID, top.Attempt),
		}
	}
	return fixCall(ctx, g, top, p, method)
}

// fixCall writes down the parameters of a top-up's call, nil where that was done before, and answers those that hold: the
// first that anybody wrote. It answers nil when there is no call to make any more.
func fixCall[P any](ctx context.Context, g *gateway, top *ledger.Topup, p *P, method string) (*P, error) {
	var written string
	if p != nil {
		b, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		written = string(b)
	}
	fixed, at, ok, err := g.ledger.FixCall(ctx, *top, written, method)
	if err != nil || !ok {
		return nil, err
	}
	top.CalledAt = &at
	var holds P
	return &holds, json.Unmarshal([]byte(fixed), &holds)
}

// methodFor is what a top-up is charged to, a card or a bank account: what was asked for, else the customer's default
// now; with no ID where there is none, or Stripe does not say, and the top-up has been ended or given back. Its type is
// part of the call.
func (g *gateway) methodFor(ctx context.Context, top *ledger.Topup) (m stripeutil.Method, err error) {
	asked := deref(top.PaymentMethod)
	if asked != "" {
		m, err = g.stripe.PaymentMethod(ctx, asked)
	} else {
		m, err = g.stripe.DefaultMethod(ctx, top.StripeCustomer)
	}
	if err != nil {
		return stripeutil.Method{}, g.refusedOrLater(ctx, *top, err, asked)
	}
	if m.ID == "" {
		return m, g.settle(ctx, ledger.Outcome{Topup: top.ID, Status: "failed", Code: ledger.PauseNoPaymentMethod,
			Message: "the customer has no default payment method in Stripe"})
	}
	return m, nil
}

// charged books what came of the call.
func (g *gateway) charged(ctx context.Context, top ledger.Topup, p stripeutil.ChargeParams, pi stripeutil.PaymentIntent, err error) error {
	if err == nil {
		return g.settlePayment(ctx, top, pi, p.PaymentMethod)
	}
	var se *stripeutil.Error
	if !errors.As(err, &se) {
		return errors.Join(err, g.later(ctx, top))
	}
	switch {
	case errors.Is(err, stripeutil.ErrDeclined):
		o := ledger.Outcome{Topup: top.ID, Status: "failed", PaymentMethod: p.PaymentMethod, Code: se.Code, Message: se.Message}
		if se.PaymentIntent != nil {
			o.PaymentIntent = se.PaymentIntent.ID
		}
		if se.Failure != nil {
			o.DeclineCode, o.Soft = se.Failure.DeclineCode, !stripeutil.HardDecline(*se.Failure)
		}
		if o.DeclineCode == "" {
			o.DeclineCode = o.Code
		}
		if se.Code == "authentication_required" {
			o.Status = "action_required"
			if top.Trigger == "manual" && o.PaymentIntent != "" {
				// Nobody would finish it: its caller is told now. Canceled, it can't be paid later either.
				if pi, err := g.stripe.CancelPaymentIntent(ctx, o.PaymentIntent, "topup:"+top.ID+":cancel"); err == nil && pi.Status == "succeeded" {
					return g.settlePayment(ctx, top, pi, p.PaymentMethod)
				}
			}
		}
		return g.settle(ctx, o)
	case errors.Is(err, stripeutil.ErrKeyMismatch), errors.Is(err, stripeutil.ErrUnknown) && se.HTTPStatus == 500:
		// Stripe answers this key so for a day, whatever it did: only a look tells.
		return errors.Join(err, g.findPayment(ctx, top))
	default:
		return g.refusedOrLater(ctx, top, err, p.PaymentMethod)
	}
}

// refusedOrLater ends a top-up whose call Stripe refused without executing it, and has any other error
// looked at again.
func (g *gateway) refusedOrLater(ctx context.Context, top ledger.Topup, err error, method string) error {
	var se *stripeutil.Error
	if errors.As(err, &se) && (errors.Is(err, stripeutil.ErrInvalid) || errors.Is(err, stripeutil.ErrNotFound)) {
		code := se.Code
		if code == "" {
			code = "invalid_request"
		}
		return g.settle(ctx, ledger.Outcome{Topup: top.ID, Status: "failed", Code: code, Message: se.Message, PaymentMethod: method})
	}
	return errors.Join(err, g.later(ctx, top))
}

// later gives the top-up back for a while that grows with each try.
func (g *gateway) later(ctx context.Context, top ledger.Topup) error {
	return g.ledger.LookAgain(ctx, top, min(5*time.Minute, time.Second<<min(top.Tries, 9)))
}

func (g *gateway) settle(ctx context.Context, o ledger.Outcome) error {
	crash("topup.settling")
	top, err := g.ledger.SettleTopup(ctx, o)
	crash("topup.settled")
	if err == nil {
		g.log.Info("top-up", "topup", top.ID, "customer", top.Customer, "status", top.Status, "charge", top.Charge, "currency", top.Currency,
			"code", deref(top.FailureCode))
	}
	return err
}

// settlePayment books what a payment at Stripe says, or has it looked at again when it says nothing yet.
func (g *gateway) settlePayment(ctx context.Context, top ledger.Topup, pi stripeutil.PaymentIntent, method string) error {
	o, ok := handlers.OutcomeOf(pi)
	if !ok || o.Topup != top.ID {
		return g.later(ctx, top)
	}
	if o.PaymentMethod == "" {
		o.PaymentMethod = method
	}
	return g.settle(ctx, o)
}

// lookAtPayment asks Stripe about a payment that it has not finished.
func (g *gateway) lookAtPayment(ctx context.Context, top ledger.Topup) error {
	if top.PaymentIntent == nil {
		return g.findPayment(ctx, top)
	}
	pi, err := g.stripe.PaymentIntent(ctx, *top.PaymentIntent)
	if err != nil {
		return errors.Join(err, g.later(ctx, top))
	}
	return g.settlePayment(ctx, top, pi, "")
}

// findPayment looks for the payment of a call whose outcome nobody knows by its metadata. One that is not
// there is given up only when no key of ours could make it any more.
func (g *gateway) findPayment(ctx context.Context, top ledger.Topup) error {
	since := top.CreatedAt.Add(-clockSkew)
	pi, found, err := g.stripe.FindPaymentIntent(ctx, top.StripeCustomer, since, func(pi stripeutil.PaymentIntent) bool {
		return pi.Metadata[handlers.TopupMetadata] == top.ID
	})
	switch {
	case err != nil:
		return errors.Join(err, g.later(ctx, top))
	case found && top.Cancel:
		id := pi.ID
		top.PaymentIntent = &id
		return g.cancelPayment(ctx, top)
	case found:
		return g.settlePayment(ctx, top, pi, "")
	case top.CalledAt != nil && g.ledger.Now().Sub(*top.CalledAt) > forgetAfter:
		return g.settle(ctx, ledger.Outcome{Topup: top.ID, Status: "failed", Code: "not_executed",
			Message: "Stripe never answered, and has no such payment"})
	default:
		return g.later(ctx, top)
	}
}

// cancelPayment cancels a payment at Stripe; one that can't be canceled any more says what it has become.
func (g *gateway) cancelPayment(ctx context.Context, top ledger.Topup) error {
	if top.PaymentIntent == nil {
		return g.findPayment(ctx, top)
	}
	// Each try has a key of its own: nothing is made by it, and so it gets past a fault that Stripe remembers.
	pi, err := g.stripe.CancelPaymentIntent(ctx, *top.PaymentIntent, fmt.Sprintf("topup:%s:cancel:%d", top.ID, top.Tries))
	if errors.Is(err, stripeutil.ErrInvalid) {
		pi, err = g.stripe.PaymentIntent(ctx, *top.PaymentIntent)
	}
	if err != nil {
		return errors.Join(err, g.later(ctx, top))
	}
	return g.settlePayment(ctx, top, pi, "")
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
