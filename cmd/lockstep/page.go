package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"lockstep/handlers"
	"lockstep/ledger"
	"lockstep/stripeutil"
)

// pageReturn is under which address the portal is, to which a page sends the customer of a top-up that nobody asked for by
// hand: PUBLIC_URL, or else, of a test key, this machine. Stripe takes no other than https in live mode: there, without PUBLIC_URL, there are no such pages.
func pageReturn(c config, live bool) string {
	if c.PublicURL != "" || live {
		return c.PublicURL
	}
	host, port, err := net.SplitHostPort(c.ListenAddr)
	if err != nil {
		return ""
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// closePayment begins to give a customer a page on which they finish a rule's charge that needs their authentication.
//
//	declined → commit → Stripe cancels the payment → commit → parameters → commit → Stripe opens the page → commit → (they pay) → settle
//
// From the first commit on, the rule is paused, and of the payment counts only that it came, or is on its way after all:
// that it is canceled, its event says too, and ends nothing. Killed before the second commit: the top-up is due, and
// canceling again finds it canceled. There is no page before that, so never two payments. After the second commit the
// page is an attempt of its own, as a checkout's is: killed before it is noted, a worker asks again under the key of the
// attempt and has the same page. The commit that notes it tells of it. Pages that expire are followed by others, each an
// attempt, for a week.
//
// Another card, a resume or a cancel marks the top-up to be canceled, and a worker closes what there is, the payment or the
// page; until Stripe has said that it is closed nothing else is charged, and what was paid in that moment is booked as paid.
func (g *gateway) closePayment(ctx context.Context, top ledger.Topup) error {
	if top.PaymentIntent == nil {
		pi, found, err := g.stripe.FindPaymentIntent(ctx, top.StripeCustomer, top.CreatedAt.Add(-clockSkew), func(pi stripeutil.PaymentIntent) bool {
			return pi.Metadata[handlers.TopupMetadata] == top.ID
		})
		if err != nil || !found {
			return errors.Join(err, g.later(ctx, top))
		}
		top.PaymentIntent = &pi.ID
	}
	// Nothing is made by it: each try may have a key of its own, and so gets past a fault that Stripe remembers.
	pi, err := g.stripe.CancelPaymentIntent(ctx, *top.PaymentIntent, fmt.Sprintf("topup:%s:close:%d", top.ID, top.Tries))
	crash("page.canceled")
	if errors.Is(err, stripeutil.ErrInvalid) { // it is canceled already, or paid
		pi, err = g.stripe.PaymentIntent(ctx, *top.PaymentIntent)
	}
	switch {
	case err != nil:
		return errors.Join(err, g.later(ctx, top))
	case pi.Status == "succeeded" || pi.Status == "processing":
		return g.settlePayment(ctx, top, pi, "")
	case pi.Status != "canceled":
		return g.later(ctx, top)
	case top.Cancel:
		return g.settle(ctx, ledger.Outcome{Topup: top.ID, Status: "canceled"})
	}
	ok, err := g.ledger.PaymentClosed(ctx, &top)
	crash("page.closed")
	if err != nil || !ok {
		return errors.Join(err, g.ledger.LookAgain(ctx, top, 0))
	}
	return g.openCheckout(ctx, top)
}
