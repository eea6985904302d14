package ledger

import (
	"context"
	"time"
)

// Hold is credit set aside for work whose cost is known only at its end. It pins the grants that it took, past
// their own expiry; what it does not capture goes back to them.
type Hold struct {
	Bucket    int16     `db:"bucket"`
	ID        string    `db:"id"`
	Wallet    string    `db:"wallet_id"`
	Customer  string    `db:"customer_id"`
	Status    string    `db:"status"` // open, captured, released, expired
	Amount    int64     `db:"amount"`
	Captured  int64     `db:"captured"`
	Parts     Parts     `db:"parts"` // still pinned
	ExpiresAt time.Time `db:"expires_at"`
	Metadata  string    `db:"metadata"`
	CreatedAt time.Time `db:"created_at"`
	Scale     int16     `db:"scale"`
}

// Remaining is what the hold still pins.
func (h *Hold) Remaining() (n int64) {
	for _, p := range h.Parts {
		n += p.Amount
	}
	return n
}

const holdColumns = `h.bucket, h.id, h.wallet_id, h.status, h.amount, h.captured, h.parts, h.expires_at, h.metadata, h.created_at, w.customer_id, w.scale`

const holdsFrom = ` from holds h join wallets w on w.bucket = h.bucket and w.id = h.wallet_id `

// Bounds of how long a hold lives without being extended.
const (
	DefaultHold = 15 * time.Minute
	MaxHold     = 30 * 24 * time.Hour
)

// HoldInput sets credit aside.
type HoldInput struct {
	Customer, Asset string
	Amount          Decimal
	ExpiresIn       time.Duration
	Metadata        string
}

// CreateHold sets credit aside, or refuses with CodeInsufficient. Overdraft can't be held: it is nobody's yet.
func (l *Ledger) CreateHold(ctx context.Context, in HoldInput, once Once) (h Hold, replayed bool, err error) {
	if in.Amount.Digits <= 0 {
		return Hold{}, false, refuse(CodeInvalid, "amount", "amount must be above zero")
	}
	wallets, err := l.usageWalletsOf(ctx, in.Customer, in.Asset)
	if err != nil {
		return Hold{}, false, err
	}
	amount, err := stepsOf(in.Amount, wallets[0].Scale, "amount", wallets[0].Asset)
	if err != nil {
		return Hold{}, false, err
	}
	w, _ := payer(wallets, amount) // what speaks against it is said under the lock
	once.Bucket = w.Bucket
	id := ""
	err = l.inTx(ctx, func(t *tx) error {
		if id, replayed, err = t.claim(once, l.ids.newID("hld_", w.Bucket, t.now)); err != nil || replayed {
			return err
		}
		w, err := t.lockWallet(w.Bucket, w.ID)
		if err != nil {
			return err
		}
		return t.hold(w, id, amount, in)
	})
	if err != nil {
		return Hold{}, false, err
	}
	h, err = l.HoldByID(ctx, id)
	return h, replayed, err
}

func (t *tx) hold(w *Wallet, id string, amount int64, in HoldInput) error {
	if !w.active() {
		return frozen(w)
	}
	if amount > w.Available() {
		return insufficient(w, amount)
	}
	grants, err := t.liveGrants(w, `true`)
	if err != nil {
		return err
	}
	p, pinned, left := newPosting(t.now), Parts(nil), amount
	for i := range grants {
		g := &grants[i]
		take := min(left, g.Remaining-g.Held)
		if take <= 0 {
			continue
		}
		g.Held += take
		left -= take
		pinned = append(pinned, Part{g.ID, take})
		p.set(g.state())
	}
	if left > 0 { // debt that Stripe shows may hide behind credit that can't pay it
		return insufficient(w, amount)
	}
	p.enter(w, Entry{ID: t.l.ids.newID("ent_", w.Bucket, t.now), Type: "hold", Held: amount, Reason: "hold", RefersTo: id})
	if err := t.write(p); err != nil {
		return err
	}
	if in.Metadata == "" {
		in.Metadata = "{}"
	}
	expires := t.now.Add(in.ExpiresIn)
	if err := t.exec(`insert into holds (bucket, id, wallet_id, amount, parts, expires_at, metadata, created_at) values ($1, $2, $3, $4, $5, $6, $7, $8)`,
		w.Bucket, id, w.ID, amount, string(pinned.appendTo(nil)), expires, in.Metadata, t.now); err != nil {
		return err
	}
	if err := t.turnsAt(w, expires); err != nil {
		return err
	}
	return t.rearm(w)
}

// liveGrants are a locked wallet's grants that fit a condition, in burn order.
func (t *tx) liveGrants(w *Wallet, condition string) (grants []Grant, err error) {
	err = t.SelectContext(t.ctx, &grants, `select `+grantColumns+grantsFrom+`
		where g.bucket = $1 and g.wallet_id = $2 and g.live and `+condition+`
		order by g.priority, g.expires_at, g.kind_rank, g.id`, w.Bucket, w.ID)
	return grants, err
}

