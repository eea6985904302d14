package ledger

import (
	"context"
	"strings"
	"time"
)

// What operators look for by hand. Every query here reads by an index and a page at a time.

var likeEscape = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// searchStages are the ways in which a customer may be found, one after the other, each by its index: $1 is how it begins,
// ($2, $3) after which of them the page begins, $4 how many. Who is found by one is not found by the next.
var searchStages = []string{
	`id like $1 and $2::text is not null and id > $3 order by id limit $4`,
	`email <> '' and lower(email) collate "C" like lower($1) and (lower(email) collate "C", id) > ($2, $3) and id not like $1
		order by lower(email) collate "C", id limit $4`,
	`name <> '' and lower(name) collate "C" like lower($1) and (lower(name) collate "C", id) > ($2, $3) and id not like $1
		and lower(email) collate "C" not like lower($1) order by lower(name) collate "C", id limit $4`,
}

// SearchCustomers finds customers whose id, or Stripe customer, begins with what is asked for; then those whose e-mail
// address does; then those whose name does: in either case but for the ids, as far as the database's locale knows one's.
// The list goes on after the customer of that id.
func (l *Ledger) SearchCustomers(ctx context.Context, q, after string, limit int) ([]Customer, error) {
	begins := likeEscape.Replace(q) + "%"
	var rows []customerRow
	if strings.HasPrefix(q, "cus_") {
		err := l.db.SelectContext(ctx, &rows, `select c.bucket, c.id, c.stripe_customer, c.email, c.name, c.currency, c.status, c.metadata, c.created_at
			from stripe_links s join customers c on c.bucket = s.bucket and c.id = s.customer_id
			where s.stripe_customer like $1 and s.stripe_customer > coalesce((select o.stripe_customer from customers o where o.bucket = $2 and o.id = $3), '')
			order by s.stripe_customer limit $4`, begins, bucketOf(after), after, limit)
		return customersOf(rows), err
	}
	stage, value := 0, ""
	if after != "" { // in which stage was that one found, and by what
		var at struct {
			Stage int    `db:"stage"`
			Value string `db:"value"`
		}
		found, err := l.getRow(ctx, &at, `select case when id like $3 then 0 when lower(email) collate "C" like lower($3) then 1 else 2 end as stage,
			case when lower(email) collate "C" like lower($3) then lower(email) else lower(name) end as value
			from customers where bucket = $1 and id = $2`, bucketOf(after), after, begins)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, noneAfter(after)
		}
		stage, value = at.Stage, at.Value
	}
	for ; stage < len(searchStages) && len(rows) < limit; stage++ {
		var found []customerRow
		if err := l.db.SelectContext(ctx, &found, `select `+customerColumns+` from customers where `+searchStages[stage], begins, value, after, limit-len(rows)); err != nil {
			return nil, err
		}
		rows, value, after = append(rows, found...), "", ""
	}
	return customersOf(rows), nil
}

func customersOf(rows []customerRow) []Customer {
	customers := make([]Customer, len(rows))
	for i, r := range rows {
		customers[i] = r.customer()
	}
	return customers
}

// entryWindow is how many entries are looked through for those of one type before a page is answered, found or not: of a
// wallet with millions of entries the last of a rare type may be far away.
const entryWindow = 20_000

// EntriesOfType lists a wallet's entries of a type, "" for all, newest first, those with a seq below below. next is where
// to go on, 0 where nothing is left.
func (l *Ledger) EntriesOfType(ctx context.Context, w *Wallet, entryType string, below int64, limit int) (entries []Entry, next int64, err error) {
	if below <= 0 || below > w.Seq+1 {
		below = w.Seq + 1
	}
	window := int64(limit)
	if entryType != "" {
		window = entryWindow
	}
	from := max(1, below-window)
	err = l.db.SelectContext(ctx, &entries, `select `+entryColumns+` from all_entries where bucket = $1 and wallet_id = $2 and seq >= $3 and seq < $4
		and ($5 = '' or type = $5) order by seq desc limit $6`, w.Bucket, w.ID, from, below, entryType, limit)
	if err != nil {
		return nil, 0, err
	}
	next = from
	if len(entries) == limit {
		next = entries[limit-1].Seq
	}
	if next <= 1 {
		next = 0
	}
	return entries, next, nil
}

