package ledger

import (
	"crypto/sha256"
	"strconv"
)

// Every entry is sealed: its seal is the SHA-256 of the seal before it in its wallet and of all that the entry
// says. Whoever changes a row, or takes one out, breaks the chain at that row unless they can also write every seal
// after it and the one on the wallet. Check computes the same in SQL, by sealedSQL.

// seal computes an entry's seal from the one before it; nil before a wallet's first.
func (e *Entry) seal(before []byte) []byte {
	b := make([]byte, 0, 512)
	b = append(b, before...)
	b = append(b, e.Wallet...)
	for _, n := range [...]int64{e.Seq, e.Amount, e.Held, e.BalanceAfter, e.HeldAfter, e.PendingAfter, e.UsedAfter, e.Request, e.CreatedAt.UnixMicro()} {
		b = append(b, '|')
		b = strconv.AppendInt(b, n, 10)
	}
	b = append(b, '|')
	b = append(b, e.ID...)
	b = append(b, '|')
	b = append(b, e.Type...)
	b = append(b, '|')
	b = e.Parts.appendTo(b)
	// What callers wrote may hold anything, so its length goes before it.
	for _, s := range [...]string{e.Reason, e.RefersTo, e.Key, e.Rated, e.Metadata} {
		b = append(b, '|')
		b = strconv.AppendInt(b, int64(len(s)), 10)
		b = append(b, ':')
		b = append(b, s...)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// sealedSQL is seal for a row e of entries whose seal before is e.before.
const sealedSQL = `sha256(coalesce(e.before, '') || convert_to(concat_ws('|', e.wallet_id, e.seq, e.amount, e.held, e.balance_after,
	e.held_after, e.pending_after, e.used_after, coalesce(e.request, 0), round(extract(epoch from e.created_at) * 1000000)::bigint,
	e.id, e.type, e.parts, octet_length(e.reason) || ':' || e.reason,
	octet_length(coalesce(e.refers_to, '')) || ':' || coalesce(e.refers_to, ''), octet_length(coalesce(e.key, '')) || ':' || coalesce(e.key, ''),
	octet_length(coalesce(e.rated, '')) || ':' || coalesce(e.rated, ''), octet_length(coalesce(e.metadata, '')) || ':' || coalesce(e.metadata, '')), 'UTF8'))`
