package ledger

import (
	"context"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"
)

// The revenue report says what became of the value of credit: in each month, currency and kind,
//
//	opening + sold − earned − breakage − refunded = closing
//
// and the next month opens with what this one closed with.
//
// A grant's value is what it cost, where that is known, in the currency of the cost; else its amount at its asset's
// price, as it is now, in that currency; without either it is not in the report. Of a grant of a steps with the value
// v, r steps are worth v·r/a, exactly, rounded down to millionths of the currency's unit, and every figure is a
// difference of two such worths, so that nothing is lost or made by rounding. Within a month and grant the
// differences are taken in a fixed order: sold, earned, breakage, refunded.
//
//   - sold: a grant that came in force, with its full amount, in the moment of its entry; what of it paid down debt is
//     earned in the same moment. Credit that somebody gave in Stripe is sold too. What a plan's renewal carries over of
//     the credit before it (a grant of a stripe_invoice whose source ends in /rollover) is no sale but breakage undone.
//   - earned: debits and captures, less what was given back, and what Stripe spent of the balance there, less what it
//     gave back of invoices that were voided.
//   - breakage: what expired.
//   - refunded: what was taken back: voids, refunds, disputes, less what came back of them.
//   - opening and closing: what is left of grants in force, held or not. Debt is nothing until a grant pays it.
//
// Promotional credit has rows of its own, as every kind: it is a cost, not revenue.

// RevenueRow is one month of one kind of credit in one currency; the first and the last month may be in part.
type RevenueRow struct {
	Period, Currency, Kind                             string
	Opening, Sold, Earned, Breakage, Refunded, Closing Micros
}

// Micros are millionths of a currency's unit, as many as it takes.
type Micros struct{ n *big.Int }

// String writes the amount as a decimal of the currency.
func (m Micros) String() string {
	return formatRat(new(big.Rat).SetFrac(m.n, pow10(currencyScale)), currencyScale)
}

// maxReport is how long a stretch one report covers.
const maxReport = 5 * 366 * 24 * time.Hour

