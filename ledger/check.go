package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Finding is something that should be true of the books and is not.
type Finding struct {
	Invariant string
	Subject   string // the wallet, grant, top-up or customer
	Detail    string
}

func (f Finding) String() string { return f.Invariant + ": " + f.Subject + ": " + f.Detail }

// invariants are what is always true, each as a query for what breaks it: subject and detail. What they are about lies
// in one bucket, so each looks at the buckets from $1 to $2.
var invariants = []struct{ name, query string }{
	{"every month that was archived is attached: without it, what follows finds its entries missing", `
		select m.partition, 'the month is detached' from archived_months m
		where 0 between $1::smallint and $2::smallint and not exists (` + attachedSQL + `)`},
	{"a wallet's total is the sum of its entries, and its seq their number", `
		select w.id, format('total %s, entries sum to %s; seq %s, entries %s', w.total, coalesce(e.sum, 0), w.seq, coalesce(e.n, 0))
		from wallets w left join (select bucket, wallet_id, sum(amount) as sum, sum(held) as held, count(*) as n, max(seq) as last
			from all_entries where bucket between $1 and $2 group by bucket, wallet_id) e on e.bucket = w.bucket and e.wallet_id = w.id
		where w.bucket between $1 and $2
			and (w.total <> coalesce(e.sum, 0) or w.held <> coalesce(e.held, 0) or w.seq <> coalesce(e.n, 0) or w.seq <> coalesce(e.last, 0))`},
	{"balance_after follows from the entry before, and time does not go back", `
		select id, format('seq %s: %s after %s with %s', seq, balance_after, before, amount) from (
			select id, seq, amount, held, balance_after, held_after, created_at,
				coalesce(lag(balance_after) over w, 0) as before, coalesce(lag(held_after) over w, 0) as held_before,
				coalesce(lag(created_at) over w, '-infinity') as at_before, coalesce(lag(seq) over w, 0) as seq_before
			from all_entries where bucket between $1 and $2 window w as (partition by bucket, wallet_id order by seq)) e
		where balance_after <> before + amount or held_after <> held_before + held or created_at < at_before or seq <> seq_before + 1`},
	{"usage so far is what debits and captures took less what was given back", `
		select id, format('seq %s: used %s after %s', seq, used_after, before) from (
			select e.id, e.seq, e.used_after, lag(e.used_after, 1, 0::bigint) over w as before, case when e.type in ('debit', 'capture', 'reversal') then e.amount else 0 end as took
			from all_entries e where e.bucket between $1 and $2 and e.seal is not null window w as (partition by e.bucket, e.wallet_id order by e.seq)) e
		where before - took <> used_after`},
	{"every entry has the seal that follows from the one before it, and the wallet has the last", `
		select coalesce(e.id, w.id), case when e.id is null then 'the last seal is not the wallet''s' else format('seq %s of %s was changed, or the one before it', e.seq, e.wallet_id) end
		from (select *, lag(seal) over one as before, lead(seq) over one is null as last
			from all_entries where bucket between $1 and $2 and seal is not null window one as (partition by bucket, wallet_id order by seq)) e
		full join (select bucket, id, seal from wallets where bucket between $1 and $2) w on w.bucket = e.bucket and w.id = e.wallet_id and e.last and w.seal = e.seal
		where e.id is not null and (e.seal <> ` + sealedSQL + ` or e.last and w.id is null) or e.id is null and w.seal is not null`},
	{"nobody is left untold of a balance: it is where the last look left the alerts", `
		select id, format('%s with %s available, quiet from %s to below %s', alert_state, total - held, quiet_from, quiet_below) from wallets
		where bucket between $1 and $2 and (total - held < coalesce(quiet_from, total - held) or total - held >= quiet_below
			or (alert_state = 'depleted') <> (total - held + overdraft_limit <= 0))`},
	{"an entry is of a type that there is", `
		select id, type from all_entries where bucket between $1 and $2 and type not in ('grant', 'debit', 'hold', 'capture', 'release',
			'expire', 'void', 'refund', 'dispute', 'reversal', 'stripe_balance', 'adjustment')`},
	{"an entry's parts sum to its amount", `
		select id, format('amount %s, parts %s', amount, parts) from all_entries
		where bucket between $1 and $2 and amount <> coalesce((select sum(split_part(p, ':', 2)::bigint) from string_to_table(nullif(parts, ''), ',') p), 0)`},
	{"a grant has left what its entries' parts say", `
		select g.id, format('remaining %s, parts sum to %s', case when g.in_force then g.remaining end, coalesce(p.sum, 0))
		from grants g left join (select e.bucket, split_part(p, ':', 1) as id, sum(split_part(p, ':', 2)::bigint) as sum
			from all_entries e cross join lateral string_to_table(nullif(e.parts, ''), ',') p where e.bucket between $1 and $2 group by 1, 2) p on p.bucket = g.bucket and p.id = g.id
		where g.bucket between $1 and $2 and case when g.in_force then g.remaining else 0 end <> coalesce(p.sum, 0)`},
	{"every part is of a grant of the entry's wallet, or is debt", `
		select e.id, p from all_entries e cross join lateral string_to_table(nullif(e.parts, ''), ',') p
		left join grants g on g.bucket = e.bucket and g.id = split_part(p, ':', 1) and g.wallet_id = e.wallet_id
		where e.bucket between $1 and $2 and g.id is null and split_part(p, ':', 1) not in ('', 'stripe')`},
	{"a wallet's total is what its grants have left less its debt", `
		select w.id, format('total %s, grants %s, debt %s', w.total, coalesce(sum(g.remaining), 0), w.debt)
		from wallets w left join grants g on g.bucket = w.bucket and g.wallet_id = w.id and g.in_force
		where w.bucket between $1 and $2 group by w.bucket, w.id having w.total <> coalesce(sum(g.remaining), 0) - w.debt or w.held <> coalesce(sum(g.held), 0)`},
	{"what open holds pin is held on their grants, and nothing else is", `
		select coalesce(g.id, p.id), format('held %s, pinned %s', g.held, p.pinned)
		from (select h.bucket, split_part(part, ':', 1) as id, sum(split_part(part, ':', 2)::bigint) as pinned
			from holds h cross join lateral string_to_table(nullif(h.parts, ''), ',') part where h.bucket between $1 and $2 and h.status = 'open' group by 1, 2) p
		full join (select bucket, id, held from grants where bucket between $1 and $2) g on g.bucket = p.bucket and g.id = p.id
		where coalesce(g.held, 0) <> coalesce(p.pinned, 0)`},
	{"no more of a debit was given back than was taken", `
		select r.refers_to, format('%s given back of %s', r.amount, -d.amount)
		from (select bucket, refers_to, sum(amount) as amount from all_entries where bucket between $1 and $2 and type = 'reversal' group by 1, 2) r
		left join all_entries d on d.bucket = r.bucket and d.id = 'ent_' || substr(r.refers_to, 5) and d.type = 'debit'
		where d.id is null or r.amount > -d.amount`},
	{"no more of a grant was taken back than it was, and each taking is an entry of its refund or dispute", `
		select grant_id, format('%s taken back of %s, entries %s', taken, g.amount, entries)
		from (select k.bucket, k.grant_id, sum(k.steps) filter (where not k.returned) as taken, sum(k.steps) as steps,
				-sum(e.amount) filter (where e.refers_to = k.id and e.type in ('refund', 'dispute')) as entries
			from clawback_grants k left join all_entries e on e.bucket = k.bucket and e.id = k.entry_id where k.bucket between $1 and $2 group by 1, 2) k
		left join grants g on g.bucket = k.bucket and g.id = k.grant_id
		where g.id is null or k.taken > g.amount or k.steps is distinct from k.entries`},
	{"a wallet's pending is its grants that wait for a payment", `
		select w.id, format('pending %s, grants %s', w.pending, coalesce(sum(g.amount), 0))
		from wallets w left join grants g on g.bucket = w.bucket and g.wallet_id = w.id and g.status = 'pending'
		where w.bucket between $1 and $2 group by w.bucket, w.id having w.pending <> coalesce(sum(g.amount), 0)`},
	{"a grant that can be spent is live, and no other", `
		select id, format('%s, in force %s, remaining %s, live %s', status, in_force, remaining, live) from grants
		where bucket between $1 and $2 and live <> (in_force and status = 'confirmed' and remaining > 0)`},
	{"a top-up has its grant: confirmed when it was paid, pending while it may be, voided when not", `
		select t.id, format('%s with grant %s', t.status, g.status)
		from topups t left join grants g on g.bucket = t.bucket and g.id = t.grant_id and g.source_id = t.id
		where t.bucket between $1 and $2 and not t.immediate and (g.id is null or case t.status when 'succeeded' then g.status in ('pending', 'voided') and not g.in_force
			when 'failed' then g.status <> 'voided' when 'canceled' then g.status <> 'voided' else g.status <> 'pending' end)`},
	{"credit that was given before its payment is in force while that is under way, and taken back once, in full, when it failed", `
		select t.id, format('%s with grant %s of %s, adjusted by %s', t.status, g.status, g.amount, e.amount)
		from topups t left join grants g on g.bucket = t.bucket and g.id = t.grant_id and g.source_id = t.id
		left join (select bucket, wallet_id, refers_to, sum(amount) as amount from all_entries where bucket between $1 and $2 and type = 'adjustment' group by 1, 2, 3) e
			on e.bucket = t.bucket and e.wallet_id = t.wallet_id and e.refers_to = t.id
		where t.bucket between $1 and $2 and t.immediate and (g.id is null or not g.in_force or g.amount <> t.amount
			or coalesce(e.amount, 0) <> case when t.status in ('failed', 'canceled') then -t.amount else 0 end
			or t.status <> 'succeeded' and g.covers <> 'usage')`},
	{"at most one top-up of a wallet is in flight", `
		select wallet_id, format('%s in flight', count(*)) from topups where bucket between $1 and $2 and status in ('pending', 'processing', 'action_required')
		group by bucket, wallet_id having count(*) > 1`},
	{"what auto top-up charged and may charge stays within the cap in force", `
		select id, format('used %s of %s', cap_used, cap_amount) from topups where bucket between $1 and $2 and trigger = 'auto' and cap_used > cap_amount`},
	{"a line that was sold gave what its row says, and no sold grant is without its line", `
		select coalesce(s.id, g.id), format('line of %s, grant of %s', s.steps, g.amount)
		from (select * from sold_lines where bucket between $1 and $2 and grant_id is not null) s
		full join (select * from grants where bucket between $1 and $2 and source_type in ('stripe_invoice', 'stripe_checkout')) g
			on g.bucket = s.bucket and g.id = s.grant_id and g.source_id = s.id and g.wallet_id = s.wallet_id
		where s.id is null or g.id is null or g.amount <> s.steps`},
	{"no more is carried over to a period than expired with the one before", `
		select r.id, format('%s carried over of %s', r.steps, coalesce(sum(e.amount), 0))
		from sold_lines r left join sold_lines s on s.bucket = r.bucket and s.rolled_to = r.id
		left join (select bucket, refers_to, -sum(amount) as amount from all_entries where bucket between $1 and $2 and type = 'expire' group by 1, 2) e
			on e.bucket = s.bucket and e.refers_to = s.grant_id
		where r.bucket between $1 and $2 and r.id like '%/rollover' group by r.bucket, r.id, r.steps having r.steps > coalesce(sum(e.amount - s.withheld), 0)`},
	{"a mirror's credit is the sum of the transactions known at Stripe", `
		select m.customer_id, format('credit %s, transactions %s', m.credit, coalesce(sum(b.amount), 0))
		from mirrors m left join balance_transactions b on b.bucket = m.bucket and b.customer_id = m.customer_id
		where m.bucket between $1 and $2 group by m.bucket, m.customer_id having m.credit <> -coalesce(sum(b.amount), 0)`},
	{"every flush that is done has its transaction, of its amount", `
		select f.id, format('%s for %s, transaction of %s', f.status, f.amount, b.amount)
		from (select * from flushes where bucket between $1 and $2) f
			full join (select * from balance_transactions where bucket between $1 and $2 and flush_id is not null) b
			on b.bucket = f.bucket and b.flush_id = f.id
		where (f.status = 'done' or b.id is not null) and (f.id is null or b.id is null or b.amount <> f.amount or f.status <> 'done')`},
	{"no transaction is booked twice as credit", `
		select refers_to, format('%s entries', count(*)) from all_entries where bucket between $1 and $2 and type = 'stripe_balance'
		group by bucket, wallet_id, refers_to having count(*) > 1`},
	// With the parts of every entry, and of every grant, this is the sum of the revenue report, in steps: what was sold is
	// what was earned, expired, was refunded, and is left.
	{"a grant in force was sold once: one entry began it with all of its amount, or something given back made it", `
		select g.id, format('amount %s of %s, begun %s times with %s', g.amount, g.n, coalesce(e.n, 0), e.amount)
		from (select bucket, wallet_id, split_part(source_id, '/', 1) as source, min(id) as id, count(*) as n, sum(amount) as amount
			from grants where bucket between $1 and $2 and in_force group by 1, 2, 3) g
		left join (select bucket, wallet_id, refers_to, count(*) as n, sum(amount) as amount
			from all_entries where bucket between $1 and $2 and amount > 0 and type in ('grant', 'stripe_balance') group by 1, 2, 3) e
			on e.bucket = g.bucket and e.wallet_id = g.wallet_id and e.refers_to = g.source
		where e.n <> g.n or e.amount <> g.amount
			or e.n is null and not exists (select from all_entries r where r.bucket = g.bucket and r.id = g.source and r.type in ('reversal', 'refund', 'dispute', 'adjustment', 'stripe_balance'))`},
	{"what an invoice took of a wallet is an entry, and no more of it came back than Stripe gave back", `
		select s.wallet_id, format('%s of %s: %s taken, entries %s; %s returned, entries %s', s.invoice, s.bucket, s.steps, s.entries, s.returned, coalesce(r.amount, 0))
		from (select s.bucket, s.wallet_id, coalesce(b.invoice, '') as invoice, sum(s.steps) as steps, sum(s.returned) as returned,
				-sum(e.amount) as entries from invoice_spendings s left join balance_transactions b on b.bucket = s.bucket and b.id = s.id
				left join all_entries e on e.bucket = s.bucket and e.id = s.entry_id and e.wallet_id = s.wallet_id and e.type = 'stripe_balance' and e.refers_to = s.id
			where s.bucket between $1 and $2 group by 1, 2, 3) s
		left join (select e.bucket, e.wallet_id, b.invoice, sum(e.amount) as amount from balance_transactions b
			join all_entries e on e.bucket = b.bucket and e.refers_to = b.id and e.type = 'stripe_balance'
			where b.bucket between $1 and $2 and b.invoice is not null and b.type = 'unapplied_from_invoice' and b.amount < 0 group by 1, 2, 3) r
			on r.bucket = s.bucket and r.wallet_id = s.wallet_id and r.invoice = s.invoice
		where s.steps is distinct from s.entries or s.returned > coalesce(r.amount, 0)`},
}

