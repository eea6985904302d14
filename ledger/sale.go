package ledger

import (
	"context"
	"slices"
	"strings"
	"time"
)

// rolloverSuffix ends the source of what a renewal carried over: credit that had expired and is back.
const rolloverSuffix = "/rollover"

// PaidBy is what paid for the grant, as the outside knows it: of a sold one the invoice or session without the line.
func (g *Grant) PaidBy() string {
	if g.SourceType != "stripe_invoice" && g.SourceType != "stripe_checkout" {
		return g.SourceID
	}
	sale, _, _ := strings.Cut(g.SourceID, "/")
	return sale
}

// SaleOwner is whose a sale is; owned is false when nobody has said. The first of the ids that is known decides.
func (l *Ledger) SaleOwner(ctx context.Context, ids ...string) (owner Ref, owned bool, err error) {
	owned, err = l.getRow(ctx, &owner, `select bucket, customer_id as id from sale_owners
		where id = any($1) and id <> '' order by array_position($1, id) limit 1`, textArray(ids))
	return owner, owned, err
}

// ClaimSale says that an invoice, a session or a subscription is a customer's, and answers whose it is: the one that
// was said first.
func (l *Ledger) ClaimSale(ctx context.Context, id string, ref Ref) (owner Ref, err error) {
	_, err = l.db.ExecContext(ctx, `insert into sale_owners (id, bucket, customer_id) values ($1, $2, $3) on conflict do nothing`, id, ref.Bucket, ref.ID)
	if err != nil {
		return Ref{}, err
	}
	owner, _, err = l.SaleOwner(ctx, id)
	return owner, err
}

// SaleApplied reports whether a sale was booked.
func (l *Ledger) SaleApplied(ctx context.Context, ref Ref, id string) (applied bool, err error) {
	_, err = l.getRow(ctx, &applied, `select exists (select from sales where bucket = $1 and id = $2)`, ref.Bucket, id)
	return applied, err
}

// SalePayment is the payment of the sale that a grant came by; "" when there was none.
func (l *Ledger) SalePayment(ctx context.Context, g *Grant) (paymentIntent string, err error) {
	_, err = l.getRow(ctx, &paymentIntent, `select coalesce(payment_intent, '') from sales where bucket = $1 and id = $2`, g.Bucket, g.PaidBy())
	return paymentIntent, err
}

// selling is a sale being booked.
type selling struct {
	*tx
	sale     Sale
	customer Customer
	wallets  map[string]*Wallet // by asset
	given    map[*Wallet]bool
	did      []string // a word on each line, for the log
}

// ApplySale books a sale, all of it or nothing. Called again it does nothing that was done before. It answers in words
// what each line did. A customer who was deleted in Stripe is refused with CodeState.
func (l *Ledger) ApplySale(ctx context.Context, s Sale) (did []string, err error) {
	err = l.inTx(ctx, func(t *tx) error {
		b := selling{tx: t, sale: s, wallets: make(map[string]*Wallet), given: make(map[*Wallet]bool)}
		if err := b.book(); err != nil {
			return err
		}
		did = b.did
		return nil
	})
	return did, err
}