// revenueSQL answers, of the grants in some buckets, the opening values (without a month) and what the entries of
// each month did to them. What was left of a grant at a time is what is left now, and what was taken since: so it
// reads the entries since the report's beginning, and grants. Entries after the report's end are summed up without a month.
// The entries are chosen behind an offset, so that the planner finds them by their time and nothing else.
// The entry that begins a grant names it first, unless debt took all of it; then it is known by what paid for it, and where that
// paid for several, as an invoice of several lines does, by its place among them: entries and grants are made in one order.
const revenueSQL = `
with moved as (
	select e.bucket, split_part(p, ':', 1) collate "C" as id, case when e.created_at < $4 then date_trunc('month', e.created_at at time zone 'UTC') end as month,
		e.type, -sum(split_part(p, ':', 2)::bigint) as steps
	from (select bucket, created_at, type, parts from all_entries entries where bucket between $1 and $2 and created_at >= $3
			and type not in ('grant', 'hold', 'release') and (type <> 'stripe_balance' or amount < 0
				or not exists (select from grants g where g.bucket = entries.bucket and g.source_id = entries.refers_to)) offset 0) e
	cross join lateral unnest(string_to_array(nullif(e.parts, ''), ',')) p
	group by 1, 2, 3, 4
), starts as (
	select *, row_number() over (partition by bucket, wallet_id, refers_to order by seq) as nth
	from (select bucket, wallet_id, seq, created_at, amount, parts, refers_to, nullif(split_part(parts, ':', 1), 'stripe') collate "C" as first
		from all_entries entries where bucket between $1 and $2 and created_at >= $3 and (type = 'grant' or type = 'stripe_balance' and amount > 0
			and exists (select from grants g where g.bucket = entries.bucket and g.source_id = entries.refers_to)) offset 0) e
), begun as (
	select g.bucket, g.id, case when e.created_at < $4 then date_trunc('month', e.created_at at time zone 'UTC') end as month, e.amount as steps,
		g.source_type = 'stripe_invoice' and g.source_id like '%/rollover' as carried,
		(select coalesce(sum(split_part(p, ':', 2)::bigint), 0) from unnest(string_to_array(e.parts, ',')) p where split_part(p, ':', 1) in ('', 'stripe')) as paid
	from starts e cross join lateral (
		select * from grants where bucket = e.bucket and id = e.first
		union all
		(select * from grants where coalesce(e.first, '') = '' and bucket = e.bucket and source_id >= e.refers_to and source_id < e.refers_to || '0'
			and wallet_id = e.wallet_id and in_force and (source_id = e.refers_to or starts_with(source_id, e.refers_to || '/'))
			order by id offset e.nth - 1 limit 1)) g
), months as (
	select bucket, id, month, sum(sold) as sold, sum(carried) as carried, sum(earned) as earned, sum(breakage) as breakage, sum(refunded) as refunded,
		sum(sold + carried - earned - breakage - refunded) as change
	from (
		select bucket, id, month, 0 as sold, 0 as carried,
			case when type in ('debit', 'capture', 'reversal', 'stripe_balance') then steps else 0 end as earned,
			case when type = 'expire' then steps else 0 end as breakage,
			case when type not in ('debit', 'capture', 'reversal', 'stripe_balance', 'expire') then steps else 0 end as refunded
		from moved where id not in ('', 'stripe')
		union all
		select bucket, id, month, case when carried then 0 else steps end, case when carried then steps else 0 end, paid, 0, 0 from begun) s
	group by 1, 2, 3
), valued as (
	select g.bucket, g.id, g.kind, case when g.in_force then g.remaining else 0 end as remaining, coalesce(g.cost_currency, a.currency, w.asset) as currency,
		case when g.cost_amount is not null then g.cost_amount * case when g.cost_currency = any($5) then 1000000 when g.cost_currency = any($6) then 1000 else 10000 end::numeric
			else coalesce(a.price_pico, 1000000000000)::numeric end as worth,
		case when g.cost_amount is not null then g.amount::numeric else power(10::numeric, w.scale + 6)::numeric end as per
	from grants g join wallets w on w.bucket = g.bucket and w.id = g.wallet_id left join assets a on a.code = w.asset
	where g.bucket between $1 and $2 and (g.cost_amount is not null or a.code is null or a.price_pico is not null)
), opening as (
	select v.currency, v.kind, sum(div((v.remaining - coalesce(m.change, 0)) * v.worth, v.per)) as opening
	from valued v left join (select bucket, id, sum(change) as change from months group by 1, 2) m on m.bucket = v.bucket and m.id = v.id
	where v.remaining <> 0 or m.id is not null
	group by 1, 2
), placed as (
	select v.currency, v.kind, v.worth, v.per, m.month, m.sold, m.carried, m.earned, m.breakage, m.refunded,
		v.remaining - sum(m.change) over (partition by m.bucket, m.id order by m.month desc nulls first) as had
	from months m join valued v on v.bucket = m.bucket and v.id = m.id
), worths as (
	select currency, kind, month, div(had * worth, per) as v0, div((had + sold) * worth, per) as v1, div((had + sold + carried) * worth, per) as v2,
		div((had + sold + carried - earned) * worth, per) as v3, div((had + sold + carried - earned - breakage) * worth, per) as v4,
		div((had + sold + carried - earned - breakage - refunded) * worth, per) as v5
	from placed where month is not null
)
select '' as period, currency, kind, opening::text as opening, '0' as sold, '0' as earned, '0' as breakage, '0' as refunded from opening
union all
select to_char(month, 'YYYY-MM'), currency, kind, '0', sum(v1 - v0)::text, sum(v2 - v3)::text, sum(v1 - v2 + v3 - v4)::text, sum(v4 - v5)::text
from worths group by 1, 2, 3`

