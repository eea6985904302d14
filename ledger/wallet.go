package ledger

import (
	"context"
	"time"

	"github.com/lib/pq"
)

// Wallet is one balance of one customer in one asset.
type Wallet struct {
	Bucket         int16      `db:"bucket"`
	ID             string     `db:"id"`
	Customer       string     `db:"customer_id"`
	Asset          string     `db:"asset"`
	Scale          int16      `db:"scale"`
	Scope          string     `db:"scope"`
	Status         string     `db:"status"`
	Total          int64      `db:"total"`
	Held           int64      `db:"held"`
	Pending        int64      `db:"pending"`
	Debt           int64      `db:"debt"`
	StripeDebt     int64      `db:"stripe_debt"`
	OverdraftLimit int64      `db:"overdraft_limit"`
	Seq            int64      `db:"seq"`
	Version        int64      `db:"version"`
	EnteredAt      time.Time  `db:"entered_at"`
	TurnsAt        *time.Time `db:"turns_at"`
	RefillBelow    *int64     `db:"refill_below"`
	Used           int64      `db:"used"`        // usage so far; may wrap around: only differences mean something
	Seal           []byte     `db:"seal"`        // of the last entry
	Barred         bool       `db:"barred"`      // its customer is frozen or deleted
	FullAmount     int64      `db:"full_amount"` // available right after credit last came in force
	AlertState     string     `db:"alert_state"`
	QuietFrom      *int64     `db:"quiet_from"`
	QuietBelow     *int64     `db:"quiet_below"`
	CreatedAt      time.Time  `db:"created_at"`
}

const walletColumns = `bucket, id, customer_id, asset, scale, scope, status, total, held, pending, debt, stripe_debt,
	overdraft_limit, seq, version, entered_at, turns_at, refill_below, used, seal, barred, full_amount, alert_state, quiet_from, quiet_below, created_at`

// Available is what the next debit may spend, without the overdraft limit; below zero while there is debt.
func (w *Wallet) Available() int64 { return w.Total - w.Held }

// Balance is a wallet's balance at one moment, in steps. Total is Available + Held; Pending is in neither.
type Balance struct {
	Available, Held, Pending, Total int64
}

// Balance is the wallet's balance as it was read.
func (w *Wallet) Balance() Balance {
	return Balance{Available: w.Available(), Held: w.Held, Pending: w.Pending, Total: w.Total}
}

// active reports whether credit may be spent from the wallet now.
func (w *Wallet) active() bool { return w.Status == "active" && !w.Barred }

// calls reports whether there is more to do after the wallet's balance moved: an alert begins or ends, or
// credit is to be bought.
func (w *Wallet) calls(available int64) bool {
	return w.loud(available) || w.RefillBelow != nil && available+w.Pending < *w.RefillBelow
}

func (w *Wallet) ref() Ref { return Ref{w.Bucket, w.Customer} }

// Spends reports whether usage may be paid from the wallet.
func (w *Wallet) spends() bool { return w.Scope != "invoices" && w.Status != "closed" }

// WalletInput makes a wallet.
type WalletInput struct {
	Customer  string
	Asset     string
	Scope     string // "" is all
	Overdraft Decimal
	Alerts    []AlertInput
}

// CreateWallet makes a wallet. One customer has at most one for each asset and scope.
func (l *Ledger) CreateWallet(ctx context.Context, in WalletInput, once Once) (w Wallet, replayed bool, err error) {
	if in.Asset == "" {
		return Wallet{}, false, refuse(CodeMissing, "asset", "asset is missing")
	}
	c, asset, err := l.assetFor(ctx, in.Customer, in.Asset)
	if err != nil {
		return Wallet{}, false, err
	}
	if in.Scope == "" {
		in.Scope = "all"
	}
	if in.Scope != "all" && in.Scope != "usage" && in.Scope != "invoices" {
		return Wallet{}, false, refuse(CodeInvalid, "scope", "scope is all, usage or invoices")
	}
	overdraft, err := stepsOf(in.Overdraft, asset.Scale, "overdraft_limit", asset.Code)
	if err != nil {
		return Wallet{}, false, err
	}
	if overdraft < 0 {
		return Wallet{}, false, refuse(CodeInvalid, "overdraft_limit", "overdraft_limit can't be below zero")
	}
	alerts, err := alertsOf(in.Alerts, asset.Scale, asset.Code)
	if err != nil {
		return Wallet{}, false, err
	}
	once.Bucket = c.Bucket
	err = l.inTx(ctx, func(t *tx) error {
		if _, replayed, err = t.claim(once, in.Asset+" "+in.Scope); err != nil || replayed {
			return err
		}
		if err := t.mirrorAsset(c.Ref, asset); err != nil {
			return err
		}
		id, err := t.insertWallet(c.Ref, asset, in.Scope, overdraft)
		if err != nil {
			return err
		}
		if id == "" {
			return refuse(CodeState, "asset", "customer %s has a wallet of %s with scope %s already", c.ID, asset.Code, in.Scope)
		}
		w, err := t.lockWallet(c.Bucket, id)
		if err != nil {
			return err
		}
		return t.setAlerts(w, alerts)
	})
	if err != nil {
		return Wallet{}, false, err
	}
	wallets, err := l.Wallets(ctx, c.Ref)
	for _, w := range wallets {
		if w.Asset == in.Asset && w.Scope == in.Scope {
			return w, replayed, err
		}
	}
	return Wallet{}, replayed, err
}