func (b *selling) book() error {
	var row customerRow
	found, err := b.get(&row, `select `+customerColumns+` from customers where bucket = $1 and id = $2`, b.sale.Customer.Bucket, b.sale.Customer.ID)
	if err != nil {
		return err
	}
	if !found {
		return noCustomer(b.sale.Customer.ID)
	}
	if b.customer = row.customer(); b.customer.Status == "deleted" {
		return refuse(CodeState, "customer", "customer %s was deleted in Stripe: its books are closed", b.customer.ID)
	}
	b.sale.PaidAt = b.sale.PaidAt.UTC().Truncate(time.Microsecond)
	if b.sale.PaidAt.IsZero() || b.sale.PaidAt.After(b.now) { // Stripe's clock is not ours
		b.sale.PaidAt = b.now
	}
	// What takes back comes first: it must not take what this very sale gives.
	lines := slices.Clone(b.sale.Lines)
	slices.SortStableFunc(lines, func(x, y SaleLine) int {
		switch {
		case x.Amount < 0 && y.Amount >= 0:
			return -1
		case y.Amount < 0 && x.Amount >= 0:
			return 1
		}
		return 0
	})
	for i := range lines {
		if err := b.line(&lines[i]); err != nil {
			return err
		}
	}
	for w, given := range b.given {
		if err := b.settled(w, given); err != nil {
			return err
		}
	}
	return b.exec(`insert into sales (bucket, id, customer_id, payment_intent, paid_at, applied_at) values ($1, $2, $3, nullif($4, ''), $5, $6)
		on conflict do nothing`, b.customer.Bucket, b.sale.ID, b.customer.ID, b.sale.PaymentIntent, b.sale.PaidAt, b.now)
}

// settled ends with a wallet once all lines have been booked: only now is its rule looked at, so that what was taken
// back before more was given charges nobody's card. What is heard of after its end expires at once.
func (b *selling) settled(w *Wallet, given bool) error {
	if w.due(b.now) {
		if err := b.turn(w); err != nil {
			return err
		}
	}
	if given {
		return b.filled(w)
	}
	return b.rearm(w)
}

// line books one line, unless it has been.
func (b *selling) line(ln *SaleLine) error {
	terms, sells, err := ln.terms(b.l.defaultAsset)
	if err != nil || !sells {
		return err
	}
	asset, err := b.assetOf(ln, terms)
	if err != nil {
		return err
	}
	steps, why, err := ln.worth(terms, asset.Scale)
	if err != nil {
		return err
	}
	most, err := ln.most(terms, asset.Scale)
	if err != nil {
		return err
	}
	if steps == 0 {
		b.did = append(b.did, ln.ID+" gives nothing: "+why)
		return nil
	}
	w, err := b.wallet(ln, asset)
	if err != nil {
		return err
	}
	id := b.sale.ID + "/" + ln.ID
	var done bool
	if _, err := b.get(&done, `select exists (select from sold_lines where bucket = $1 and id = $2)`, w.Bucket, id); err != nil || done {
		return err
	}
	if steps < 0 {
		return b.takeBack(w, ln, id, -steps)
	}
	if !ln.Proration {
		if err := b.expireEnded(w, ln); err != nil {
			return err
		}
	}
	g := Grant{Wallet: w.ID, Amount: steps, Kind: terms.kind, Priority: terms.priority, Covers: defaultCovers(terms.kind),
		ExpiresAt: ln.ends(terms, b.sale.PaidAt), Reason: saleReason(ln), SourceID: id, Metadata: ln.note()}
	if ln.Net >= 0 && IsCurrency(ln.Currency) {
		g.CostAmount, g.CostCurrency = &ln.Net, &ln.Currency
	}
	if err := b.give(w, ln, g, most); err != nil || ln.Proration {
		return err
	}
	return b.rollOver(w, ln, g, most)
}

func saleReason(ln *SaleLine) string {
	switch {
	case ln.Proration:
		return "proration"
	case ln.SubscriptionItem != "":
		return "subscription"
	}
	return "purchase"
}

// assetOf is the asset of a line, refused where the customer can't have it.
func (b *selling) assetOf(ln *SaleLine, t saleTerms) (Asset, error) {
	asset, err := b.asset(t.asset)
	if IsCode(err, CodeAssetUnknown) {
		return Asset{}, refuse(CodeAssetUnknown, "credits_asset", "price %s: credits_asset is %q, which is no asset; make it with PUT /v1/assets/%s, or put the metadata right in Stripe, and replay the event",
			ln.Price, t.asset, t.asset)
	}
	if err == nil && asset.Currency != "" && b.customer.Currency != "" && asset.Currency != b.customer.Currency {
		return Asset{}, refuse(CodeCurrency, "credits_asset", "price %s: credits_asset %s is priced in %s and Stripe keeps the balance of customer %s in %s; one customer has one currency: sell an asset in it, and replay the event",
			ln.Price, asset.Code, asset.Currency, b.customer.ID, b.customer.Currency)
	}
	return asset, err
}

