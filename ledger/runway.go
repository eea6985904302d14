package ledger

import (
	"context"
	"errors"
	"math"
	"math/big"
	"math/bits"
	"time"
)

// A rule may look ahead: beside its threshold it acts when the balance would not last so many minutes at the rate of
// late, so that a spike refills before it runs dry. What a debit compares the balance with is a number on the wallet
// all the same, since a debit can't stop to look at the past: it is drawn anew by whatever rearms the wallet, and every
// few seconds by LookAhead where there were entries. Between two looks a rate can only have risen, and then the next
// look sees it; one that has fallen is seen by the debit that comes to the old mark.

// runwayWindows are those that the rate is taken over; the larger counts. A spike shows in five minutes at once and is
// forgotten as soon; what comes in bursts further apart shows in the hour, which holds through the quiet between them.
// They are full windows for a young wallet too: its first debit is no rate to charge a card by.
var runwayWindows = [...]time.Duration{5 * time.Minute, time.Hour}

// maxRunway is thirty days, in minutes.
const maxRunway = 43200

// limits are the balance below which the rule acts, and the mark, no lower, below which a debit has it look.
func (t *tx) limits(w *Wallet, r *Rule) (limit, mark int64, err error) {
	limit = r.below(w)
	if r.RunwayMinutes == nil {
		return limit, limit, nil
	}
	var rates [len(runwayWindows)]int64
	for i, window := range runwayWindows {
		if rates[i], err = usedSince(t.get, w, t.now.Add(-window)); err != nil {
			return 0, 0, err
		}
	}
	early, about := r.early(lasting(rates, *r.RunwayMinutes))
	return max(limit, early), max(limit, about), nil
}

// lasting is the balance that lasts so many minutes at the larger of the rates, rounded up to a step.
func lasting(used [len(runwayWindows)]int64, minutes int32) int64 {
	most := int64(0)
	for i, window := range runwayWindows {
		n := new(big.Int).Mul(big.NewInt(used[i]), big.NewInt(int64(minutes)))
		per := big.NewInt(int64(window / time.Minute))
		n.Add(n, per).Sub(n, big.NewInt(1)).Div(n, per)
		if !n.IsInt64() {
			return math.MaxInt64
		}
		most = max(most, n.Int64())
	}
	return most
}

// early bounds the balance that lasts long enough by what the rule may do about it. A refill to a target buys only what
// is missing, so an early one waits until a quarter of the way from target to threshold is gone: else a spike that the
// target itself does not outlast would charge the card for each debit. about is early rounded up to five binary
// digits, so that a rate that trembles does not rewrite the wallet at every look.
func (r *Rule) early(lasts int64) (early, about int64) {
	most := int64(math.MaxInt64)
	if r.Target != nil {
		most = *r.Target - r.smallest()/4
	}
	step := int64(1) << max(0, bits.Len64(uint64(lasts))-5)
	about = lasts
	if lasts < math.MaxInt64-step {
		about = (lasts + step - 1) &^ (step - 1)
	}
	return min(lasts, most), min(about, most)
}

// smallest is the least that one refill by the threshold buys, as the rule was set.
func (r *Rule) smallest() int64 {
	switch {
	case r.Amount != nil:
		return *r.Amount
	case r.ThresholdPercent != nil:
		return *r.Target / 100 * int64(100-*r.ThresholdPercent)
	default:
		return *r.Target - deref(r.Threshold)
	}
}

// lookBatch bounds how many rules one statement finds.
const lookBatch = 500

// LookAhead draws anew from which balance on the rules with a runway act, where the wallet had entries since the last
// look, and has those act that are there. Several processes may do so at once: the wallet's lock lets the first act,
// and the second finds it in flight.
func (l *Ledger) LookAhead(ctx context.Context) error {
	type rule struct {
		Bucket int16  `db:"bucket"`
		Wallet string `db:"wallet_id"`
		Moved  bool   `db:"moved"`
	}
	var failed []error
	for after := (rule{Bucket: -1}); ctx.Err() == nil; {
		var rules []rule
		err := l.db.SelectContext(ctx, &rules, `select r.bucket, r.wallet_id, w.seq <> r.looked_seq as moved
			from topup_rules r join wallets w on w.bucket = r.bucket and w.id = r.wallet_id
			where r.runway_minutes is not null and r.enabled and (r.bucket, r.wallet_id) > ($1, $2)
			order by r.bucket, r.wallet_id limit $3`, after.Bucket, after.Wallet, lookBatch)
		if err != nil {
			return errors.Join(append(failed, err)...)
		}
		for _, r := range rules {
			if r.Moved {
				failed = append(failed, l.lookAhead(ctx, r.Bucket, r.Wallet)) // one that fails must not keep the others
			}
		}
		if len(rules) < lookBatch {
			return errors.Join(failed...)
		}
		after = rules[len(rules)-1]
	}
	return ctx.Err()
}

func (l *Ledger) lookAhead(ctx context.Context, bucket int16, id string) error {
	return l.inTx(ctx, func(t *tx) error {
		w, err := t.lockWallet(bucket, id)
		if err != nil {
			return err
		}
		var looked int64
		if found, err := t.get(&looked, `select looked_seq from topup_rules where bucket = $1 and wallet_id = $2`, bucket, id); err != nil || !found || looked == w.Seq {
			return err
		}
		if err := t.rearm(w); err != nil {
			return err
		}
		return t.exec(`update topup_rules set looked_seq = $3 where bucket = $1 and wallet_id = $2`, bucket, id, w.Seq)
	})
}