// insertWallet makes a wallet and answers its id, "" when the customer has one of that asset and scope.
func (t *tx) insertWallet(ref Ref, asset Asset, scope string, overdraft int64) (id string, err error) {
	w := Wallet{OverdraftLimit: overdraft}
	state, from, below := w.quiet(nil)
	_, err = t.get(&id, `insert into wallets (bucket, id, customer_id, asset, scale, scope, overdraft_limit, barred, alert_state, quiet_from, quiet_below,
			entered_at, created_at)
		select $1, $2, c.id, $4, $5, $6, $7, c.status <> 'active', $8, $9, $10, $11, $11 from customers c where c.bucket = $1 and c.id = $3 for share
		on conflict do nothing returning id`,
		ref.Bucket, t.l.ids.newID("wal_", ref.Bucket, t.now), ref.ID, asset.Code, asset.Scale, scope, overdraft, state, from, below, t.now)
	if err != nil {
		return "", err
	}
	// Another wallet may change which one usage is paid from.
	if err := t.lockWallets(ref); err != nil {
		return "", err
	}
	return id, t.exec(`update wallets set version = version + 1 where bucket = $1 and customer_id = $2`, ref.Bucket, ref.ID)
}

// lockWallets takes the row locks of all wallets of a customer, in the one order that everybody locks in. Whoever
// needs more than one takes them so first.
func (t *tx) lockWallets(ref Ref) error {
	return t.exec(`select from wallets where bucket = $1 and customer_id = $2 order by id for update`, ref.Bucket, ref.ID)
}

// stepsOf is an amount in steps of an asset, or the refusal that names its field.
func stepsOf(d Decimal, scale int16, param, asset string) (int64, error) {
	n, ok := d.steps(scale)
	if ok {
		return n, nil
	}
	if d.Scale > int(scale) {
		return 0, refuse(CodeInvalid, param, "%s has %d decimals; %s counts at most %d", param, d.Scale, asset, scale)
	}
	return 0, refuse(CodeInvalid, param, "%s is too large for %s", param, asset)
}

// Wallet finds a wallet by its id, with every grant that has begun or expired by now counted so.
func (l *Ledger) Wallet(ctx context.Context, id string) (Wallet, error) {
	bucket, ok := bucketOfID("wal_", id)
	if !ok {
		return Wallet{}, noWallet(id)
	}
	var w Wallet
	found, err := l.getRow(ctx, &w, `select `+walletColumns+` from wallets where bucket = $1 and id = $2`, bucket, id)
	if err != nil {
		return Wallet{}, err
	}
	if !found {
		return Wallet{}, noWallet(id)
	}
	return l.turned(ctx, w)
}

func noWallet(id string) error { return refuse(CodeNotFound, "wallet", "No such wallet: '%s'", id) }

// Wallets lists a customer's wallets, the oldest first.
func (l *Ledger) Wallets(ctx context.Context, ref Ref) ([]Wallet, error) {
	return l.wallets(ctx, `select `+walletColumns+` from wallets where bucket = $1 and customer_id = $2 order by id`, ref.Bucket, ref.ID)
}

// WalletsOf lists the wallets of several customers, for a page of them.
func (l *Ledger) WalletsOf(ctx context.Context, refs []Ref) (map[string][]Wallet, error) {
	buckets, ids := make(pq.Int64Array, len(refs)), make(pq.StringArray, len(refs))
	for i, r := range refs {
		buckets[i], ids[i] = int64(r.Bucket), r.ID
	}
	all, err := l.wallets(ctx, `select `+walletColumns+` from wallets
		where (bucket, customer_id) in (select * from unnest($1::smallint[], $2::text[])) order by id`, buckets, ids)
	of := make(map[string][]Wallet, len(refs))
	for _, w := range all {
		of[w.Customer] = append(of[w.Customer], w)
	}
	return of, err
}

func (l *Ledger) wallets(ctx context.Context, query string, args ...any) ([]Wallet, error) {
	var wallets []Wallet
	if err := l.db.SelectContext(ctx, &wallets, query, args...); err != nil {
		return nil, err
	}
	for i, w := range wallets {
		w, err := l.turned(ctx, w)
		if err != nil {
			return nil, err
		}
		wallets[i] = w
	}
	return wallets, nil
}

// lockWallet takes the wallet's row lock and brings it up to now. Every change of credit starts with it.
func (t *tx) lockWallet(bucket int16, id string) (*Wallet, error) {
	var w Wallet
	found, err := t.get(&w, `select `+walletColumns+` from wallets where bucket = $1 and id = $2 for update`, bucket, id)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, noWallet(id)
	}
	return &w, t.turn(&w)
}

