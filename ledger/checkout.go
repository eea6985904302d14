package ledger

import (
	"context"
	"time"
)

// CheckoutLife is how long a page on which a top-up is paid is open: Stripe's default.
const CheckoutLife = 24 * time.Hour

// checkMode refuses a mode that there is not, and what another mode than its own takes.
func (in *TopupInput) checkMode() error {
	switch {
	case in.Mode != "charge" && in.Mode != "invoice" && in.Mode != "checkout":
		return refuse(CodeInvalid, "mode", "mode is charge, invoice or checkout")
	case in.Mode == "checkout" && in.PaymentMethod != "":
		return refuse(CodeInvalid, "payment_method", "a checkout takes the card that its customer enters: leave payment_method out")
	case in.Mode != "checkout" && in.SuccessURL != "":
		return refuse(CodeInvalid, "success_url", "success_url is of mode checkout: leave it out")
	case in.PaymentMethod != "" && in.Invoice.sent():
		return refuse(CodeInvalid, "payment_method", "an invoice that is sent takes what its customer pays with: leave payment_method out")
	}
	return in.Invoice.check(in.Mode)
}

// CheckoutOpened notes the page on which the customer pays for a leased top-up, and gives the top-up back. Webhooks
// tell what became of the page; it is looked at again only now and then, until it has expired.
func (l *Ledger) CheckoutOpened(ctx context.Context, top Topup, session, url string) error {
	if top.Paged() {
		return l.inTx(ctx, func(t *tx) error { return t.pageOpened(top, session, url, t.now.Add(checkoutLook(top, t.now))) })
	}
	_, err := l.db.ExecContext(ctx, `update topups set checkout_session = coalesce(checkout_session, $3), url = coalesce(url, nullif($4, '')), lease_until = null,
			run_at = case when cancel then run_at else $5 end where bucket = $1 and id = $2`,
		top.Bucket, top.ID, session, url, l.Now().Add(checkoutLook(top, l.Now())))
	return err
}

// LookAtCheckoutAgain gives a leased top-up back whose page is still open.
func (l *Ledger) LookAtCheckoutAgain(ctx context.Context, top Topup) error {
	return l.LookAgain(ctx, top, checkoutLook(top, l.Now()))
}

// checkoutLook is how long an open page is left alone: longer with each look, but not past its end.
func checkoutLook(top Topup, now time.Time) time.Duration {
	look := processingLook << min(max(top.Tries-1, 0), 6)
	if top.CalledAt == nil {
		return look
	}
	if left := top.CalledAt.Add(CheckoutLife + time.Minute).Sub(now); left > 0 {
		return min(look, left)
	}
	return processingLook
}
