package ledger

import (
	"context"
	"slices"
	"time"
)

// Grant is a tranche of credit with its own terms. Amounts are steps of the wallet's asset.
type Grant struct {
	Bucket       int16      `db:"bucket"`
	ID           string     `db:"id"`
	Wallet       string     `db:"wallet_id"`
	Amount       int64      `db:"amount"`
	Remaining    int64      `db:"remaining"`
	Held         int64      `db:"held"`
	Kind         string     `db:"kind"`
	Priority     int16      `db:"priority"`
	Covers       string     `db:"covers"`
	Status       string     `db:"status"`
	InForce      bool       `db:"in_force"`
	EffectiveAt  time.Time  `db:"effective_at"`
	ExpiresAt    *time.Time `db:"expires_at"`
	Reason       string     `db:"reason"`
	CostAmount   *int64     `db:"cost_amount"`
	CostCurrency *string    `db:"cost_currency"`
	SourceType   string     `db:"source_type"` // api, topup, stripe_balance, stripe_invoice, stripe_checkout
	SourceID     string     `db:"source_id"`
	Metadata     string     `db:"metadata"`
	CreatedAt    time.Time  `db:"created_at"`
	Scale        int16      `db:"scale"` // the wallet's
}

const grantColumns = `g.bucket, g.id, g.wallet_id, g.amount, g.remaining, g.held, g.kind, g.priority, g.covers, g.status, g.in_force,
	g.effective_at, g.expires_at, g.reason, g.cost_amount, g.cost_currency, g.source_type, g.source_id, g.metadata, g.created_at, w.scale`

const grantsFrom = ` from grants g join wallets w on w.bucket = g.bucket and w.id = g.wallet_id `

// grantKinds in burn order.
var grantKinds = []string{"plan", "promotional", "adjustment", "purchased"}

// GrantInput gives credit.
type GrantInput struct {
	Customer    string
	Asset       string // "" is the default asset
	Wallet      string // "" is the one that the rule says, of walletFor
	Amount      Decimal
	Kind        string
	Priority    int16
	Covers      string // "" follows the kind
	EffectiveAt *time.Time
	ExpiresAt   *time.Time
	Reason      string
	Cost        *Money
	Metadata    string
}

// DefaultPriority stands in the middle of the burn order.
const DefaultPriority = 50

// defaultCovers is what credit of a kind may pay: what was bought or set right pays invoices too, gifts
// and plans pay usage alone.
func defaultCovers(kind string) string {
	if kind == "purchased" || kind == "adjustment" {
		return "all"
	}
	return "usage"
}

func (in *GrantInput) check(now time.Time) error {
	if in.Kind == "" {
		in.Kind = "promotional"
	}
	if !slices.Contains(grantKinds, in.Kind) {
		return refuse(CodeInvalid, "kind", "kind is promotional, plan, purchased or adjustment")
	}
	if in.Covers == "" {
		in.Covers = defaultCovers(in.Kind)
	}
	switch {
	case in.Covers != "usage" && in.Covers != "all":
		return refuse(CodeInvalid, "covers", "covers is usage or all")
	case in.Priority < 0 || in.Priority > 100:
		return refuse(CodeInvalid, "priority", "priority is 0 (burned first) to 100")
	case in.Amount.Digits <= 0:
		return refuse(CodeInvalid, "amount", "amount must be above zero")
	case in.ExpiresAt != nil && !in.ExpiresAt.After(now):
		return refuse(CodeInvalid, "expires_at", "expires_at has passed")
	case in.ExpiresAt != nil && in.EffectiveAt != nil && !in.ExpiresAt.After(*in.EffectiveAt):
		return refuse(CodeInvalid, "expires_at", "expires_at must come after effective_at")
	case in.Cost != nil && in.Cost.Amount < 0:
		return refuse(CodeInvalid, "cost", "cost can't be below zero")
	case in.Cost != nil && !IsCurrency(in.Cost.Currency):
		return refuse(CodeInvalid, "cost", "cost.currency must be a currency in lower case, such as usd")
	}
	return nil
}