// usageWallets are the wallets that may pay for usage of an asset, "" for the only one there is, in the order
// in which they are asked: scope usage before scope all, which may pay invoices too.
func usageWallets(wallets []*Wallet, customer, asset string) ([]*Wallet, error) {
	var fit []*Wallet
	for _, w := range wallets {
		switch {
		case !w.spends() || asset != "" && w.Asset != asset:
		case len(fit) > 0 && fit[0].Asset != w.Asset:
			return nil, refuse(CodeMissing, "asset", "customer %s has wallets of %s and %s: say which asset", customer, fit[0].Asset, w.Asset)
		case w.Scope == "usage":
			fit = append([]*Wallet{w}, fit...)
		default:
			fit = append(fit, w)
		}
	}
	if len(fit) > 0 {
		return fit, nil
	}
	if asset == "" {
		return nil, refuse(CodeNotFound, "asset", "customer %s has no wallet that usage may spend", customer)
	}
	return nil, refuse(CodeNotFound, "asset", "customer %s has no wallet of %s; make one with POST /v1/customers/%s/wallets", customer, asset, customer)
}

// payer picks which of the wallets that may pay does: the first that is active and has the credit, else the
// first whose overdraft covers it. One wallet pays a debit whole. With the refusal it answers the wallet that
// the refusal is about.
func payer(wallets []*Wallet, amount int64) (*Wallet, error) {
	var active []*Wallet
	for _, w := range wallets {
		if w.active() {
			if w.Available() >= amount {
				return w, nil
			}
			active = append(active, w)
		}
	}
	if len(active) == 0 {
		return wallets[0], frozen(wallets[0])
	}
	most := active[0]
	for _, w := range active {
		if w.affords(amount) == nil {
			return w, nil
		}
		if w.Available() > most.Available() {
			most = w
		}
	}
	return most, insufficient(most, amount)
}

// WalletChange changes a wallet; nil leaves things as they are.
type WalletChange struct {
	Overdraft *Decimal
	Status    *string // active, frozen, closed
	Alerts    *[]AlertInput
}

// ChangeWallet changes a wallet. A closed one has nothing left in it and stays closed.
func (l *Ledger) ChangeWallet(ctx context.Context, id string, in WalletChange) (w Wallet, err error) {
	if w, err = l.Wallet(ctx, id); err != nil {
		return Wallet{}, err
	}
	c, err := l.Customer(ctx, w.Customer)
	if err != nil {
		return Wallet{}, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		locked, err := t.lockWallet(w.Bucket, w.ID)
		if err != nil {
			return err
		}
		if err := in.apply(locked, c); err != nil {
			return err
		}
		if deref(in.Status) == "closed" {
			var inFlight bool // what it gave before it was paid may have to be taken back
			if _, err := t.get(&inFlight, inFlightSQL, w.Bucket, w.ID); err != nil {
				return err
			}
			if inFlight {
				return refuse(CodeState, "status", "a top-up of wallet %s is in flight: wait for it or cancel it first", w.ID)
			}
		}
		if err := t.exec(`update wallets set overdraft_limit = $3, status = $4, version = version + 1 where bucket = $1 and id = $2`,
			locked.Bucket, locked.ID, locked.OverdraftLimit, locked.Status); err != nil {
			return err
		}
		// The overdraft is part of what there is to spend.
		if err := t.watch(locked, true); err != nil {
			return err
		}
		if in.Alerts != nil {
			alerts, err := alertsOf(*in.Alerts, w.Scale, w.Asset)
			if err != nil {
				return err
			}
			if err := t.setAlerts(locked, alerts); err != nil {
				return err
			}
		}
		err = t.rearm(locked)
		w = *locked
		return err
	})
	return w, err
}

func (in WalletChange) apply(w *Wallet, c Customer) error {
	if w.Status == "closed" {
		return refuse(CodeState, "id", "wallet %s is closed", w.ID)
	}
	if in.Overdraft != nil {
		n, err := stepsOf(*in.Overdraft, w.Scale, "overdraft_limit", w.Asset)
		if err != nil {
			return err
		}
		if n < 0 {
			return refuse(CodeInvalid, "overdraft_limit", "overdraft_limit can't be below zero")
		}
		w.OverdraftLimit = n
	}
	if in.Status == nil {
		return nil
	}
	switch *in.Status {
	case "frozen":
	case "active":
		if c.Status == "deleted" {
			return refuse(CodeState, "status", "customer %s was deleted in Stripe: its wallets stay frozen", c.ID)
		}
	case "closed":
		if w.Total != 0 || w.Held != 0 || w.Pending != 0 {
			return refuse(CodeState, "status", "wallet %s is not empty: void, capture or wait for what is in it first", w.ID)
		}
	default:
		return refuse(CodeInvalid, "status", "status is active, frozen or closed")
	}
	w.Status = *in.Status
	return nil
}
