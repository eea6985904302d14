package ledger

import (
	"context"
	"time"
)

// How far a charge that needs the customer's authentication has got on the way to a page on which they pay.
const (
	pageWanted = 1 // its payment is to be closed at Stripe, so that it can't be paid beside the page
	pageOpen   = 2 // it is closed: the next attempt is a page, to be opened or open
)

// maxPages is how many pages are opened for one top-up, each for CheckoutLife: a week.
const maxPages = 7

// paged is how far a top-up is on the way to a page once Stripe says next of its payment.
func (t *tx) paged(top *Topup, next string) int16 {
	switch {
	case next == "action_required" && t.l.pages && top.Mode == "charge" && top.Page == 0:
		return pageWanted
	case next == "processing" && top.Page == pageWanted: // somebody has paid what was to be closed
		return 0
	default:
		return top.Page
	}
}

// PageWanted reports whether the payment of a top-up is to be closed, for its customer to pay on a page.
func (t *Topup) PageWanted() bool { return t.Page == pageWanted }

// Paged reports whether a top-up that was a charge is paid on a page now, if at all.
func (t *Topup) Paged() bool { return t.Page == pageOpen }

// PaymentClosed notes that a leased top-up's payment has been canceled at Stripe, and makes the page that comes in its
// place another attempt, with parameters and a key of its own. ok is false when nobody waits for a page any more.
func (l *Ledger) PaymentClosed(ctx context.Context, top *Topup) (ok bool, err error) {
	err = l.inTx(ctx, func(t *tx) error {
		ok, err = t.get(&top.Attempt, `update topups set page = $3, attempt = attempt + 1, params = null, called_at = null, payment_intent = null,
				tries = 0, lease_until = $4 where bucket = $1 and id = $2 and page = $5 and status = 'action_required' and not cancel returning attempt`,
			top.Bucket, top.ID, pageOpen, t.now.Add(Lease), pageWanted)
		return err
	})
	if ok {
		top.Page, top.Params, top.CalledAt, top.PaymentIntent = pageOpen, nil, nil, nil
	}
	return ok, err
}

// PageExpired follows the page of a top-up that has been closed unpaid: by us, for something else is to happen, which ends
// the top-up; or by the time, and then another is opened while its rule still waits for the customer, a week long.
func (l *Ledger) PageExpired(ctx context.Context, top Topup, session string) error {
	return l.inTx(ctx, func(t *tx) error {
		w, err := t.lockWallet(top.Bucket, top.Wallet)
		if err != nil {
			return err
		}
		if _, err := t.get(&top, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.id = $2 for update of t`, top.Bucket, top.ID); err != nil {
			return err
		}
		if top.Status != "action_required" || !top.Paged() || deref(top.CheckoutSession) != session {
			return nil // an older page, or the end was heard before
		}
		if top.Cancel {
			return t.settle(w, &top, Outcome{Topup: top.ID, Status: "canceled"})
		}
		r, _, err := t.rule(w)
		if err != nil {
			return err
		}
		if deref(r.PauseReason) != PauseActionRequired || deref(r.PauseTopup) != top.ID || top.Attempt > maxPages {
			return t.settle(w, &top, Outcome{Topup: top.ID, Status: "failed", Code: "authentication_required", DeclineCode: "authentication_required",
				Message: "the customer did not pay on the page that was opened for them"})
		}
		t.wake = true
		return t.exec(`update topups set attempt = attempt + 1, params = null, called_at = null, checkout_session = null, url = null,
			tries = 0, lease_until = null, run_at = $3 where bucket = $1 and id = $2`, top.Bucket, top.ID, t.now)
	})
}

// pageOpened notes the page of a leased top-up that needs the customer, and tells of it.
func (t *tx) pageOpened(top Topup, session, url string, look time.Time) error {
	res, err := t.ExecContext(t.ctx, `update topups set checkout_session = $3, url = nullif($4, ''), lease_until = null,
			run_at = case when cancel then run_at else $5 end
		where bucket = $1 and id = $2 and attempt = $6 and checkout_session is null and status = 'action_required'`,
		top.Bucket, top.ID, session, url, look, top.Attempt)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	if _, err := t.get(&top, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.id = $2`, top.Bucket, top.ID); err != nil {
		return err
	}
	t.emitFor(EventTopupActionRequired, Ref{top.Bucket, top.Customer}, &top.Wallet, &top)
	return nil
}