// Grant gives credit to a customer's wallet of an asset, making the wallet if there is none.
func (l *Ledger) Grant(ctx context.Context, in GrantInput, once Once) (g Grant, replayed bool, err error) {
	// The database rounds what is finer than it keeps, and an instant must not move past itself.
	for _, at := range []*time.Time{in.EffectiveAt, in.ExpiresAt} {
		if at != nil {
			*at = at.UTC().Truncate(time.Microsecond)
		}
	}
	if err := in.check(l.Now()); err != nil {
		return Grant{}, false, err
	}
	if in.Asset, err = l.assetOf(ctx, in.Asset, in.Wallet); err != nil {
		return Grant{}, false, err
	}
	c, asset, err := l.assetFor(ctx, in.Customer, in.Asset)
	if err != nil {
		return Grant{}, false, err
	}
	amount, err := stepsOf(in.Amount, asset.Scale, "amount", asset.Code)
	if err != nil {
		return Grant{}, false, err
	}
	if c.Status == "deleted" {
		return Grant{}, false, refuse(CodeState, "customer", "customer %s was deleted in Stripe: its books are closed", c.ID)
	}
	once.Bucket = c.Bucket
	var id string
	err = l.inTx(ctx, func(t *tx) error {
		if id, replayed, err = t.claim(once, l.ids.newID("grt_", c.Bucket, t.now)); err != nil || replayed {
			return err
		}
		w, err := t.creditWallet(in.Wallet, c.Ref, asset, scopesFor(in.Covers))
		if err != nil {
			return err
		}
		g := Grant{Bucket: c.Bucket, ID: id, Wallet: w.ID, Amount: amount, Kind: in.Kind, Priority: in.Priority,
			Covers: in.Covers, Status: "confirmed", EffectiveAt: t.now, ExpiresAt: in.ExpiresAt, Reason: in.Reason,
			SourceType: "api", SourceID: id, Metadata: in.Metadata}
		if in.EffectiveAt != nil {
			g.EffectiveAt = *in.EffectiveAt
		}
		if in.Cost != nil {
			g.CostAmount, g.CostCurrency = &in.Cost.Amount, &in.Cost.Currency
		}
		return t.give(w, g)
	})
	if err != nil {
		return Grant{}, false, err
	}
	g, err = l.GrantByID(ctx, id)
	return g, replayed, err
}

// assetOf is the asset that was said, or where none was, that of the wallet that was.
func (l *Ledger) assetOf(ctx context.Context, asset, wallet string) (string, error) {
	if asset != "" || wallet == "" {
		return asset, nil
	}
	w, err := l.Wallet(ctx, wallet)
	return w.Asset, err
}

// assetFor finds the customer and the asset, and refuses an asset priced in another currency than the one
// that the customer's balance in Stripe is kept in.
func (l *Ledger) assetFor(ctx context.Context, customer, asset string) (Customer, Asset, error) {
	if asset == "" {
		asset = l.defaultAsset
	}
	a, err := l.Asset(ctx, asset)
	if err != nil {
		return Customer{}, Asset{}, err
	}
	c, err := l.Customer(ctx, customer)
	if err != nil {
		return Customer{}, Asset{}, err
	}
	if a.Currency != "" && c.Currency != "" && a.Currency != c.Currency {
		return Customer{}, Asset{}, refuse(CodeCurrency, "asset", "%s is priced in %s and Stripe keeps the balance of customer %s in %s, for good: use an asset that is priced in it, or another customer",
			a.Code, a.Currency, c.ID, c.Currency)
	}
	return c, a, nil
}

// The scopes of the wallets that new credit goes to, the first that there is. Credit that pays usage alone would be
// stuck in a wallet for invoices, and what Stripe gives or takes is never of one that Stripe does not see.
var (
	scopesForUsage  = textArray{"all", "usage"}
	scopesForCredit = textArray{"all", "usage", "invoices"}
	scopesAtStripe  = textArray{"all", "invoices"}
)

func scopesFor(covers string) textArray {
	if covers == "usage" {
		return scopesForUsage
	}
	return scopesForCredit
}

// walletFor locks the customer's wallet for new credit of an asset: the first by scope that there is. Where there
// is none, one of scope all is made.
func (t *tx) walletFor(ref Ref, asset Asset, scopes textArray) (*Wallet, error) {
	if err := t.mirrorAsset(ref, asset); err != nil {
		return nil, err
	}
	const find = `select id from wallets where bucket = $1 and customer_id = $2 and asset = $3 and status <> 'closed' and scope = any($4)
		order by array_position($4::text[], scope) limit 1`
	var id string
	found, err := t.get(&id, find, ref.Bucket, ref.ID, asset.Code, scopes)
	if err != nil {
		return nil, err
	}
	if !found {
		// Two grants may come at once; the second waits for the first's wallet and takes it.
		if _, err := t.insertWallet(ref, asset, "all", 0); err != nil {
			return nil, err
		}
		if _, err := t.get(&id, find, ref.Bucket, ref.ID, asset.Code, scopes); err != nil {
			return nil, err
		}
	}
	return t.lockWallet(ref.Bucket, id)
}

