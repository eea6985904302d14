package ledger

import (
	"bytes"
	"cmp"
	"database/sql/driver"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
)

// Entry is one movement of one wallet.
type Entry struct {
	Bucket       int16     `db:"bucket"`
	Wallet       string    `db:"wallet_id"`
	Seq          int64     `db:"seq"`
	ID           string    `db:"id"`
	Type         string    `db:"type"`
	Amount       int64     `db:"amount"`
	Held         int64     `db:"held"` // what it did to held
	BalanceAfter int64     `db:"balance_after"`
	HeldAfter    int64     `db:"held_after"`
	PendingAfter int64     `db:"pending_after"`
	UsedAfter    int64     `db:"used_after"` // usage of the wallet so far
	Parts        Parts     `db:"parts"`
	Reason       string    `db:"reason"`
	RefersTo     string    `db:"refers_to"`
	Key          string    `db:"key"`
	Request      int64     `db:"request"`
	Metadata     string    `db:"metadata"`
	Rated        string    `db:"rated"` // of a debit by the rate card: feature, version, quantity
	Seal         []byte    `db:"seal"`
	CreatedAt    time.Time `db:"created_at"`
	AtStripe     *AtStripe `db:"-"` // what it is about there, where that was asked for
}

const entryColumns = `bucket, wallet_id, seq, id, type, amount, held, balance_after, held_after, pending_after, used_after, parts, reason,
	coalesce(refers_to, '') as refers_to, coalesce(key, '') as key, coalesce(request, 0) as request,
	coalesce(metadata, '') as metadata, coalesce(rated, '') as rated, seal, created_at`

// balance is the wallet's balance right after the entry.
func (e *Entry) balance() Balance {
	return Balance{Available: e.BalanceAfter - e.HeldAfter, Held: e.HeldAfter, Pending: e.PendingAfter, Total: e.BalanceAfter}
}

// Parts are an entry's parts, kept as "grt_…:steps,grt_…:steps".
type Parts []Part

// Scan reads parts as they are kept.
func (p *Parts) Scan(src any) error {
	*p = nil
	text, ok := src.(string)
	if !ok {
		b, _ := src.([]byte)
		text = string(b)
	}
	for text != "" {
		var one string
		one, text, _ = strings.Cut(text, ",")
		grant, amount, _ := strings.Cut(one, ":")
		n, err := strconv.ParseInt(amount, 10, 64)
		if err != nil {
			return err
		}
		*p = append(*p, Part{Grant: grant, Amount: n})
	}
	return nil
}

func (p Parts) appendTo(buf []byte) []byte {
	for i, part := range p {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(append(buf, part.Grant...), ':')
		buf = strconv.AppendInt(buf, part.Amount, 10)
	}
	return buf
}

// grantState is what a movement left of a grant.
type grantState struct {
	bucket          int16
	id              string
	remaining, held int64
	status          string
	inForce         bool
}

// posting gathers what one transaction books: entries, and the state in which they leave wallets and
// grants. It is written with one statement, however much it holds.
type posting struct {
	now     time.Time
	entries []Entry
	wallets []*Wallet
	grants  []grantState
	fenced  bool // write only if every wallet's version is still the one that was read; else fail
	touched map[*Wallet]struct{}
	grantAt map[string]int // where in grants
}

func newPosting(now time.Time) *posting {
	return &posting{now: now, touched: make(map[*Wallet]struct{}), grantAt: make(map[string]int)}
}

// enter books an entry on a wallet whose row is locked: it gives it its place, moves the wallet's balance
// by its amount, held and parts of debt, and remembers both for write.
func (p *posting) enter(w *Wallet, e Entry) *Entry {
	at := p.now
	if at.Before(w.EnteredAt) { // another process's clock is ahead of ours: a wallet's time does not go back
		at = w.EnteredAt
	}
	w.Seq++
	w.Total += e.Amount
	w.Held += e.Held
	w.EnteredAt = at
	for _, part := range e.Parts {
		switch part.Grant {
		case debtPart:
			w.Debt -= part.Amount
		case stripeDebtPart:
			w.Debt -= part.Amount
			w.StripeDebt -= part.Amount
		}
	}
	switch e.Type {
	case "debit", "capture", "reversal":
		w.Used -= e.Amount
	}
	e.Bucket, e.Wallet, e.Seq, e.CreatedAt = w.Bucket, w.ID, w.Seq, at
	e.BalanceAfter, e.HeldAfter, e.PendingAfter, e.UsedAfter = w.Total, w.Held, w.Pending, w.Used
	w.Seal = e.seal(w.Seal)
	e.Seal = w.Seal
	p.touch(w)
	p.entries = append(p.entries, e)
	return &p.entries[len(p.entries)-1]
}

