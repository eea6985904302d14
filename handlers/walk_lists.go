package handlers

import (
	"context"
	"time"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// customers compares a page of Stripe's customers with their mirrors: one read for up to a hundred balances. A customer
// whose balance is not what all known transactions add up to, or who is to be flushed, is a suspect. Where Stripe has so
// many strangers that asking for each of ours is cheaper than listing on, the list is left.
func (w *walker) customers(ctx context.Context) error {
	if w.st.Pages == 0 {
		left, err := w.s.Ledger.CountUnchecked(ctx, w.st.StartedAt)
		if err != nil {
			return err
		}
		w.st.Left = left
	}
	if w.st.Left <= 0 || w.st.Pages >= w.st.Left {
		w.next()
		return nil
	}
	return listed(ctx, w, func(after string) (stripeutil.Page[stripeutil.Customer], error) {
		return w.s.Stripe.CustomerPage(ctx, after)
	}, w.balances)
}

func (w *walker) balances(ctx context.Context, page []stripeutil.Customer) error {
	ids := make([]string, len(page))
	for i := range page {
		ids[i] = page[i].ID
	}
	mirrors, err := w.s.Ledger.MirrorsOfStripe(ctx, ids)
	if err != nil {
		return err
	}
	var refs []ledger.Ref
	for i := range page {
		m := mirrors[page[i].ID]
		if m == nil {
			continue
		}
		refs = append(refs, m.Ref())
		if -page[i].Balance != m.Credit || page[i].Currency != "" && page[i].Currency != m.Currency {
			w.suspect(aCustomer, m.Customer)
		}
	}
	behind, err := w.s.Ledger.OutOfStep(ctx, refs, false)
	if err != nil {
		return err
	}
	for _, ref := range behind {
		w.suspect(aCustomer, ref.ID)
	}
	w.st.Left -= int64(len(refs))
	return w.s.Ledger.CheckedAll(ctx, refs, w.now)
}

// unlistedPage is how many are read from the books at once.
const unlistedPage = 1000

// unlisted suspects those that no list of Stripe's had: deleted there, or never there.
func (w *walker) unlisted(ctx context.Context) error {
	refs, err := w.s.Ledger.Unchecked(ctx, w.st.StartedAt, ledger.Ref{Bucket: w.st.AfterB, ID: w.st.After}, unlistedPage)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		w.suspect(aCustomer, ref.ID)
		w.st.AfterB, w.st.After = ref.Bucket, ref.ID
	}
	if len(refs) < unlistedPage {
		w.next()
	}
	return nil
}

// payments compares payments with the top-ups that they are for.
func (w *walker) payments(ctx context.Context, page []stripeutil.PaymentIntent) error {
	var ids []string
	for i := range page {
		if id := page[i].Metadata[TopupMetadata]; id != "" {
			ids = append(ids, id)
		}
	}
	books, err := w.s.Ledger.TopupsBooked(ctx, ids)
	if err != nil {
		return err
	}
	var paid []string
	for _, pi := range page {
		if w.customer != nil && (pi.Refunded > 0 || pi.Disputed) { // of everybody's, the refunds are listed
			w.suspect(aPayment, pi.ID)
		}
		id := pi.Metadata[TopupMetadata]
		if id == "" || pi.Invoice != "" || pi.Created.After(w.until()) || pi.ChargedAt.After(w.until()) || books[id] != nil && books[id].Leased {
			continue
		}
		sides := sidesOfPayment(id, books[id], pi)
		switch {
		case len(judgeTopup(sides)) > 0:
			w.suspect(aPayment, pi.ID)
			w.fits[id] = true // need not be looked at once more
		case sides.said && sides.outcome.Status == "succeeded":
			paid = append(paid, id)
		}
	}
	return w.verified(ctx, paid, nil)
}

// verified notes what was seen to be paid.
func (w *walker) verified(ctx context.Context, topups, sales []string) error {
	for _, id := range append(topups, sales...) {
		w.fits[id] = true
	}
	return w.s.Ledger.Verified(ctx, topups, sales)
}

