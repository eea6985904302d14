package ledger

import (
	"context"
	"database/sql/driver"

	"github.com/lib/pq"
)

// errDiscard tells database/sql to close a connection instead of keeping it.
var errDiscard = driver.ErrBadConn

// replaysSQL finds the debits that keys were used for; a key that another kind of call used is found with type
// answer.
const replaysSQL = `
select e.key, e.request, e.type, e.id, e.amount, e.balance_after, e.held_after, e.pending_after, e.parts, e.reason,
	coalesce(e.metadata, '') as metadata, coalesce(e.rated, '') as rated, e.created_at, w.id as wallet_id, w.customer_id, w.scale
from unnest($1::smallint[], $2::text[]) u(bucket, key)
join entries e on e.bucket = u.bucket and e.key = u.key
join wallets w on w.bucket = e.bucket and w.id = e.wallet_id
union all
select a.key, a.request, 'answer', '', 0, 0, 0, 0, '', '', '', '', a.created_at, '', '', 0
from unnest($1::smallint[], $2::text[]) u(bucket, key)
join answers a on a.bucket = u.bucket and a.key = u.key`

// laneColumns are what a batch has to know of a wallet, in the order of scanned.
const laneColumns = `w.bucket, w.id, w.customer_id, w.asset, w.scale, w.scope, w.status, w.total, w.held, w.pending, w.debt, w.stripe_debt,
	w.overdraft_limit, w.seq, w.version, w.entered_at, w.turns_at, w.refill_below, w.used, w.seal, w.barred, w.full_amount,
	w.alert_state, w.quiet_from, w.quiet_below, w.created_at`

// lockSQL reads the wallets of customers and locks them, in the one order that everybody locks in.
const lockSQL = `
select ` + laneColumns + `
from unnest($1::smallint[], $2::text[]) u(bucket, customer_id)
join wallets w on w.bucket = u.bucket and w.customer_id = u.customer_id
order by w.bucket, w.id
for update of w`

// learnSQL reads the wallets of customers without a lock, with the first grants of each in burn order: a row for each
// grant, and one for a wallet that has none.
const learnSQL = `
select ` + laneColumns + `,
	coalesce(g.id, ''), coalesce(g.remaining, 0), coalesce(g.held, 0), coalesce(g.covers = 'all', false)
from unnest($1::smallint[], $2::text[]) u(bucket, customer_id)
join wallets w on w.bucket = u.bucket and w.customer_id = u.customer_id
left join lateral (
	select g.id, g.remaining, g.held, g.covers, g.priority, g.expires_at, g.kind_rank from grants g
	where g.bucket = w.bucket and g.wallet_id = w.id and g.live
	order by g.priority, g.expires_at, g.kind_rank, g.id
	limit $3) g on true
order by w.bucket, w.id, g.priority, g.expires_at, g.kind_rank, g.id`

// liveGrantsSQL loads the first grants of wallets in burn order: no more than may be needed, however many
// a wallet has.
const liveGrantsSQL = `
select g.wallet_id, g.id, g.remaining, g.held, g.covers = 'all' as mirrored
from unnest($1::smallint[], $2::text[]) u(bucket, id)
cross join lateral (
	select g.wallet_id, g.id, g.remaining, g.held, g.covers from grants g
	where g.bucket = u.bucket and g.wallet_id = u.id and g.live
	order by g.priority, g.expires_at, g.kind_rank, g.id
	limit $3) g`

// debitBatch books a batch in one transaction.
type debitBatch struct {
	t       *tx
	conn    *laneConn
	keyed   map[string]*debitCall // booked in this batch, by key
	wallets map[Ref][]*Wallet
	grants  map[*Wallet]*purse
	unsure  map[*Wallet]bool // changed by more than debits
}

func newBatch(l *Ledger) *debitBatch {
	return &debitBatch{t: &tx{l: l, ctx: context.Background()}, keyed: make(map[string]*debitCall), wallets: make(map[Ref][]*Wallet),
		grants: make(map[*Wallet]*purse), unsure: make(map[*Wallet]bool)}
}

// purse is what has been loaded of a wallet's live grants, in burn order.
type purse struct {
	tranches []tranche
	held     map[string]int64 // of those that have any
	free     int64
	whole    bool // there are no more
	demand   int64
	changed  bool // something was taken
	mirrored bool // of what was taken, some is shown in Stripe
}

