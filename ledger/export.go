package ledger

import (
	"context"
	"time"

	"github.com/lib/pq"
)

// ExportInput says which entries are wanted: of one customer, of one wallet, or of all; from one moment up to another.
type ExportInput struct {
	Customer Ref    // the zero Ref: everybody
	Wallet   string // "": all
	From, To *time.Time
}

// ExportedEntry is an entry with what is needed to read its amounts.
type ExportedEntry struct {
	Entry
	Customer string
	Asset    string
	Scale    int16
}

// exportPage is about how many entries are read at once.
const exportPage = 10_000

// Export hands on the entries in the order of their buckets, wallets and seqs, as one snapshot has them, and tells how
// many entries it has gone through, of how many. It holds a page at a time. Where a moment lies in a long wallet is
// found without reading up to it.
func (l *Ledger) Export(ctx context.Context, in ExportInput, progress func(done, of int64), row func(*ExportedEntry) error) error {
	// One try: what has been handed on can't be taken back.
	return l.oneTx(ctx, func(t *tx) error {
		if _, err := t.snapshot(); err != nil {
			return err
		}
		if err := t.attached("from", in.From, in.To); err != nil {
			return err
		}
		x := export{t: t, in: in, progress: progress, row: row}
		args := []any{in.Customer.Bucket, in.Customer.ID, in.Wallet, in.From, in.To}
		if _, err := t.get(&x.of, `select coalesce(sum(seq), 0)::bigint from wallets where `+exportedWallets, args...); err != nil {
			return err
		}
		bucket, id := int16(-1), ""
		for {
			var wallets []Wallet
			if err := t.SelectContext(ctx, &wallets, `select `+walletColumns+` from wallets where `+exportedWallets+`
				and (bucket, id) > ($6, $7) order by bucket, id limit $8`, append(args, bucket, id, exportPage)...); err != nil {
				return err
			}
			for i := range wallets {
				if err := x.wallet(&wallets[i]); err != nil {
					return err
				}
			}
			if len(wallets) < exportPage {
				return x.flush()
			}
			bucket, id = wallets[len(wallets)-1].Bucket, wallets[len(wallets)-1].ID
		}
	})
}

// exportedWallets are those that may have entries that are wanted.
const exportedWallets = `($2 = '' or bucket = $1 and customer_id = $2) and ($3 = '' or id = $3) and seq > 0
	and ($4::timestamptz is null or entered_at >= $4) and ($5::timestamptz is null or created_at < $5)`

// export is one on its way.
type export struct {
	t        *tx
	in       ExportInput
	progress func(done, of int64)
	row      func(*ExportedEntry) error
	done, of int64

	ranges []exportRange // to be read next
	size   int64         // of them all
}

// exportRange is a stretch of a wallet's entries: those after low up to high.
type exportRange struct {
	wallet    *Wallet
	low, high int64
}

// wallet adds a wallet's entries to what is to be read, and reads when that is a page.
func (x *export) wallet(w *Wallet) (err error) {
	r := exportRange{wallet: w, high: w.Seq}
	if w.Seq > exportPage {
		if r.low, err = x.before(w, x.in.From, 0); err != nil {
			return err
		}
		if r.high, err = x.before(w, x.in.To, w.Seq); err != nil {
			return err
		}
		x.done += w.Seq - max(r.high-r.low, 0)
	}
	for r.low < r.high {
		one := r
		one.high = min(r.high, r.low+exportPage-x.size)
		x.ranges = append(x.ranges, one)
		x.size += one.high - one.low
		if r.low = one.high; x.size < exportPage {
			continue
		}
		if err := x.flush(); err != nil {
			return err
		}
	}
	return nil
}

// before is the seq of a wallet's last entry before a moment; without one it is seq.
func (x *export) before(w *Wallet, at *time.Time, seq int64) (int64, error) {
	if at == nil {
		return seq, nil
	}
	_, next, err := around(x.t.get, w.Bucket, w.ID, at.Add(-time.Microsecond)) // what was detached is not of the time that is wanted
	return next - 1, err
}

const exportSQL = `
select u.n, e.* from unnest($1::smallint[], $2::text[], $3::bigint[], $4::bigint[]) with ordinality u(bucket, wallet_id, low, high, n)
cross join lateral (select ` + entryColumns + ` from all_entries
	where bucket = u.bucket and wallet_id = u.wallet_id and seq > u.low and seq <= u.high
	and ($5::timestamptz is null or created_at >= $5) and ($6::timestamptz is null or created_at < $6) order by seq) e
order by u.n, e.seq`

// flush reads what is to be read and hands it on.
func (x *export) flush() error {
	n := len(x.ranges)
	buckets, lows, highs, ids := make(pq.Int64Array, n), make(pq.Int64Array, n), make(pq.Int64Array, n), make(textArray, n)
	for i, r := range x.ranges {
		buckets[i], ids[i], lows[i], highs[i] = int64(r.wallet.Bucket), r.wallet.ID, r.low, r.high
	}
	var rows []struct {
		N int `db:"n"`
		Entry
	}
	if err := x.t.SelectContext(x.t.ctx, &rows, exportSQL, buckets, ids, lows, highs, x.in.From, x.in.To); err != nil {
		return err
	}
	all := make([]*Entry, len(rows))
	for i := range rows {
		all[i] = &rows[i].Entry
	}
	if err := findAtStripe(x.t.ctx, x.t, all); err != nil {
		return err
	}
	for i := range rows {
		w := x.ranges[rows[i].N-1].wallet
		if err := x.row(&ExportedEntry{rows[i].Entry, w.Customer, w.Asset, w.Scale}); err != nil {
			return err
		}
	}
	x.done += x.size
	x.ranges, x.size = x.ranges[:0], 0
	x.progress(x.done, x.of)
	return nil
}