// touch remembers that a wallet changed.
func (p *posting) touch(w *Wallet) {
	if _, ok := p.touched[w]; !ok {
		p.touched[w] = struct{}{}
		p.wallets = append(p.wallets, w)
	}
}

// set remembers the state of a grant. The last state of a grant is the one that is written.
func (p *posting) set(g grantState) {
	if i, ok := p.grantAt[g.id]; ok {
		p.grants[i] = g
		return
	}
	p.grantAt[g.id] = len(p.grants)
	p.grants = append(p.grants, g)
}

// sort puts the wallets into the one order that everybody locks in.
func (p *posting) sort() {
	slices.SortFunc(p.wallets, func(a, b *Wallet) int {
		return cmp.Or(cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.ID, b.ID))
	})
}

// postingSQL writes a posting: entries, grants and wallets in one statement, one round trip. A version of -1
// is none to be held against; where one has moved, or another kind of call has answered a key, the division by
// zero undoes the whole statement. (That a debit used the key is what the unique index is for.)
const postingSQL = `
with e as (
	insert into entries (bucket, wallet_id, seq, id, type, amount, held, balance_after, held_after, pending_after,
		parts, reason, refers_to, key, request, metadata, created_at, used_after, rated, seal)
	select bucket, wallet_id, seq, id, type, amount, held, balance_after, held_after, pending_after,
		parts, reason, nullif(refers_to, ''), nullif(key, ''), nullif(request, 0), nullif(metadata, ''),
		timestamptz 'epoch' + at * interval '1 microsecond', used_after, nullif(rated, ''), seal
	from unnest($1::smallint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
		$9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::text[], $17::bigint[],
		$35::bigint[], $36::text[], $37::bytea[])
		as u(bucket, wallet_id, seq, id, type, amount, held, balance_after, held_after, pending_after,
			parts, reason, refers_to, key, request, metadata, at, used_after, rated, seal)
), g as (
	update grants g set remaining = u.remaining, held = u.held, status = u.status, in_force = u.in_force,
		live = u.in_force and u.status = 'confirmed' and u.remaining > 0
	from unnest($18::smallint[], $19::text[], $20::bigint[], $21::bigint[], $22::text[], $23::boolean[])
		as u(bucket, id, remaining, held, status, in_force)
	where g.bucket = u.bucket and g.id = u.id
), w as (
	update wallets w set total = u.total, held = u.held, pending = u.pending, debt = u.debt, stripe_debt = u.stripe_debt,
		seq = u.seq, version = w.version + 1, entered_at = timestamptz 'epoch' + u.at * interval '1 microsecond', used = u.used, seal = u.seal
	from unnest($24::smallint[], $25::text[], $26::bigint[], $27::bigint[], $28::bigint[], $29::bigint[], $30::bigint[], $31::bigint[],
		$32::bigint[], $33::bigint[], $38::bigint[], $39::bytea[]) as u(bucket, id, total, held, pending, debt, stripe_debt, seq, at, version, used, seal)
	where w.bucket = u.bucket and w.id = u.id and (u.version = -1 or w.version = u.version)
	returning 1
)
select 1 / case when (select count(*) from w) = $34::bigint and not exists (
	select from unnest($1::smallint[], $14::text[]) as u(bucket, key) join answers a on a.bucket = u.bucket and a.key = u.key)
	then 1 else 0 end`

