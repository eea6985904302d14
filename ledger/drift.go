package ledger

import (
	"context"
	"slices"
	"strings"
)

// Drift is a difference between a customer's books and Stripe, as it is told.
type Drift struct {
	Fingerprint string // without blanks: the same as long as the difference is
	Finding     any    // what the event shows
}

// TellDrift tells of a customer's differences, of each once: again only when it has been gone, or is another. No
// differences are told of by forgetting those that were.
func (l *Ledger) TellDrift(ctx context.Context, customer Ref, found []Drift) error {
	return l.inTx(ctx, func(t *tx) error {
		var told string
		exists, err := t.get(&told, `select drift_told from customers where bucket = $1 and id = $2 for update`, customer.Bucket, customer.ID)
		if err != nil || !exists {
			return err
		}
		before := strings.Fields(told)
		var now []string
		for _, d := range found {
			if slices.Contains(now, d.Fingerprint) {
				continue
			}
			now = append(now, d.Fingerprint)
			if !slices.Contains(before, d.Fingerprint) {
				t.emitFor(EventDrift, customer, nil, d.Finding)
			}
		}
		if text := strings.Join(now, " "); text != told {
			return t.exec(`update customers set drift_told = $3 where bucket = $1 and id = $2`, customer.Bucket, customer.ID, text)
		}
		return nil
	})
}

// ToldOfDrift answers the customers of whom a difference was told that is not known to be gone.
func (l *Ledger) ToldOfDrift(ctx context.Context) ([]Ref, error) {
	var refs []Ref
	err := l.db.SelectContext(ctx, &refs, `select bucket, id from customers where drift_told <> '' order by bucket, id`)
	return refs, err
}