// HoldByID finds a hold, ended if its time has run out.
func (l *Ledger) HoldByID(ctx context.Context, id string) (Hold, error) {
	h, err := l.readHold(ctx, id)
	if err != nil || h.Status != "open" || h.ExpiresAt.After(l.Now()) {
		return h, err
	}
	if _, err := l.Wallet(ctx, h.Wallet); err != nil { // turns it, which ends the hold
		return Hold{}, err
	}
	return l.readHold(ctx, id)
}

func (l *Ledger) readHold(ctx context.Context, id string) (h Hold, err error) {
	none := refuse(CodeNotFound, "hold", "No such hold: '%s'", id)
	bucket, ok := bucketOfID("hld_", id)
	if !ok {
		return Hold{}, none
	}
	found, err := l.getRow(ctx, &h, `select `+holdColumns+holdsFrom+`where h.bucket = $1 and h.id = $2`, bucket, id)
	if err == nil && !found {
		return Hold{}, none
	}
	return h, err
}

// changeHold runs a change of an open hold under its wallet's lock. One whose time has run out has ended by
// then: the lock turns the wallet first.
func (l *Ledger) changeHold(ctx context.Context, id string, once Once, change func(*tx, *Wallet, *Hold) error) (h Hold, err error) {
	if h, err = l.readHold(ctx, id); err != nil {
		return Hold{}, err
	}
	once.Bucket = h.Bucket
	replayed := false
	// An ended hold is refused, and the turn that ended it is kept: so the turn has a transaction of its own.
	if _, err := l.Wallet(ctx, h.Wallet); err != nil {
		return Hold{}, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		if _, replayed, err = t.claim(once, id); err != nil || replayed {
			return err
		}
		w, err := t.lockWallet(h.Bucket, h.Wallet)
		if err != nil {
			return err
		}
		if _, err := t.get(&h, `select `+holdColumns+holdsFrom+`where h.bucket = $1 and h.id = $2`, h.Bucket, h.ID); err != nil {
			return err
		}
		if h.Status != "open" {
			return refuse(CodeState, "id", "hold %s is %s", id, h.Status)
		}
		return change(t, w, &h)
	})
	if err != nil {
		return Hold{}, err
	}
	return l.HoldByID(ctx, id)
}

// ExtendHold lets an open hold live for another while, from now on.
func (l *Ledger) ExtendHold(ctx context.Context, id string, by time.Duration, once Once) (Hold, error) {
	return l.changeHold(ctx, id, once, func(t *tx, w *Wallet, h *Hold) error {
		expires := t.now.Add(by)
		if err := t.exec(`update holds set expires_at = $3 where bucket = $1 and id = $2`, h.Bucket, h.ID, expires); err != nil {
			return err
		}
		return t.turnsAt(w, expires)
	})
}

// ReleaseHold ends a hold: what it has not captured goes back.
func (l *Ledger) ReleaseHold(ctx context.Context, id string, once Once) (Hold, error) {
	return l.changeHold(ctx, id, once, func(t *tx, w *Wallet, h *Hold) error {
		if err := t.endHold(w, h, "released"); err != nil {
			return err
		}
		return t.rearm(w)
	})
}

// endHold gives back what a hold still pins and books as breakage what belongs to grants that have ended.
func (t *tx) endHold(w *Wallet, h *Hold, status string) error {
	p := newPosting(t.now)
	grants, err := t.grantsOf(h.Bucket, h.Parts)
	if err != nil {
		return err
	}
	if left := h.Remaining(); left > 0 {
		p.enter(w, Entry{ID: t.l.ids.newID("ent_", w.Bucket, t.now), Type: "release", Held: -left, Reason: status, RefersTo: h.ID})
	}
	for _, part := range h.Parts {
		g := grants[part.Grant]
		g.Held -= part.Amount
		if g.Status != "confirmed" { // it expired or was voided while it was pinned
			g.Remaining -= part.Amount
			kind := "expire"
			if g.Status == "voided" {
				kind = "void"
			}
			p.enter(w, Entry{ID: t.l.ids.newID("ent_", w.Bucket, t.now), Type: kind, Amount: -part.Amount,
				Parts: Parts{{g.ID, -part.Amount}}, Reason: g.Status, RefersTo: g.ID})
		}
		p.set(g.state())
	}
	if err := t.write(p); err != nil {
		return err
	}
	h.Status, h.Parts = status, nil
	return t.exec(`update holds set status = $3, parts = '' where bucket = $1 and id = $2`, h.Bucket, h.ID, status)
}