// BurnOrder lists a wallet's grants that a debit may take from, in the order in which it would.
func (l *Ledger) BurnOrder(ctx context.Context, w *Wallet, limit int) (grants []Grant, err error) {
	err = l.db.SelectContext(ctx, &grants, `select `+grantColumns+grantsFrom+`where g.bucket = $1 and g.wallet_id = $2 and g.live
		order by g.priority, g.expires_at, g.kind_rank, g.id limit $3`, w.Bucket, w.ID, limit)
	return grants, err
}

// OtherGrants lists the newest of a wallet's grants that no debit takes from now.
func (l *Ledger) OtherGrants(ctx context.Context, w *Wallet, limit int) (grants []Grant, err error) {
	err = l.db.SelectContext(ctx, &grants, `select `+grantColumns+grantsFrom+`where g.bucket = $1 and g.wallet_id = $2 and not g.live
		order by g.id desc limit $3`, w.Bucket, w.ID, limit)
	return grants, err
}

// OpenHolds lists a wallet's open holds, those that end soonest first.
func (l *Ledger) OpenHolds(ctx context.Context, w *Wallet, limit int) (holds []Hold, err error) {
	err = l.db.SelectContext(ctx, &holds, `select `+holdColumns+holdsFrom+`where h.bucket = $1 and h.wallet_id = $2 and h.status = 'open'
		order by h.expires_at, h.id limit $3`, w.Bucket, w.ID, limit)
	return holds, err
}

// TopupsOf lists a wallet's top-ups, newest first.
func (l *Ledger) TopupsOf(ctx context.Context, w *Wallet, limit int) (tops []Topup, err error) {
	err = l.db.SelectContext(ctx, &tops, `select `+topupColumns+topupsFrom+`where t.bucket = $1 and t.wallet_id = $2
		order by t.id desc limit $3`, w.Bucket, w.ID, limit)
	return tops, err
}

// BookedTransaction is a balance transaction of Stripe's as it is booked here.
type BookedTransaction struct {
	ID      string    `db:"id"`
	Amount  int64     `db:"amount"` // Stripe's sign
	Type    string    `db:"type"`
	Flush   string    `db:"flush_id"` // that asked for it; "" for a stranger's
	Created time.Time `db:"created_at"`
}

// BookedTransactions lists those of a customer, newest first.
func (l *Ledger) BookedTransactions(ctx context.Context, ref Ref, limit int) (all []BookedTransaction, err error) {
	err = l.db.SelectContext(ctx, &all, `select id, amount, type, coalesce(flush_id, '') as flush_id, created_at from balance_transactions
		where bucket = $1 and customer_id = $2 order by created_at desc, id desc limit $3`, ref.Bucket, ref.ID, limit)
	return all, err
}

// PausedRule is an auto top-up rule that is paused, and whose it is.
type PausedRule struct {
	Bucket   int16     `db:"bucket"`
	Wallet   string    `db:"wallet_id"`
	Customer string    `db:"customer_id"`
	Asset    string    `db:"asset"`
	Reason   string    `db:"pause_reason"`
	Since    time.Time `db:"pause_since"`
}

// PausedRules lists the rules that are paused for a reason, after the one of that wallet.
func (l *Ledger) PausedRules(ctx context.Context, reason, after string, limit int) (rules []PausedRule, err error) {
	bucket := int16(-1)
	if after != "" {
		b, ok := bucketOfID("wal_", after)
		if !ok {
			return nil, noneAfter(after)
		}
		bucket = b
	}
	err = l.db.SelectContext(ctx, &rules, `select r.bucket, r.wallet_id, w.customer_id, w.asset, r.pause_reason, r.pause_since
		from topup_rules r join wallets w on w.bucket = r.bucket and w.id = r.wallet_id
		where r.enabled and r.pause_reason = $1 and (r.bucket, r.wallet_id) > ($2, $3) order by r.bucket, r.wallet_id limit $4`, reason, bucket, after, limit)
	return rules, err
}

// Drifted lists customers of whom a difference from Stripe was told that is not known to be gone.
func (l *Ledger) Drifted(ctx context.Context, after string, limit int) (ids []string, err error) {
	err = l.db.SelectContext(ctx, &ids, `select id from customers where drift_told <> '' and id > $1 order by id limit $2`, after, limit)
	return ids, err
}