// Check looks at every invariant over the whole database and answers what breaks one.
func (l *Ledger) Check(ctx context.Context) ([]Finding, error) {
	v, err := l.Verify(ctx, func(int, int) {})
	return v.Findings, err
}

// Verification is what a look at all of the books came to.
type Verification struct {
	Findings []Finding
	Wallets  int64
	Entries  int64
	Digest   string // SHA-256, in hex, of every wallet's id, seq and last seal, and so of every sealed entry
}

// maxFindings bounds what is told of one invariant.
const maxFindings = 100

// Verify looks at every invariant over the whole database and draws the digest of the books. It reads one snapshot, so
// it may run beside a working service; its cost grows with the entries, and it tells how many of its steps are done.
func (l *Ledger) Verify(ctx context.Context, progress func(done, of int)) (v Verification, err error) {
	if err := l.acquaint(ctx); err != nil {
		return v, err
	}
	err = l.inTx(ctx, func(t *tx) error {
		v = Verification{}
		parts, err := t.snapshot()
		if err != nil {
			return err
		}
		found := make([][]Finding, len(invariants))
		steps := len(parts)*len(invariants) + 1
		for n, p := range parts {
			for i, inv := range invariants {
				progress(n*len(invariants)+i, steps)
				if err := t.check(inv.name, inv.query, p, &found[i]); err != nil {
					return err
				}
			}
		}
		v.Findings = slices.Concat(found...)
		return t.digest(&v)
	})
	return v, err
}