// grantsOf are the grants that parts are of, by id.
func (t *tx) grantsOf(bucket int16, parts Parts) (map[string]*Grant, error) {
	ids := make(textArray, len(parts))
	for i, part := range parts {
		ids[i] = part.Grant
	}
	var grants []Grant
	if err := t.SelectContext(t.ctx, &grants, `select `+grantColumns+grantsFrom+`where g.bucket = $1 and g.id = any($2)`, bucket, ids); err != nil {
		return nil, err
	}
	byID := make(map[string]*Grant, len(grants))
	for i := range grants {
		byID[grants[i].ID] = &grants[i]
	}
	return byID, nil
}

// CaptureInput takes held credit.
type CaptureInput struct {
	Amount   *Decimal // nil: all that is left
	Final    bool     // what is left after it goes back
	OnExcess string   // "": more than is left is refused; wallet: the rest from the wallet; debt: and then as debt
}

// CaptureHold takes credit that a hold has set aside. More than is left is refused with CodeInsufficient and
// changes nothing, unless OnExcess says where the rest comes from.
func (l *Ledger) CaptureHold(ctx context.Context, id string, in CaptureInput, once Once) (Hold, error) {
	if in.OnExcess != "" && in.OnExcess != "wallet" && in.OnExcess != "debt" {
		return Hold{}, refuse(CodeInvalid, "on_excess", "on_excess is wallet or debt")
	}
	return l.changeHold(ctx, id, once, func(t *tx, w *Wallet, h *Hold) error {
		amount := h.Remaining()
		if in.Amount != nil {
			var err error
			if amount, err = stepsOf(*in.Amount, w.Scale, "amount", w.Asset); err != nil {
				return err
			}
			if amount <= 0 {
				return refuse(CodeInvalid, "amount", "amount must be above zero")
			}
		}
		return t.capture(w, h, amount, in)
	})
}

func (t *tx) capture(w *Wallet, h *Hold, amount int64, in CaptureInput) error {
	held := min(amount, h.Remaining())
	excess := amount - held
	if excess > 0 && in.OnExcess == "" {
		r := refuse(CodeInsufficient, "amount", "hold %s has %s left and the capture asks for %s; say on_excess to take the rest elsewhere",
			h.ID, FormatSteps(held, w.Scale), FormatSteps(amount, w.Scale))
		r.Available, r.Required, r.Scale, r.Wallet = held, amount, w.Scale, w.ID
		return r
	}
	if excess > 0 && in.OnExcess == "wallet" {
		if err := w.affords(excess); err != nil {
			return err
		}
	}
	grants, err := t.grantsOf(h.Bucket, h.Parts)
	if err != nil {
		return err
	}
	p, parts, left, pinned := newPosting(t.now), Parts(nil), held, Parts(nil)
	for _, part := range h.Parts {
		g, take := grants[part.Grant], min(left, part.Amount)
		if take > 0 {
			g.Held, g.Remaining, left = g.Held-take, g.Remaining-take, left-take
			if g.Remaining == 0 && g.Status == "confirmed" {
				g.Status = "exhausted"
			}
			parts = append(parts, Part{g.ID, -take})
			p.set(g.state())
		}
		if part.Amount > take {
			pinned = append(pinned, Part{g.ID, part.Amount - take})
		}
	}
	if excess > 0 {
		// The pinned grants are changed in this posting already: they are written before more is taken of them.
		if err := t.write(&posting{now: p.now, grants: p.grants}); err != nil {
			return err
		}
		more, short, err := t.take(p, w, excess, `true`)
		if err != nil {
			return err
		}
		if parts = append(parts, more...); short > 0 {
			parts = append(parts, Part{debtPart, -short})
		}
	}
	h.Captured, h.Parts = h.Captured+amount, pinned
	p.enter(w, Entry{ID: t.l.ids.newID("ent_", w.Bucket, t.now), Type: "capture", Amount: -amount, Held: -held, Parts: parts, Reason: "capture", RefersTo: h.ID})
	if err := t.write(p); err != nil {
		return err
	}
	if err := t.exec(`update holds set captured = $3, parts = $4 where bucket = $1 and id = $2`, h.Bucket, h.ID, h.Captured, string(pinned.appendTo(nil))); err != nil {
		return err
	}
	if in.Final || len(pinned) == 0 {
		if err := t.endHold(w, h, "captured"); err != nil {
			return err
		}
	}
	return t.rearm(w)
}

// usageWalletsOf are the wallets that may pay for a customer's usage of an asset.
func (l *Ledger) usageWalletsOf(ctx context.Context, customer, asset string) ([]*Wallet, error) {
	if asset != "" {
		if known, err := l.assetKnown(ctx, asset); err != nil {
			return nil, err
		} else if !known {
			return nil, refuse(CodeAssetUnknown, "asset", "there is no asset %q", asset)
		}
	}
	ref, err := l.Resolve(ctx, customer)
	if err != nil {
		return nil, err
	}
	wallets, err := l.spendable(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(wallets) == 0 {
		return nil, noCustomer(customer)
	}
	return usageWallets(wallets, ref.ID, asset)
}
