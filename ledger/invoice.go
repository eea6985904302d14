package ledger

import (
	"context"
	"fmt"
	"time"
)

// How far the invoice of a top-up has got.
const (
	InvoiceDrafted   = 1
	InvoiceComplete  = 2 // has its line: Stripe's balance is brought to nothing, then it is finalized
	InvoiceFinalized = 3 // or given up: Stripe shows again what it should
	InvoiceSent      = 4 // to the customer, who pays it when they do
)

// maxDaysUntilDue is the most that Stripe gives a customer to pay an invoice.
const maxDaysUntilDue = 1825

// InvoiceTerms are those of the invoices that top-ups are paid by.
type InvoiceTerms struct {
	AutomaticTax bool   `db:"automatic_tax"`  // Stripe puts tax on top of what the credit costs
	DaysUntilDue *int16 `db:"days_until_due"` // the customer is sent the invoice; nil charges their card
}

func (i *InvoiceTerms) sent() bool { return i != nil && i.DaysUntilDue != nil }

// check refuses terms that there are not.
func (i *InvoiceTerms) check(mode string) error {
	switch {
	case i == nil:
		return nil
	case mode != "invoice":
		return refuse(CodeInvalid, "invoice", "invoice is of mode invoice: leave it out")
	case i.DaysUntilDue != nil && (*i.DaysUntilDue < 1 || *i.DaysUntilDue > maxDaysUntilDue):
		return refuse(CodeInvalid, "invoice.days_until_due", "invoice.days_until_due is 1 to %d", maxDaysUntilDue)
	}
	return nil
}

// withTax is what a charge will come to: Stripe says how much tax there is once there is an invoice, and until then the
// share of the last one holds.
func (t *tx) withTax(w *Wallet, r *Rule, charge int64) (int64, error) {
	if !r.AutomaticTax {
		return charge, nil
	}
	var last struct {
		Charge int64 `db:"charge"`
		Tax    int64 `db:"tax"`
	}
	found, err := t.get(&last, `select charge, tax from topups where bucket = $1 and wallet_id = $2 and tax is not null
		and charge > tax order by id desc limit 1`, w.Bucket, w.ID)
	if err != nil || !found {
		return charge, err
	}
	return charge + share(last.Tax, charge, last.Charge-last.Tax), nil
}

// InvoiceTotal notes what a drafted invoice comes to with its tax, in minor units, and that it is complete. fits is
// false, and nothing is noted but the tax, where the spend cap does not allow as much.
func (l *Ledger) InvoiceTotal(ctx context.Context, top *Topup, total int64) (fits bool, err error) {
	err = l.inTx(ctx, func(t *tx) error {
		w, err := t.lockWallet(top.Bucket, top.Wallet)
		if err != nil {
			return err
		}
		var now Topup
		if _, err := t.get(&now, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.id = $2 for update of t`, top.Bucket, top.ID); err != nil {
			return err
		}
		tax := total - (now.Charge - deref(now.Tax))
		if tax < 0 {
			return fmt.Errorf("invoice of top-up %s comes to %d, less than what it buys", top.ID, total)
		}
		step, used := int16(InvoiceComplete), now.CapUsed
		if fits = true; now.CapAmount != nil && now.Trigger == "auto" {
			r, _, err := t.rule(w)
			if err != nil {
				return err
			}
			from, _ := period(deref(r.CapInterval), t.now)
			var spent int64
			if _, err := t.get(&spent, spentSQL, w.Bucket, w.ID, from); err != nil {
				return err
			}
			spent += total - now.Charge // which spent has counted
			if fits = spent <= *now.CapAmount; fits {
				used = &spent
			} else {
				step = now.InvoiceStep
			}
		}
		top.Charge, top.Tax, top.InvoiceStep = total, &tax, max(step, now.InvoiceStep)
		return t.exec(`update topups set charge = $3, tax = $4, cap_used = $5, invoice_step = $6, lease_until = case when lease_until is null then null else $7::timestamptz end
			where bucket = $1 and id = $2`, top.Bucket, top.ID, total, tax, used, top.InvoiceStep, t.now.Add(Lease))
	})
	return fits && err == nil, err
}

// emptiedSQL tells whether Stripe is to show nothing for the customer m: an invoice that buys credit is about to be
// finalized, and Stripe would pay it with what it shows.
const emptiedSQL = `exists (select from topups t where t.bucket = m.bucket and t.customer_id = m.customer_id and t.invoice_step = 2
	and t.status in ('pending', 'processing', 'action_required'))`

// InvoiceStep notes how far a leased top-up's invoice has got, and keeps the lease for the next step. Steps only go
// forward. From the last on the mirror shows the customer's credit again, which is put down for whoever comes after a
// crash: no entry tells of it.
func (l *Ledger) InvoiceStep(ctx context.Context, top *Topup, step int16, invoice string) error {
	return l.inTx(ctx, func(t *tx) error {
		if step == InvoiceFinalized { // the mirror's row before the top-up's: the one order in which everybody locks
			t.dirty = append(t.dirty, Ref{top.Bucket, top.Customer})
			if err := t.exec(`update mirrors set import_due = true where bucket = $1 and customer_id = $2`, top.Bucket, top.Customer); err != nil {
				return err
			}
		}
		_, err := t.get(&top.InvoiceStep, `update topups set invoice_step = greatest(invoice_step, $3), invoice = coalesce(invoice, nullif($4, '')),
				lease_until = case when lease_until is null then null else $5::timestamptz end
			where bucket = $1 and id = $2 returning invoice_step`, top.Bucket, top.ID, step, invoice, t.now.Add(Lease))
		if top.Invoice == nil && invoice != "" {
			top.Invoice = &invoice
		}
		return err
	})
}

// NoteFailure writes down why a leased top-up's payment was refused, before its invoice is closed: who hears that it
// was closed first would not know.
func (l *Ledger) NoteFailure(ctx context.Context, o Outcome) error {
	bucket, _ := bucketOfID("top_", o.Topup)
	_, err := l.db.ExecContext(ctx, `update topups set failure_code = nullif($3, ''), decline_code = nullif($4, ''), failure_message = nullif($5, ''),
			failure_soft = $6
		where bucket = $1 and id = $2 and status in ('pending', 'processing', 'action_required')`, bucket, o.Topup, o.Code, o.DeclineCode, o.Message, o.Soft)
	return err
}

// PayableAt notes where the customer can pay what a payment without them could not.
func (l *Ledger) PayableAt(ctx context.Context, top Topup, url string) error {
	_, err := l.db.ExecContext(ctx, `update topups set url = nullif($3, '') where bucket = $1 and id = $2`, top.Bucket, top.ID, url)
	return err
}

// HurryTopup has a worker look at a top-up now: an event says that something has become of it.
func (l *Ledger) HurryTopup(ctx context.Context, top Topup) error {
	_, err := l.db.ExecContext(ctx, `update topups set run_at = least(run_at, $3) where bucket = $1 and id = $2
		and status in ('pending', 'processing', 'action_required') and lease_until is null`, top.Bucket, top.ID, l.Now().Add(time.Second))
	l.wakeTopups()
	return err
}

// MirrorEmptied reports whether Stripe is known to show nothing for a customer, with nothing on its way: what an
// invoice that buys credit may be finalized on. A customer without a mirror has nothing in Stripe that we put there.
func (l *Ledger) MirrorEmptied(ctx context.Context, ref Ref) (bool, error) {
	v, found, err := l.MirrorOf(ctx, ref)
	return err == nil && (!found || v.Credit == 0 && !v.Open && !v.ImportDue), err
}