// invoices compares paid invoices with what they bought or sold.
func (w *walker) invoices(ctx context.Context, page []stripeutil.Invoice) error {
	var tops, sales []string
	for i := range page {
		if id := page[i].Metadata[TopupMetadata]; id != "" {
			tops = append(tops, id)
		} else {
			sales = append(sales, page[i].ID)
		}
	}
	books, err := w.s.Ledger.TopupsBooked(ctx, tops)
	if err != nil {
		return err
	}
	booked, err := w.s.Ledger.SalesBooked(ctx, sales)
	if err != nil {
		return err
	}
	looked, err := w.s.Ledger.Progress(ctx, salesProgress)
	if err != nil {
		return err
	}
	tops, sales = nil, nil
	for _, in := range page {
		if in.Credited > 0 && !in.PaidAt.After(w.until()) { // some of it may have gone back outside Stripe
			w.suspect(aPayment, in.PaymentIntent)
		}
		id := in.Metadata[TopupMetadata]
		switch {
		case in.PaidAt.After(w.until()) || id != "" && books[id] != nil && books[id].Leased:
		case id != "" && len(judgeTopup(sidesOfInvoice(books[id], in))) > 0:
			w.suspect(aSale, in.ID)
			w.fits[id] = true
		case id != "":
			tops = append(tops, id)
		case booked[in.ID] != nil:
			sales = append(sales, in.ID)
		case w.all() || in.PaidAt.After(looked.Add(-invoiceOverlap)):
			w.suspect(aSale, in.ID)
		}
	}
	return w.verified(ctx, tops, sales)
}

// sessions compares completed checkouts with what they sold. A top-up's page has a payment that says so itself.
func (w *walker) sessions(ctx context.Context, page []stripeutil.CheckoutSession) error {
	var ids []string
	for i := range page {
		ids = append(ids, page[i].ID)
	}
	booked, err := w.s.Ledger.SalesBooked(ctx, ids)
	if err != nil {
		return err
	}
	looked, err := w.s.Ledger.Progress(ctx, salesProgress)
	if err != nil {
		return err
	}
	var sales []string
	for _, cs := range page {
		paid := cs.PaymentStatus == "paid" || cs.PaymentStatus == "no_payment_required"
		switch {
		case !paid || cs.Mode == "setup" || cs.Metadata[TopupMetadata] != "" || cs.Created.After(w.until()):
		case booked[cs.ID] != nil:
			sales = append(sales, cs.ID)
		case w.all() || cs.Created.After(looked.Add(-sessionOverlap)):
			w.suspect(aSale, cs.ID)
		}
	}
	return w.verified(ctx, nil, sales)
}

// all says that nothing is to be believed of earlier walks.
func (w *walker) all() bool { return w.st.Full || w.customer != nil || w.st.Window != DefaultSince }

// refunds compares refunds with what was taken back for them.
func (w *walker) refunds(ctx context.Context, page []stripeutil.Refund) error {
	var ids []string
	for _, r := range page {
		ids = append(ids, r.PaymentIntent)
	}
	books, err := w.s.Ledger.PaymentsBooked(ctx, ids)
	if err != nil {
		return err
	}
	for _, r := range page {
		b := books[r.PaymentIntent]
		if b == nil || r.Created.After(w.until()) {
			continue // of a payment that bought no credit, or is not booked itself
		}
		booked, known := bookedBack(b.Backs, r.ID)
		_, differs := judgeBack(backSides{payment: r.PaymentIntent}, refundMove(r), booked, known)
		if differs || known && booked.Stands && untaken(b) {
			w.suspect(aPayment, r.PaymentIntent)
		}
	}
	return nil
}

// untaken says that credit was not taken back as the books themselves say it should be, as far as they know what was
// paid.
func untaken(b *ledger.PaymentBooks) bool {
	received := b.Charge
	if received == 0 { // a sale's; that nothing at all was taken shows all the same
		for _, g := range b.Grants {
			if g.Times == 0 {
				return true
			}
		}
		return false
	}
	return len(judgeTakings(backSides{received: received, stripe: b.Backs, grants: b.Grants})) > 0
}

// disputes compares disputes with what was taken back for them.
func (w *walker) disputes(ctx context.Context, page []stripeutil.Dispute) error {
	var ids, payments []string
	for _, d := range page {
		ids, payments = append(ids, d.ID), append(payments, d.PaymentIntent)
	}
	status, err := w.s.Ledger.DisputesBooked(ctx, ids)
	if err != nil {
		return err
	}
	books, err := w.s.Ledger.PaymentsBooked(ctx, payments)
	if err != nil {
		return err
	}
	for _, d := range page {
		if d.PaymentIntent == "" || d.Created.After(w.until()) {
			continue
		}
		b := books[d.PaymentIntent]
		booked, known := ledger.MoneyBack{}, false
		if b != nil {
			booked, known = bookedBack(b.Backs, d.ID)
		}
		_, differs := judgeBack(backSides{payment: d.PaymentIntent}, disputeMove(d), booked, known)
		if b == nil {
			differs = d.Open() && status[d.ID] == ""
		}
		if differs || known && booked.Stands && untaken(b) {
			w.suspect(aPayment, d.PaymentIntent)
		}
	}
	return nil
}