func (t *tx) check(name, query string, p part, found *[]Finding) error {
	var rows []struct {
		Subject string `db:"subject"`
		Detail  string `db:"detail"`
	}
	query = `select subject, coalesce(detail, '') as detail from (` + query + ` limit $3) broken(subject, detail)`
	if err := t.SelectContext(t.ctx, &rows, query, p.from, p.to, maxFindings-len(*found)); err != nil {
		return fmt.Errorf("check %q: %w", name, err)
	}
	for _, r := range rows {
		*found = append(*found, Finding{name, r.Subject, r.Detail})
	}
	return nil
}

// digestPage is how many wallets are read at once.
const digestPage = 10_000

// digest goes through the wallets in the order of their buckets and ids, a line each: the id, the seq and the seal.
func (t *tx) digest(v *Verification) error {
	h := sha256.New()
	bucket, id := int16(-1), ""
	for {
		var page []Wallet
		if err := t.SelectContext(t.ctx, &page, `select bucket, id, seq, seal from wallets where (bucket, id) > ($1, $2)
			order by bucket, id limit $3`, bucket, id, digestPage); err != nil {
			return err
		}
		for i := range page {
			w := &page[i]
			fmt.Fprintf(h, "%s %d %x\n", w.ID, w.Seq, w.Seal)
			v.Wallets, v.Entries = v.Wallets+1, v.Entries+w.Seq
		}
		if len(page) < digestPage {
			v.Digest = hex.EncodeToString(h.Sum(nil))
			return nil
		}
		bucket, id = page[len(page)-1].Bucket, page[len(page)-1].ID
	}
}

// Describe writes findings a line each.
func Describe(findings []Finding) string {
	lines := make([]string, len(findings))
	for i, f := range findings {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Invariants is how many things Check looks at.
func Invariants() int { return len(invariants) }