// creditWallet locks the wallet that new credit was said to go to, or, with "", the one that the rule says.
func (t *tx) creditWallet(id string, ref Ref, asset Asset, scopes textArray) (*Wallet, error) {
	if id == "" {
		return t.walletFor(ref, asset, scopes)
	}
	if bucket, ok := bucketOfID("wal_", id); !ok || bucket != ref.Bucket {
		return nil, noWallet(id)
	}
	if err := t.mirrorAsset(ref, asset); err != nil {
		return nil, err
	}
	w, err := t.lockWallet(ref.Bucket, id)
	switch {
	case err != nil:
		return nil, err
	case w.Customer != ref.ID:
		return nil, noWallet(id)
	case w.Asset != asset.Code:
		return nil, refuse(CodeInvalid, "wallet", "wallet %s counts %s, not %s", id, w.Asset, asset.Code)
	case w.Status == "closed":
		return nil, refuse(CodeState, "wallet", "wallet %s is closed", id)
	case !slices.Contains(scopes, w.Scope):
		return nil, refuse(CodeInvalid, "wallet", "wallet %s pays invoices alone, and this credit pays usage alone", id)
	}
	return w, nil
}

// give writes a new confirmed grant on a locked wallet and, unless it begins later, brings it in force.
func (t *tx) give(w *Wallet, g Grant) error {
	if begun, err := t.bring(w, g); err != nil || !begun {
		return err
	}
	return t.filled(w)
}

// bring is give without a look at the wallet's rule, which its caller owes where the grant has begun.
func (t *tx) bring(w *Wallet, g Grant) (begun bool, err error) {
	if w.Scope == "usage" {
		g.Covers = "usage" // never more than its wallet
	}
	if err := t.fits(w, g.Amount); err != nil {
		return false, err
	}
	if err := t.insertGrant(g); err != nil {
		return false, err
	}
	if g.EffectiveAt.After(t.now) {
		return false, t.turnsAt(w, g.EffectiveAt)
	}
	p := newPosting(t.now)
	p.begin(t.l, w, &g, "grant")
	if err := t.write(p); err != nil {
		return false, err
	}
	t.emitGrant(EventGrantConfirmed, w, g)
	if g.ExpiresAt != nil {
		return true, t.turnsAt(w, *g.ExpiresAt)
	}
	return true, nil
}

// fits refuses credit that the wallet's balance could not hold together with all that is still to come:
// nobody could refuse it any more when it does.
func (t *tx) fits(w *Wallet, amount int64) error {
	var ahead bool // of grants that begin later
	if w.TurnsAt != nil {
		if _, err := t.get(&ahead, `select coalesce(sum(amount), 0) + $3::numeric + $4 + $5 > 9223372036854775807 from grants
			where bucket = $1 and wallet_id = $2 and status = 'confirmed' and not in_force`, w.Bucket, w.ID, w.Total, w.Pending, amount); err != nil {
			return err
		}
	}
	soon, ok := add(max(w.Total, 0), w.Pending)
	if ok {
		_, ok = add(soon, amount)
	}
	if !ok || ahead {
		return refuse(CodeInvalid, "amount", "amount is too large for the wallet's balance")
	}
	return nil
}

func (t *tx) insertGrant(g Grant) error {
	if g.Metadata == "" {
		g.Metadata = "{}"
	}
	return t.exec(`insert into grants (bucket, id, wallet_id, amount, remaining, kind, kind_rank, priority, covers, status, live, in_force,
			effective_at, expires_at, reason, cost_amount, cost_currency, source_type, source_id, metadata, created_at)
		values ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, false, false, $10, $11, $12, $13, $14, $15, $16, $17, $18)`,
		g.Bucket, g.ID, g.Wallet, g.Amount, g.Kind, slices.Index(grantKinds, g.Kind), g.Priority, g.Covers, g.Status,
		g.EffectiveAt, g.ExpiresAt, g.Reason, g.CostAmount, g.CostCurrency, g.SourceType, g.SourceID, g.Metadata, t.now)
}

// begin books a grant in force: its credit joins the wallet's total, less what pays down debt. Debt that
// Stripe shows is an invoice's, so only credit that may pay invoices pays it down.
func (p *posting) begin(l *Ledger, w *Wallet, g *Grant, entryType string) *Entry {
	left := g.Amount
	var parts Parts
	if g.Covers == "all" {
		if pay := min(left, w.StripeDebt); pay > 0 {
			parts, left = append(parts, Part{stripeDebtPart, pay}), left-pay
		}
	}
	if pay := min(left, w.Debt-w.StripeDebt); pay > 0 {
		parts, left = append(parts, Part{debtPart, pay}), left-pay
	}
	if left > 0 {
		parts = append(Parts{{g.ID, left}}, parts...)
	}
	g.Remaining, g.InForce = left, true
	if left == 0 {
		g.Status = "exhausted"
	}
	p.set(g.state())
	return p.enter(w, Entry{ID: l.ids.newID("ent_", w.Bucket, p.now), Type: entryType, Amount: g.Amount,
		Parts: parts, Reason: g.Reason, RefersTo: g.refersTo()})
}

