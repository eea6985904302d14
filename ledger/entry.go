package ledger

import (
	"context"
	"strings"
	"time"
)

// entriesSQL reads a page by its seqs, which have no gaps, so that no planner sorts more of the wallet than that.
const entriesSQL = `select ` + entryColumns + ` from all_entries where bucket = $1 and wallet_id = $2 and seq >= $3 and seq < $4 order by seq desc`

// Entries lists a wallet's entries, newest first, those before the one named by after.
func (l *Ledger) Entries(ctx context.Context, w *Wallet, after string, limit int) ([]Entry, error) {
	below := w.Seq + 1
	if after != "" {
		last, found, err := entryByID(l.getter(ctx), w.Bucket, after)
		if err != nil {
			return nil, err
		}
		if !found || last.Wallet != w.ID {
			return nil, noneAfter(after)
		}
		below = last.Seq
	}
	var entries []Entry
	err := l.db.SelectContext(ctx, &entries, entriesSQL, w.Bucket, w.ID, below-int64(limit), below)
	if err != nil {
		return nil, err
	}
	all := make([]*Entry, len(entries))
	for i := range entries {
		all[i] = &entries[i]
		below--
		if entries[i].Seq != below {
			return nil, detached(w.ID, entries[i].Seq+1, below)
		}
	}
	if len(entries) < limit && below > 1 {
		return nil, detached(w.ID, 1, below-1)
	}
	return entries, findAtStripe(ctx, l.db, all)
}

// noneAfter refuses a page of a list after something that is not in it: an empty page would look like its end.
func noneAfter(after string) error {
	return refuse(CodeNotFound, "starting_after", "starting_after: this list has no '%s'", after)
}

// detached refuses to leave out entries that were booked and are not there.
func detached(wallet string, from, to int64) error {
	return refuse(CodeState, "", "wallet %s: its entries %d to %d are archived in a month that was detached; attach the month again, or ask for fewer", wallet, from, to)
}

// entryByID finds an entry of a bucket. A debit's id says where its entry is, but for the higher bits of its seq; the
// few others have an index.
func entryByID(get getter, bucket int16, id string) (e Entry, found bool, err error) {
	tail, seq, ok := debitPlace(id)
	if !ok {
		found, err = get(&e, `select `+entryColumns+` from all_entries where bucket = $1 and id = $2 and (type <> 'debit' or octet_length(id) < 28)`, bucket, id)
		return e, found, err
	}
	found, err = get(&e, debitByPlaceSQL, bucket, id, tail, seq, 1<<seqBits)
	return e, found, err
}

// debitByPlaceSQL looks at each entry that may have the id: one for every million that the wallet has.
const debitByPlaceSQL = `select ` + entryColumns + ` from all_entries
where bucket = $1 and id = $2 and (wallet_id, seq) = (
	select w.id, n from wallets w cross join lateral generate_series($4::bigint, w.seq, $5::bigint) n
	where w.bucket = $1 and right(w.id, 10) = $3
		and (select e.id from all_entries e where e.bucket = w.bucket and e.wallet_id = w.id and e.seq = n) = $2 limit 1)`

// entryTaken finds the entry by which something was taken that is to be given back.
func (t *tx) entryTaken(bucket int16, id string) (Entry, error) {
	e, found, err := entryByID(t.get, bucket, id)
	if err == nil && !found {
		err = refuse(CodeState, "", "entry %s says what is to be given back, and is archived in a month that was detached; attach the month again", id)
	}
	return e, err
}

// DebitByID finds a debit. One that would be of a month that is detached from the archive is refused as such.
func (l *Ledger) DebitByID(ctx context.Context, id string) (Debit, error) {
	none := refuse(CodeNotFound, "debit", "No such debit: '%s'", id)
	bucket, ok := bucketOfID("deb_", id)
	if !ok {
		return Debit{}, none
	}
	e, found, err := entryByID(l.getter(ctx), bucket, "ent_"+strings.TrimPrefix(id, "deb_"))
	if err != nil {
		return Debit{}, err
	}
	if !found {
		at := timeOfID(id)
		after := at.Add(time.Millisecond)
		if err := l.inTx(ctx, func(t *tx) error { return t.attached("debit", &at, &after) }); err != nil {
			return Debit{}, err
		}
	}
	if !found || e.Type != "debit" {
		return Debit{}, none
	}
	w, err := l.Wallet(ctx, e.Wallet)
	return debitOf(&e, &w), err
}

// BalanceAt is a wallet's balance as of a moment, and the seq of the last entry by then. It refuses where that entry was
// archived in a month that is detached.
func (l *Ledger) BalanceAt(ctx context.Context, w *Wallet, at time.Time) (Balance, int64, error) {
	e, err := entryAt(l.getter(ctx), w.Bucket, w.ID, at)
	return e.balance(), e.Seq, err
}
