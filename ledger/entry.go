package ledger

import (
	"context"
	"strings"
	"time"
)

// Entries lists a wallet's entries, newest first, those before the one named by after.
func (l *Ledger) Entries(ctx context.Context, w *Wallet, after string, limit int) ([]Entry, error) {
	below := w.Seq + 1
	if after != "" {
		found, err := l.getRow(ctx, &below, `select seq from entries where bucket = $1 and wallet_id = $2 and id = $3`, w.Bucket, w.ID, after)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, noneAfter(after)
		}
	}
	var entries []Entry
	err := l.db.SelectContext(ctx, &entries, `select `+entryColumns+` from entries
		where bucket = $1 and wallet_id = $2 and seq < $3 order by seq desc limit $4`, w.Bucket, w.ID, below, limit)
	if err != nil {
		return nil, err
	}
	all := make([]*Entry, len(entries))
	for i := range entries {
		all[i] = &entries[i]
	}
	return entries, findAtStripe(ctx, l.db, all)
}

// noneAfter refuses a page of a list after something that is not in it: an empty page would look like its end.
func noneAfter(after string) error {
	return refuse(CodeNotFound, "starting_after", "starting_after: this list has no '%s'", after)
}

// DebitByID finds a debit.
func (l *Ledger) DebitByID(ctx context.Context, id string) (Debit, error) {
	none := refuse(CodeNotFound, "debit", "No such debit: '%s'", id)
	bucket, ok := bucketOfID("deb_", id)
	if !ok {
		return Debit{}, none
	}
	var e Entry
	found, err := l.getRow(ctx, &e, `select `+entryColumns+` from entries where bucket = $1 and id = $2 and type = 'debit'`,
		bucket, "ent_"+strings.TrimPrefix(id, "deb_"))
	if err != nil {
		return Debit{}, err
	}
	if !found {
		return Debit{}, none
	}
	w, err := l.Wallet(ctx, e.Wallet)
	return debitOf(&e, &w), err
}

// BalanceAt is a wallet's balance as of a moment, and the seq of the last entry by then.
func (l *Ledger) BalanceAt(ctx context.Context, w *Wallet, at time.Time) (Balance, int64, error) {
	e, err := entryAt(l.getter(ctx), w.Bucket, w.ID, at)
	return e.balance(), e.Seq, err
}