// Revenue reports on the entries from one moment up to another. It reads one snapshot, a part of the buckets at a time.
func (l *Ledger) Revenue(ctx context.Context, from, to time.Time) ([]RevenueRow, error) {
	from, to = from.UTC().Truncate(time.Microsecond), to.UTC().Truncate(time.Microsecond)
	switch {
	case !from.Before(to):
		return nil, refuse(CodeInvalid, "to", "to must come after from")
	case to.Sub(from) > maxReport:
		return nil, refuse(CodeInvalid, "from", "a report covers five years at most")
	}
	r := make(revenue)
	err := l.slowly(ctx, func() error {
		return l.inTx(ctx, func(t *tx) error {
			clear(r)
			parts, err := t.snapshot()
			if err == nil {
				err = t.attached("from", &from, nil)
			}
			if err != nil {
				return err
			}
			for _, p := range parts {
				if err := r.read(t, p, from, to); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if now := l.Now(); to.After(now) {
		to = now.Add(time.Microsecond) // a month that has not begun has no row
	}
	return r.rows(from, to), err
}

// revenue adds up what the parts of the books answer.
type revenue map[revenueKey]*RevenueRow

type revenueKey struct{ period, currency, kind string }

// figures are a row's, but for the closing.
func (r *RevenueRow) figures() [5]*Micros {
	return [...]*Micros{&r.Opening, &r.Sold, &r.Earned, &r.Breakage, &r.Refunded}
}

func (r *RevenueRow) empty() bool {
	for _, f := range r.figures() {
		if f.n.Sign() != 0 {
			return false
		}
	}
	return true
}

func newRevenueRow(k revenueKey) *RevenueRow {
	row := &RevenueRow{Period: k.period, Currency: k.currency, Kind: k.kind, Closing: Micros{new(big.Int)}}
	for _, f := range row.figures() {
		f.n = new(big.Int)
	}
	return row
}

func (r revenue) read(t *tx, p part, from, to time.Time) error {
	var found []struct {
		Period   string `db:"period"`
		Currency string `db:"currency"`
		Kind     string `db:"kind"`
		Opening  string `db:"opening"`
		Sold     string `db:"sold"`
		Earned   string `db:"earned"`
		Breakage string `db:"breakage"`
		Refunded string `db:"refunded"`
	}
	if err := t.SelectContext(t.ctx, &found, revenueSQL, p.from, p.to, from, to, currenciesOf(0), currenciesOf(3)); err != nil {
		return err
	}
	for _, f := range found {
		k := revenueKey{f.Period, f.Currency, f.Kind}
		if r[k] == nil {
			r[k] = newRevenueRow(k)
		}
		for i, text := range [...]string{f.Opening, f.Sold, f.Earned, f.Breakage, f.Refunded} {
			n, _ := new(big.Int).SetString(text, 10) // div answers whole numbers
			sum := r[k].figures()[i].n
			sum.Add(sum, n)
		}
	}
	return nil
}

// currenciesOf are the currencies with so many decimals at Stripe.
func currenciesOf(decimals int) pq.StringArray {
	var codes pq.StringArray
	for code, n := range stripeCurrencies {
		if n == decimals {
			codes = append(codes, code)
		}
	}
	return codes
}

// rows chains the months: each opens with what the one before closed with. What has nothing in it is left out.
func (r revenue) rows(from, to time.Time) []RevenueRow {
	keys := make(map[revenueKey]struct{})
	for k := range r {
		keys[revenueKey{"", k.currency, k.kind}] = struct{}{}
	}
	rows := []RevenueRow{}
	for k := range keys {
		left := new(big.Int)
		if opening := r[k]; opening != nil {
			left = opening.Opening.n
		}
		month, _ := period("month", from)
		for ; month.Before(to); month = month.AddDate(0, 1, 0) {
			k.period = month.Format("2006-01")
			row := r[k]
			if row == nil {
				row = newRevenueRow(k)
			}
			row.Opening.n = left
			left = new(big.Int).Add(left, row.Sold.n)
			left.Sub(left, row.Earned.n).Sub(left, row.Breakage.n).Sub(left, row.Refunded.n)
			row.Closing.n = left
			if !row.empty() {
				rows = append(rows, *row)
			}
		}
	}
	slices.SortFunc(rows, func(a, b RevenueRow) int {
		return strings.Compare(a.Period+" "+a.Currency+" "+a.Kind, b.Period+" "+b.Currency+" "+b.Kind)
	})
	return rows
}
