package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/lib/pq"
)

// Looks at what customers may spend are gathered as debits are: those that come while the one before is under way share
// the next statement. Each answer is what the database says after it was asked for.

const (
	// lookers is how many statements are under way at once.
	lookers = 2
	// lookAtMost bounds one statement.
	lookAtMost = 512
	// lookQueue bounds what waits; past it a caller is told to come back.
	lookQueue = 8192
	// lookTime bounds how long a statement may take.
	lookTime = 10 * time.Second
)

// look is one look at a customer's wallets, on its way.
type look struct {
	ref     Ref
	wallets []*Wallet // the oldest first
	err     error
	done    chan struct{}
}

// lookSQL reads what decides whether a debit would be booked.
const lookSQL = `
select w.bucket, w.id, w.customer_id, w.asset, w.scale, w.scope, w.status, w.total, w.held, w.overdraft_limit, w.turns_at, w.barred
from unnest($1::smallint[], $2::text[]) u(bucket, customer_id)
join wallets w on w.bucket = u.bucket and w.customer_id = u.customer_id order by w.id`

// spendable reads a customer's wallets for all that payer asks of them, after every turn that is due.
func (l *Ledger) spendable(ctx context.Context, ref Ref) ([]*Wallet, error) {
	k := &look{ref: ref, done: make(chan struct{})}
	select {
	case l.looks <- k:
	default:
		return nil, refuse(CodeUnavailable, "", "too much is waiting to be read; try again shortly")
	}
	select {
	case <-k.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, refuse(CodeUnavailable, "", "this process is stopping; try again shortly")
	}
	now := l.Now()
	if k.err != nil || !slices.ContainsFunc(k.wallets, func(w *Wallet) bool { return w.due(now) }) {
		return k.wallets, k.err
	}
	turned, err := l.Wallets(ctx, ref)
	wallets := make([]*Wallet, len(turned))
	for i := range turned {
		wallets[i] = &turned[i]
	}
	return wallets, err
}

// look serves looks until the ledger closes.
func (l *Ledger) look() {
	for {
		var batch []*look
		select {
		case k := <-l.looks:
			batch = append(batch, k)
		case <-l.closed:
			return
		}
		for more := true; more && len(batch) < lookAtMost; {
			select {
			case k := <-l.looks:
				batch = append(batch, k)
			default:
				more = false
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), lookTime)
		found, err := l.lookAt(ctx, batch)
		cancel()
		for _, k := range batch {
			k.wallets, k.err = found[k.ref], err
			close(k.done)
		}
	}
}

func (l *Ledger) lookAt(ctx context.Context, batch []*look) (map[Ref][]*Wallet, error) {
	found := make(map[Ref][]*Wallet, len(batch))
	buckets, ids := make(pq.Int64Array, 0, len(batch)), make(textArray, 0, len(batch))
	for _, k := range batch {
		if _, ok := found[k.ref]; !ok {
			found[k.ref] = nil
			buckets, ids = append(buckets, int64(k.ref.Bucket)), append(ids, k.ref.ID)
		}
	}
	rows, err := l.db.QueryContext(ctx, lookSQL, buckets, ids)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		w := new(Wallet)
		if err := rows.Scan(&w.Bucket, &w.ID, &w.Customer, &w.Asset, &w.Scale, &w.Scope, &w.Status, &w.Total, &w.Held, &w.OverdraftLimit,
			&w.TurnsAt, &w.Barred); err != nil {
			return nil, err
		}
		found[w.ref()] = append(found[w.ref()], w)
	}
	return found, rows.Err()
}
