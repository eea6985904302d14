package ledger

import (
	"context"
	"time"
)

// A wallet turns when a grant comes in force or expires, or a hold runs out. The moment of the next turn is on the wallet, so
// that whoever locks or reads a wallet can see whether it is due, and credit is unusable in the instant it
// expires whether or not a sweep has run.

// turned is the wallet after every turn that is due.
func (l *Ledger) turned(ctx context.Context, w Wallet) (Wallet, error) {
	if !w.due(l.Now()) {
		return w, nil
	}
	err := l.inTx(context.WithValue(ctx, rehearsalKey{}, nil), func(t *tx) error {
		locked, err := t.lockWallet(w.Bucket, w.ID) // turns it
		if err == nil {
			w = *locked
		}
		return err
	})
	return w, err
}

func (w *Wallet) due(now time.Time) bool { return w.TurnsAt != nil && !w.TurnsAt.After(now) }

// turn books what has begun or expired on a locked wallet since it was last looked at.
func (t *tx) turn(w *Wallet) error {
	if !w.due(t.now) {
		return nil
	}
	var begun []Grant
	if err := t.SelectContext(t.ctx, &begun, `select `+grantColumns+grantsFrom+`
		where g.bucket = $1 and g.wallet_id = $2 and g.status = 'confirmed' and not g.in_force and g.effective_at <= $3
		order by g.effective_at, g.id`, w.Bucket, w.ID, t.now); err != nil {
		return err
	}
	p := newPosting(t.now)
	for i := range begun {
		p.begin(t.l, w, &begun[i], "grant")
		t.emitGrant(EventGrantConfirmed, w, begun[i])
	}
	if err := t.write(p); err != nil {
		return err
	}
	ended, err := t.endHolds(w)
	if err != nil {
		return err
	}
	var expired []Grant
	if err := t.SelectContext(t.ctx, &expired, `select `+grantColumns+grantsFrom+`
		where g.bucket = $1 and g.wallet_id = $2 and g.live and g.expires_at <= $3
		order by g.expires_at, g.id`, w.Bucket, w.ID, t.now); err != nil {
		return err
	}
	p = newPosting(t.now)
	for i := range expired {
		p.expire(t.l, w, &expired[i])
		t.emitGrant(EventGrantExpired, w, expired[i])
	}
	if err := t.write(p); err != nil {
		return err
	}
	if err := t.nextTurn(w); err != nil {
		return err
	}
	if len(begun) > 0 {
		return t.filled(w)
	}
	if ended > 0 || len(expired) > 0 {
		return t.rearm(w)
	}
	return nil
}

// endHolds ends the wallet's holds whose time has run out and answers how many there were.
func (t *tx) endHolds(w *Wallet) (int, error) {
	var holds []Hold
	if err := t.SelectContext(t.ctx, &holds, `select `+holdColumns+holdsFrom+`
		where h.bucket = $1 and h.wallet_id = $2 and h.status = 'open' and h.expires_at <= $3 order by h.expires_at, h.id`, w.Bucket, w.ID, t.now); err != nil {
		return 0, err
	}
	for i := range holds {
		if err := t.endHold(w, &holds[i], "expired"); err != nil {
			return 0, err
		}
	}
	return len(holds), nil
}

// expire books what is left of a grant as breakage. What a hold has pinned stays until the hold ends.
func (p *posting) expire(l *Ledger, w *Wallet, g *Grant) {
	free := g.Remaining - g.Held
	g.Remaining, g.Status = g.Held, "expired"
	p.set(g.state())
	if free == 0 {
		return
	}
	p.enter(w, Entry{ID: l.ids.newID("ent_", w.Bucket, p.now), Type: "expire", Amount: -free,
		Parts: Parts{{g.ID, -free}}, Reason: "expired", RefersTo: g.ID})
}

// nextTurn sets when the wallet turns next from what its grants say.
func (t *tx) nextTurn(w *Wallet) error {
	_, err := t.get(&w.TurnsAt, `
		update wallets set version = version + 1, turns_at = (select min(at) from (
			select min(expires_at) as at from grants where bucket = $1 and wallet_id = $2 and live and expires_at is not null
			union all
			select min(expires_at) from holds where bucket = $1 and wallet_id = $2 and status = 'open'
			union all
			select min(effective_at) from grants where bucket = $1 and wallet_id = $2 and status = 'confirmed' and not in_force) turns)
		where bucket = $1 and id = $2 returning turns_at`, w.Bucket, w.ID)
	return err
}

// turnsAt makes the wallet turn no later than at.
func (t *tx) turnsAt(w *Wallet, at time.Time) error {
	if w.TurnsAt != nil && !w.TurnsAt.After(at) {
		return nil
	}
	w.TurnsAt = &at
	return t.exec(`update wallets set turns_at = $3, version = version + 1 where bucket = $1 and id = $2`, w.Bucket, w.ID, at)
}

// turnBatch bounds how many wallets one sweep looks at.
const turnBatch = 500

// Sweep turns wallets that nobody has looked at since they were due, a bounded number, and ends pauses
// whose time is up. It returns how many wallets it turned.
func (l *Ledger) Sweep(ctx context.Context) (int, error) {
	var due []struct {
		Bucket int16  `db:"bucket"`
		ID     string `db:"wallet_id"`
	}
	err := l.db.SelectContext(ctx, &due, `
		(select bucket, wallet_id from grants where live and expires_at <= $1 order by expires_at limit $2)
		union
		(select bucket, wallet_id from grants where status = 'confirmed' and not in_force and effective_at <= $1 order by effective_at limit $2)
		union
		(select bucket, wallet_id from holds where status = 'open' and expires_at <= $1 order by expires_at limit $2)
		union
		(select bucket, wallet_id from topup_rules where pause_until <= $1 order by pause_until limit $2)`, l.Now(), turnBatch)
	if err != nil {
		return 0, err
	}
	for i, d := range due {
		err := l.inTx(ctx, func(t *tx) error {
			w, err := t.lockWallet(d.Bucket, d.ID)
			if err != nil {
				return err
			}
			return t.rearm(w)
		})
		if err != nil {
			return i, err
		}
	}
	return len(due), nil
}
