package ledger

import "context"

// DriftFound tells that a customer's balance in Stripe differs from what all transactions add up to, once: not
// again until DriftGone. finding is what the event shows.
func (l *Ledger) DriftFound(ctx context.Context, customer Ref, finding any) error {
	return l.inTx(ctx, func(t *tx) error {
		res, err := t.ExecContext(ctx, `update mirrors set drift_told = true where bucket = $1 and customer_id = $2 and not drift_told`,
			customer.Bucket, customer.ID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
		t.emitFor(EventDrift, customer, nil, finding)
		return nil
	})
}

// DriftGone notes that Stripe shows what the ledger says: the next difference is another one.
func (l *Ledger) DriftGone(ctx context.Context, customer Ref) error {
	_, err := l.db.ExecContext(ctx, `update mirrors set drift_told = false where bucket = $1 and customer_id = $2 and drift_told`,
		customer.Bucket, customer.ID)
	return err
}