// args are the arrays of postingSQL.
func (p *posting) args() []any {
	ne, ng, nw := len(p.entries), len(p.grants), len(p.wallets)
	ints := func(n, of int) []pq.Int64Array {
		cols := make([]pq.Int64Array, n)
		for i := range cols {
			cols[i] = make(pq.Int64Array, of)
		}
		return cols
	}
	texts := func(n, of int) []textArray {
		cols := make([]textArray, n)
		for i := range cols {
			cols[i] = make(textArray, of)
		}
		return cols
	}
	ei, et, seals := ints(10, ne), texts(9, ne), make(sealArray, ne)
	var parts []byte
	for i := range p.entries {
		e := &p.entries[i]
		parts = e.Parts.appendTo(parts[:0])
		for c, v := range [...]int64{int64(e.Bucket), e.Seq, e.Amount, e.Held, e.BalanceAfter, e.HeldAfter, e.PendingAfter, e.Request, e.CreatedAt.UnixMicro(), e.UsedAfter} {
			ei[c][i] = v
		}
		for c, v := range [...]string{e.Wallet, e.ID, e.Type, string(parts), e.Reason, e.RefersTo, e.Key, e.Metadata, e.Rated} {
			et[c][i] = v
		}
		seals[i] = e.Seal
	}
	gi, gt, inForce := ints(3, ng), texts(2, ng), make(pq.BoolArray, ng)
	for i, g := range p.grants {
		gi[0][i], gi[1][i], gi[2][i] = int64(g.bucket), g.remaining, g.held
		gt[0][i], gt[1][i], inForce[i] = g.id, g.status, g.inForce
	}
	wi, wt, walletSeals := ints(10, nw), texts(1, nw), make(sealArray, nw)
	for i, w := range p.wallets {
		wt[0][i], walletSeals[i], wi[9][i] = w.ID, w.Seal, w.Used
		wi[8][i] = -1
		if p.fenced {
			wi[8][i] = w.Version
		}
		for c, v := range [...]int64{int64(w.Bucket), w.Total, w.Held, w.Pending, w.Debt, w.StripeDebt, w.Seq, w.EnteredAt.UnixMicro()} {
			wi[c][i] = v
		}
	}
	return []any{
		ei[0], et[0], ei[1], et[1], et[2], ei[2], ei[3], ei[4], ei[5], ei[6], et[3], et[4], et[5], et[6], ei[7], et[7], ei[8],
		gi[0], gt[0], gi[1], gi[2], gt[1], inForce,
		wi[0], wt[0], wi[1], wi[2], wi[3], wi[4], wi[5], wi[6], wi[7], wi[8], nw,
		ei[9], et[8], seals, wi[9], walletSeals,
	}
}

// textArray is pq.StringArray written faster: it escapes only where there is something to escape.
type textArray []string

// Value writes the array as PostgreSQL reads it.
func (a textArray) Value() (driver.Value, error) {
	size := 2
	for _, s := range a {
		size += len(s) + 3
	}
	buf := bytes.NewBuffer(make([]byte, 0, size))
	buf.WriteByte('{')
	for i, s := range a {
		if i > 0 {
			buf.WriteByte(',')
		}
		buf.WriteByte('"')
		for strings.ContainsAny(s, `"\`) {
			at := strings.IndexAny(s, `"\`)
			buf.WriteString(s[:at])
			buf.WriteByte('\\')
			buf.WriteByte(s[at])
			s = s[at+1:]
		}
		buf.WriteString(s)
		buf.WriteByte('"')
	}
	buf.WriteByte('}')
	return buf.String(), nil
}

// sealArray is an array of bytea as PostgreSQL reads it; nil is null.
type sealArray [][]byte

// Value writes the array.
func (a sealArray) Value() (driver.Value, error) {
	buf := make([]byte, 0, 2+len(a)*70)
	buf = append(buf, '{')
	for i, seal := range a {
		if i > 0 {
			buf = append(buf, ',')
		}
		if seal == nil {
			buf = append(buf, "null"...)
			continue
		}
		buf = append(buf, `"\\x`...)
		buf = append(hex.AppendEncode(buf, seal), '"')
	}
	return string(append(buf, '}')), nil
}

// empty reports whether there is nothing to write.
func (p *posting) empty() bool { return len(p.entries)+len(p.wallets)+len(p.grants) == 0 }

// write books the posting in a transaction and marks the customers whose mirror may have to follow.
func (t *tx) write(p *posting) error {
	if p.empty() {
		return nil
	}
	if _, err := t.ExecContext(t.ctx, postingSQL, p.args()...); err != nil {
		return err
	}
	t.moved(p)
	return nil
}

// moved marks the customers of a posting's wallets.
func (t *tx) moved(p *posting) {
	for _, w := range p.wallets {
		t.dirty = append(t.dirty, w.ref())
	}
}