// refersTo is what the entry of a grant is about: what paid for it, where something did.
func (g *Grant) refersTo() string {
	if g.SourceType == "api" {
		return g.ID
	}
	return g.PaidBy()
}

func (g *Grant) state() grantState {
	return grantState{bucket: g.Bucket, id: g.ID, remaining: g.Remaining, held: g.Held, status: g.Status, inForce: g.InForce}
}

// VoidGrant takes back what is left of a grant. What was spent stays spent, what is held stays held.
func (l *Ledger) VoidGrant(ctx context.Context, id, reason string, once Once) (g Grant, replayed bool, err error) {
	bucket, ok := bucketOfID("grt_", id)
	if !ok {
		return Grant{}, false, noGrant(id)
	}
	once.Bucket = bucket
	if g, err = l.GrantByID(ctx, id); err != nil {
		return Grant{}, false, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		if _, replayed, err = t.claim(once, id); err != nil || replayed {
			return err
		}
		w, err := t.lockWallet(g.Bucket, g.Wallet)
		if err != nil {
			return err
		}
		if _, err := t.get(&g, `select `+grantColumns+grantsFrom+`where g.bucket = $1 and g.id = $2`, bucket, id); err != nil {
			return err
		}
		return t.void(w, &g, reason)
	})
	if err != nil {
		return Grant{}, false, err
	}
	g, err = l.GrantByID(ctx, id)
	return g, replayed, err
}

func (t *tx) void(w *Wallet, g *Grant, reason string) error {
	if g.Status == "pending" {
		return refuse(CodeState, "id", "grant %s waits for the payment of %s: cancel that", g.ID, g.SourceID)
	}
	var unpaid bool // what is void now would be taken once more
	if _, err := t.get(&unpaid, `select exists (select from topups where bucket = $1 and id = $2 and immediate
		and status in ('pending', 'processing', 'action_required'))`, g.Bucket, g.SourceID); err != nil {
		return err
	}
	if unpaid {
		return refuse(CodeState, "id", "grant %s was given before the payment of %s, which is under way: cancel that", g.ID, g.SourceID)
	}
	if g.Status != "confirmed" {
		return refuse(CodeState, "id", "grant %s is %s: there is nothing to void", g.ID, g.Status)
	}
	free := g.Remaining - g.Held
	g.Remaining, g.Status = g.Held, "voided"
	p := newPosting(t.now)
	p.set(g.state())
	if g.InForce {
		p.enter(w, Entry{ID: t.l.ids.newID("ent_", w.Bucket, t.now), Type: "void", Amount: -free,
			Parts: Parts{{g.ID, -free}}, Reason: reason, RefersTo: g.ID})
	}
	if err := t.write(p); err != nil {
		return err
	}
	return t.rearm(w)
}

func noGrant(id string) error { return refuse(CodeNotFound, "grant", "No such grant: '%s'", id) }

// GrantByID finds a grant.
func (l *Ledger) GrantByID(ctx context.Context, id string) (Grant, error) {
	bucket, ok := bucketOfID("grt_", id)
	if !ok {
		return Grant{}, noGrant(id)
	}
	var g Grant
	found, err := l.getRow(ctx, &g, `select `+grantColumns+grantsFrom+`where g.bucket = $1 and g.id = $2`, bucket, id)
	if err == nil && !found {
		err = noGrant(id)
	}
	return g, err
}

// Grants lists a customer's grants, or with the zero Ref everybody's, newest first, of one status or of all.
func (l *Ledger) Grants(ctx context.Context, ref Ref, status, after string, limit int) ([]Grant, error) {
	if _, ok := bucketOfID("grt_", after); after != "" && !ok {
		return nil, noneAfter(after)
	}
	var grants []Grant
	whose, args := ``, []any{status, after, limit}
	if ref.ID != "" {
		whose, args = `w.bucket = $4 and w.customer_id = $5 and `, append(args, ref.Bucket, ref.ID)
	}
	err := l.db.SelectContext(ctx, &grants, `select `+grantColumns+grantsFrom+`
		where `+whose+`($1 = '' or g.status = $1) and ($2 = '' or g.id < $2) order by g.id desc limit $3`, args...)
	return grants, err
}