// What a walk remembers of the sales that it has looked at, and found to be nothing of ours: they need not be read again
// every night.
const salesProgress = "reconcile.sales"

// How much earlier than that such a sale may have been made, and be new all the same: an invoice was paid, and a payment
// that takes days came through, only after it was looked at.
const (
	invoiceOverlap = 24 * time.Hour
	sessionOverlap = 14 * 24 * time.Hour
)

// stuckAfter is how long a top-up is in flight before it is asked what became of it: by then its worker has given up
// what Stripe does not know.
const stuckAfter = 26 * time.Hour

// nextCustomer reads everything of the next customer, of a full walk.
func (w *walker) nextCustomer(ctx context.Context) error {
	mirrors, err := w.s.Ledger.Mirrors(ctx, ledger.Ref{Bucket: w.st.AfterB, ID: w.st.After}, 1)
	if err != nil {
		return err
	}
	if len(mirrors) == 0 {
		w.next()
		return nil
	}
	cust, err := w.s.Ledger.Customer(ctx, mirrors[0].Customer)
	if err != nil {
		return err
	}
	if err := w.oneCustomer(ctx, cust, stripeutil.Span{}); err != nil {
		return err
	}
	w.st.AfterB, w.st.After = cust.Bucket, cust.ID
	w.st.Pages++
	return nil
}

// oneCustomer reads everything of a customer since a time, and suspects what does not fit.
func (w *walker) oneCustomer(ctx context.Context, cust ledger.Customer, span stripeutil.Span) error {
	w.customer = &cust
	w.suspect(aCustomer, cust.ID)
	if span.Customer = cust.StripeCustomer; span.Customer != "" && cust.Status != "deleted" {
		s := w.s.Stripe
		err := every(ctx, func(after string) (stripeutil.Page[stripeutil.PaymentIntent], error) {
			return s.PaymentPage(ctx, span, after)
		}, w.payments)
		if err == nil {
			err = every(ctx, func(after string) (stripeutil.Page[stripeutil.Invoice], error) {
				return s.InvoicePage(ctx, span, after)
			}, w.invoices)
		}
		if err == nil {
			err = every(ctx, func(after string) (stripeutil.Page[stripeutil.CheckoutSession], error) {
				return s.SessionPage(ctx, span, after)
			}, w.sessions)
		}
		if err != nil && !unknownAtStripe(err) { // a customer whom Stripe does not know is found to be that
			return err
		}
	}
	backed, err := w.s.Ledger.BackedPayments(ctx, cust.Ref)
	if err != nil {
		return err
	}
	for _, id := range backed {
		w.suspect(aPayment, id)
	}
	return w.unpaid(ctx, cust.Ref)
}

// every reads a list to its end.
func every[T any](ctx context.Context, get func(after string) (stripeutil.Page[T], error), judge func(context.Context, []T) error) error {
	for after := ""; ; {
		p, err := get(after)
		if err != nil {
			return err
		}
		if err := judge(ctx, p.Items); err != nil || p.Next == "" {
			return err
		}
		after = p.Next
	}
}

// unpaid suspects what the books say was paid and Stripe did not show, and what has been in flight for too long; of the
// zero customer, everybody's.
func (w *walker) unpaid(ctx context.Context, ref ledger.Ref) error {
	since := w.st.Since
	if w.st.Full {
		since = since.AddDate(-100, 0, 0)
	}
	topups, sales, err := w.s.Ledger.Unverified(ctx, ref, since, w.until(), w.st.Full)
	if err != nil {
		return err
	}
	stuck, err := w.s.Ledger.Stuck(ctx, ref, w.now.Add(-stuckAfter))
	if err != nil {
		return err
	}
	for _, id := range append(topups, stuck...) {
		if !w.fits[id] {
			w.suspect(aTopup, id)
		}
	}
	for _, id := range sales {
		if !w.fits[id] {
			w.suspect(aSale, id)
		}
	}
	return nil
}

// books suspects what no list of Stripe's would show.
func (w *walker) books(ctx context.Context) error {
	if !w.st.Full {
		if err := w.unpaid(ctx, ledger.Ref{}); err != nil {
			return err
		}
		unended, err := w.s.Ledger.UnendedBacks(ctx, ledger.Ref{}, w.st.Since)
		if err != nil {
			return err
		}
		for _, id := range unended {
			w.suspect(aPayment, id)
		}
	}
	failed, err := w.s.Ledger.FailedEvents(ctx)
	for _, id := range failed {
		w.suspect(anEvent, id)
	}
	return err
}