// book decides every call and writes what they book.
func (b *debitBatch) book(batch []*debitCall) error {
	open, err := b.replay(batch)
	if err != nil || len(open) == 0 {
		return err
	}
	if err := b.lock(open); err != nil {
		return err
	}
	b.t.now = b.t.l.Now() // after the locks: a wallet's entries are in the order of their times
	for _, wallets := range b.wallets {
		for _, w := range wallets {
			if !w.due(b.t.now) {
				continue
			}
			b.unsure[w] = true
			if err := b.t.turn(w); err != nil {
				return err
			}
		}
	}
	open = b.place(open)
	if err := b.load(open); err != nil {
		return err
	}
	p := newPosting(b.t.now)
	p.entries = make([]Entry, 0, len(open))
	for _, c := range open {
		b.decide(p, c)
	}
	if len(p.entries) == 0 {
		return nil
	}
	for w, purse := range b.grants {
		purse.post(p, w)
	}
	if _, err := b.t.post(p.args(b.conn.types)...); err != nil {
		return err
	}
	b.moved()
	for _, w := range p.wallets {
		if w.calls(w.Available()) {
			b.unsure[w] = true
			if err := b.t.rearm(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// moved marks the customers whose balance in Stripe has to follow: most usage is paid by credit that Stripe
// never sees.
func (b *debitBatch) moved() {
	for w, pu := range b.grants {
		if pu.mirrored {
			b.t.dirty = append(b.t.dirty, w.ref())
		}
	}
}

// replay answers the calls whose keys have been used and returns the others.
func (b *debitBatch) replay(batch []*debitCall) ([]*debitCall, error) {
	buckets, keys := make(pq.Int64Array, 0, len(batch)), make(textArray, 0, len(batch))
	for _, c := range batch {
		if c.in.Once.Key != "" {
			buckets, keys = append(buckets, int64(c.ref.Bucket)), append(keys, c.in.Once.Key)
		}
	}
	if len(keys) == 0 {
		return batch, nil
	}
	rows, err := b.conn.replays.QueryContext(b.t.ctx, buckets, keys)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	type use struct {
		entry  Entry
		wallet Wallet
	}
	used := make(map[string]use)
	for rows.Next() {
		var u use
		e, w := &u.entry, &u.wallet
		var request *int64
		if err := rows.Scan(&e.Key, &request, &e.Type, &e.ID, &e.Amount, &e.BalanceAfter, &e.HeldAfter, &e.PendingAfter, &e.Parts,
			&e.Reason, &e.Metadata, &e.Rated, &e.CreatedAt, &w.ID, &w.Customer, &w.Scale); err != nil {
			return nil, err
		}
		e.Request = deref(request)
		used[e.Key] = u
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(used) == 0 {
		return batch, nil
	}
	open := make([]*debitCall, 0, len(batch))
	for _, c := range batch {
		u, ok := used[c.in.Once.Key]
		switch {
		case !ok || c.in.Once.Key == "":
			open = append(open, c)
		case u.entry.Request != c.in.Once.Request || u.entry.Type != "debit":
			c.result.Err = keyReused()
		default:
			c.result = DebitResult{Debit: debitOf(&u.entry, &u.wallet), Replayed: true}
		}
	}
	return open, nil
}

// lock reads the callers' wallets under their row locks.
func (b *debitBatch) lock(calls []*debitCall) error {
	buckets, ids := b.customers(calls)
	rows, err := b.conn.lock.QueryContext(b.t.ctx, buckets, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		w := new(Wallet)
		if err := rows.Scan(w.scanned()...); err != nil {
			return err
		}
		b.wallets[w.ref()] = append(b.wallets[w.ref()], w)
	}
	return rows.Err()
}

// customers are those of the calls, each once.
func (b *debitBatch) customers(calls []*debitCall) (buckets pq.Int64Array, ids textArray) {
	buckets, ids = make(pq.Int64Array, 0, len(calls)), make(textArray, 0, len(calls))
	for _, c := range calls {
		if _, ok := b.wallets[c.ref]; !ok {
			b.wallets[c.ref] = nil
			buckets, ids = append(buckets, int64(c.ref.Bucket)), append(ids, c.ref.ID)
		}
	}
	return buckets, ids
}

// scanned are where the columns of a wallet go.
func (w *Wallet) scanned() []any {
	return []any{&w.Bucket, &w.ID, &w.Customer, &w.Asset, &w.Scale, &w.Scope, &w.Status, &w.Total, &w.Held, &w.Pending,
		&w.Debt, &w.StripeDebt, &w.OverdraftLimit, &w.Seq, &w.Version, &w.EnteredAt, &w.TurnsAt, &w.RefillBelow, &w.Used, &w.Seal,
		&w.Barred, &w.FullAmount, &w.AlertState, &w.QuietFrom, &w.QuietBelow, &w.CreatedAt}
}

// learn reads the callers' wallets without a lock, and the first grants of each.
func (b *debitBatch) learn(calls []*debitCall) error {
	buckets, ids := b.customers(calls)
	rows, err := b.conn.learn.QueryContext(b.t.ctx, buckets, ids, firstGrants)
	if err != nil {
		return err
	}
	defer rows.Close()
	var last *Wallet
	for rows.Next() {
		w := new(Wallet)
		var grant string
		var remaining, held int64
		var mirrored bool
		if err := rows.Scan(append(w.scanned(), &grant, &remaining, &held, &mirrored)...); err != nil {
			return err
		}
		if last == nil || w.ID != last.ID {
			last = w
			b.wallets[w.ref()] = append(b.wallets[w.ref()], w)
			b.grants[w] = &purse{whole: true}
		}
		if grant != "" {
			pu := b.grants[last]
			pu.add(grant, remaining, held, mirrored)
			pu.whole = len(pu.tranches) < firstGrants
		}
	}
	return rows.Err()
}

// place finds the wallets that may pay each call, and its amount in steps; a call that has none is refused and left out.
func (b *debitBatch) place(calls []*debitCall) []*debitCall {
	placed := calls[:0:0]
	for _, c := range calls {
		wallets := b.wallets[c.ref]
		if len(wallets) == 0 {
			c.result.Err = noCustomer(c.in.Customer)
			continue
		}
		fit, err := usageWallets(wallets, c.ref.ID, c.in.Asset)
		if err == nil {
			c.amount, err = stepsOf(c.in.Amount, fit[0].Scale, "amount", fit[0].Asset)
		}
		if err != nil {
			c.result.Err = err
			continue
		}
		c.wallets = fit
		for _, w := range fit {
			pu := b.grants[w]
			if pu == nil {
				pu = &purse{}
				b.grants[w] = pu
			}
			if sum, ok := add(pu.demand, c.amount); ok {
				pu.demand = sum
			}
		}
		placed = append(placed, c)
	}
	return placed
}

// firstGrants is how many of a wallet's grants are read at first: most debits are paid by one.
const firstGrants = 4

// load reads the wallets' grants in burn order, first a few of each, then more where the calls ask for
// more than those hold.
func (b *debitBatch) load(calls []*debitCall) error {
	todo := make([]*Wallet, 0, len(b.grants))
	for w := range b.grants {
		todo = append(todo, w)
	}
	for limit := firstGrants; len(todo) > 0; limit *= 8 {
		if err := b.loadSome(todo, limit); err != nil {
			return err
		}
		more := todo[:0]
		for _, w := range todo {
			if pu := b.grants[w]; !pu.whole && pu.free < pu.demand {
				more = append(more, w)
			}
		}
		todo = more
	}
	return nil
}

func (b *debitBatch) loadSome(wallets []*Wallet, limit int) error {
	buckets, ids := make(pq.Int64Array, len(wallets)), make(textArray, len(wallets))
	byID := make(map[string]*purse, len(wallets))
	for i, w := range wallets {
		buckets[i], ids[i] = int64(w.Bucket), w.ID
		pu := b.grants[w]
		*pu = purse{demand: pu.demand}
		byID[w.ID] = pu
	}
	rows, err := b.conn.grants.QueryContext(b.t.ctx, buckets, ids, limit)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var wallet, id string
		var remaining, held int64
		var mirrored bool
		if err := rows.Scan(&wallet, &id, &remaining, &held, &mirrored); err != nil {
			return err
		}
		byID[wallet].add(id, remaining, held, mirrored)
	}
	for _, pu := range byID {
		pu.whole = len(pu.tranches) < limit
	}
	return rows.Err()
}

// add puts the next grant in burn order into the purse.
func (pu *purse) add(id string, remaining, held int64, mirrored bool) {
	free := remaining - held
	pu.tranches = append(pu.tranches, tranche{id: id, free: free, was: free, mirrored: mirrored})
	pu.free += free
	if held > 0 {
		if pu.held == nil {
			pu.held = make(map[string]int64)
		}
		pu.held[id] = held
	}
}

// decide books one call on its wallet, or refuses it.
func (b *debitBatch) decide(p *posting, c *debitCall) {
	once := c.in.Once
	if first := b.keyed[once.Key]; first != nil && first.ref.Bucket == c.ref.Bucket {
		if first.in.Once.Request != once.Request {
			c.result.Err = keyReused()
		} else {
			c.result = DebitResult{Debit: first.result.Debit, Replayed: true}
		}
		return
	}
	w, err := payer(c.wallets, c.amount)
	if err != nil {
		c.result.Err = err
		return
	}
	parts, short := burn(b.grants[w].tranches, c.amount)
	if short > 0 {
		parts = append(parts, Part{Grant: debtPart, Amount: -short})
	}
	reason := c.in.Reason
	if reason == "" {
		reason = "usage"
	}
	rated := ""
	if c.in.Rated != nil {
		rated = c.in.Rated.note()
	}
	e := p.enter(w, Entry{Type: "debit", Amount: -c.amount, Parts: parts,
		Reason: reason, Key: once.Key, Request: once.Request, Metadata: c.in.Metadata, Rated: rated})
	c.result.Debit = debitOf(e, w)
	if once.Key != "" {
		b.keyed[once.Key] = c
	}
}

// post remembers the state in which the batch leaves the wallet's grants.
func (pu *purse) post(p *posting, w *Wallet) {
	for _, tr := range pu.tranches {
		if tr.free == tr.was {
			continue
		}
		pu.changed, pu.mirrored = true, pu.mirrored || tr.mirrored
		held := pu.held[tr.id]
		g := grantState{bucket: w.Bucket, id: tr.id, remaining: tr.free + held, held: held, status: "confirmed", inForce: true}
		if g.remaining == 0 {
			g.status = "exhausted"
		}
		p.set(g)
	}
}