// wallet locks the customer's wallet of an asset, once for all lines.
func (b *selling) wallet(ln *SaleLine, asset Asset) (*Wallet, error) {
	if w := b.wallets[asset.Code]; w != nil {
		return w, nil
	}
	w, err := b.walletFor(b.customer.Ref, asset, scopesForUsage)
	if IsCode(err, CodeNotFound) {
		return nil, refuse(CodeState, "credits_asset", "price %s: the wallet of %s of customer %s is closed; make one of another scope with POST /v1/customers/%s/wallets and replay the event",
			ln.Price, asset.Code, b.customer.ID, b.customer.ID)
	}
	if err != nil {
		return nil, err
	}
	if b.customer.Currency == "" {
		b.customer.Currency = asset.Currency // as walletFor has settled it
	}
	b.wallets[asset.Code], b.given[w] = w, false
	return w, nil
}

// give books a grant of a line and the line's row.
func (b *selling) give(w *Wallet, ln *SaleLine, g Grant, most *int64) error {
	g.Bucket, g.ID, g.Status, g.EffectiveAt = w.Bucket, b.l.ids.newID("grt_", w.Bucket, b.now), "confirmed", b.sale.PaidAt
	g.SourceType = b.sale.source()
	_, err := b.bring(w, g)
	if IsCode(err, CodeInvalid) {
		return refuse(CodeInvalid, "credits", "price %s: %s is too large for the balance of wallet %s", ln.Price, FormatSteps(g.Amount, w.Scale), w.ID)
	}
	if err != nil {
		return err
	}
	b.given[w] = true
	b.did = append(b.did, g.SourceID+" gives "+FormatSteps(g.Amount, w.Scale)+" "+w.Asset)
	return b.wrote(w, ln, g.SourceID, g.Amount, g.ID, most)
}

// wrote notes a line as booked.
func (b *selling) wrote(w *Wallet, ln *SaleLine, id string, steps int64, grant string, most *int64) error {
	var start, end *time.Time
	if ln.End.After(ln.Start) {
		start, end = &ln.Start, &ln.End
	}
	return b.exec(`insert into sold_lines (bucket, id, wallet_id, steps, grant_id, subscription_item, period_start, period_end, rollover)
		values ($1, $2, $3, $4, nullif($5, ''), nullif($6, ''), $7, $8, $9)`,
		w.Bucket, id, w.ID, steps, grant, ln.SubscriptionItem, start, end, most)
}

// expiredSQL is what expired of grant g.
const expiredSQL = `(select coalesce(-sum(e.amount), 0)::bigint from all_entries e where e.bucket = g.bucket and e.refers_to = g.id and e.type = 'expire')`

// takeBack takes what was paid back from what is left of the same subscription item and period, the newest first. A
// change that is heard of only after the period takes it from what the renewal would carry over.
func (b *selling) takeBack(w *Wallet, ln *SaleLine, id string, steps int64) error {
	var grants []struct {
		Grant
		Line    string `db:"line"`
		Expired int64  `db:"expired"`
	}
	if err := b.SelectContext(b.ctx, &grants, `select `+grantColumns+`, s.id as line,
			case when s.rolled_to is null and s.rollover is not null then `+expiredSQL+` - s.withheld else 0 end as expired
		`+grantsFrom+`join sold_lines s on s.bucket = g.bucket and s.grant_id = g.id
		where s.bucket = $1 and s.subscription_item = $2 and s.period_end = $3 and g.wallet_id = $4
		order by g.id desc`, w.Bucket, ln.SubscriptionItem, ln.End, w.ID); err != nil {
		return err
	}
	if len(grants) > 0 {
		if err := b.attached("", &ln.End, nil); err != nil { // what expired then is to be seen
			return err
		}
	}
	p, left := newPosting(b.now), steps
	for i := range grants {
		g := &grants[i].Grant
		if withhold := min(left, grants[i].Expired); withhold > 0 {
			left -= withhold
			if err := b.exec(`update sold_lines set withheld = withheld + $3 where bucket = $1 and id = $2`, w.Bucket, grants[i].Line, withhold); err != nil {
				return err
			}
		}
		if g.Status != "confirmed" {
			continue
		}
		take := min(left, g.Remaining-g.Held)
		if take <= 0 {
			continue
		}
		left -= take
		if g.Remaining -= take; g.Remaining == 0 {
			g.Status = "voided"
		}
		p.set(g.state())
		p.enter(w, Entry{ID: b.l.ids.newID("ent_", w.Bucket, b.now), Type: "void", Amount: -take, Parts: Parts{{g.ID, -take}},
			Reason: "proration of " + b.sale.ID, RefersTo: g.ID})
	}
	if err := b.write(p); err != nil {
		return err
	}
	b.did = append(b.did, id+" takes back "+FormatSteps(steps-left, w.Scale)+" of "+FormatSteps(steps, w.Scale)+" "+w.Asset)
	return b.wrote(w, ln, id, left-steps, "", nil)
}

// endedSQL are the grants of the period before a line's that may be carried over and have not been.
const endedSQL = ` from sold_lines s join grants g on g.bucket = s.bucket and g.id = s.grant_id join wallets w on w.bucket = g.bucket and w.id = g.wallet_id
	where s.bucket = $1 and s.subscription_item = $2 and s.period_end = $3 and g.wallet_id = $4
		and s.rollover is not null and s.rolled_to is null and g.expires_at <= $3`

// expireEnded ends the credit of the period before a renewal's where our clock is not there yet: Stripe's is, and
// what is left is about to be carried over.
func (b *selling) expireEnded(w *Wallet, ln *SaleLine) error {
	if ln.SubscriptionItem == "" {
		return nil
	}
	var live []Grant
	if err := b.SelectContext(b.ctx, &live, `select `+grantColumns+endedSQL+` and g.live order by g.id`, w.Bucket, ln.SubscriptionItem, ln.Start, w.ID); err != nil {
		return err
	}
	p := newPosting(b.now)
	for i := range live {
		p.expire(b.l, w, &live[i])
	}
	return b.write(p)
}

// rollOver carries over what was left of the period before a renewal's, on the terms of the renewal's own grant.
func (b *selling) rollOver(w *Wallet, ln *SaleLine, renewal Grant, most *int64) error {
	if ln.SubscriptionItem == "" {
		return nil
	}
	var before []ended
	if err := b.SelectContext(b.ctx, &before, `select s.id as line, g.id, g.amount, s.rollover, g.cost_amount, g.cost_currency,
			`+expiredSQL+` - s.withheld as left_over
		`+endedSQL+` order by g.id`, w.Bucket, ln.SubscriptionItem, ln.Start, w.ID); err != nil {
		return err
	}
	if len(before) > 0 {
		if err := b.attached("", &ln.Start, nil); err != nil { // what expired then is to be seen
			return err
		}
	}
	steps, cost := carry(before)
	if steps == 0 {
		return nil
	}
	g := renewal
	g.Amount, g.Reason, g.SourceID, g.CostAmount, g.CostCurrency = steps, "rollover", renewal.SourceID+rolloverSuffix, nil, nil
	if cost != nil {
		g.CostAmount, g.CostCurrency = &cost.Amount, &cost.Currency
	}
	if err := b.give(w, ln, g, most); err != nil {
		return err
	}
	lines := make(textArray, len(before))
	for i := range before {
		lines[i] = before[i].Line
	}
	return b.exec(`update sold_lines set rolled_to = $3 where bucket = $1 and id = any($2)`, w.Bucket, lines, g.SourceID)
}
