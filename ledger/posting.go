package ledger

import (
	"bytes"
	"cmp"
	"database/sql/driver"
	"slices"
	"strconv"
	"strings"
	"time"
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

// Feature is the feature of the rate card that a debit was rated by; "" of any other entry.
func (e *Entry) Feature() string {
	if e.Rated == "" {
		return ""
	}
	feature, _, _ := ratedBy(e.Rated)
	return feature
}

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
	if e.Type == "debit" {
		e.ID = debitEntryID(w, at)
	}
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

// writeSQL writes a posting: entries, grants and wallets in one statement, one round trip. The arrays stand in
// subqueries so that PostgreSQL does not plan anew for each, as it would for what it knows the length of.
const writeSQL = `
with e as (
	insert into entries (bucket, wallet_id, seq, id, type, amount, held, balance_after, held_after, pending_after, used_after,
		parts, reason, refers_to, key, request, metadata, rated, seal, created_at)
	select u.bucket, u.wallet_id, u.seq, u.id, u.type, u.amount, u.held, u.balance_after, u.held_after, u.pending_after, u.used_after,
		u.parts, u.reason, u.refers_to, u.key, u.request, u.metadata, u.rated, u.seal, u.created_at
	from unnest((select $1::posted_entry[])) u
), g as (
	update grants g set remaining = u.remaining, held = u.held, status = u.status, in_force = u.in_force,
		live = u.in_force and u.status = 'confirmed' and u.remaining > 0
	from unnest((select $2::posted_grant[])) u where g.bucket = u.bucket and g.id = u.id
), w as (
	update wallets w set total = u.total, held = u.held, pending = u.pending, debt = u.debt, stripe_debt = u.stripe_debt,
		seq = u.seq, version = w.version + 1, entered_at = u.entered_at, used = u.used, seal = u.seal
	from unnest((select $3::posted_wallet[])) u where w.bucket = u.bucket and w.id = u.id and (u.version is null or w.version = u.version)
	returning 1
)
select 1 / case when (select count(*) from w) = $4::bigint`

// postingSQL writes a posting whose wallets are locked.
const postingSQL = writeSQL + ` then 1 else 0 end`

// debitsSQL writes a posting of debits, under keys. Where a wallet's version is no more what it must be, or another
// kind of call has answered a key, the division by zero undoes the whole statement. (That a debit used the key is what
// the unique index is for.)
const debitsSQL = writeSQL + ` and not exists (
	select from unnest((select $1::posted_entry[])) u join answers a on a.bucket = u.bucket and a.key = u.key) then 1 else 0 end`

// args are the parameters of either.
func (p *posting) args(types *rowTypes) []any {
	entries := rowsOf(types.Entry, len(p.entries), 480)
	for i := range p.entries {
		e := &p.entries[i]
		entries.row(20)
		entries.int2(e.Bucket)
		entries.text(e.Wallet)
		entries.int8(e.Seq)
		entries.text(e.ID)
		entries.text(e.Type)
		entries.int8(e.Amount, e.Held, e.BalanceAfter, e.HeldAfter, e.PendingAfter, e.UsedAfter)
		entries.parts(e.Parts)
		entries.text(e.Reason)
		entries.orNull(e.RefersTo)
		entries.orNull(e.Key)
		if e.Request == 0 {
			entries.null(oidInt8)
		} else {
			entries.int8(e.Request)
		}
		entries.orNull(e.Metadata)
		entries.orNull(e.Rated)
		entries.bytes(e.Seal)
		entries.time(e.CreatedAt)
	}
	grants := rowsOf(types.Grant, len(p.grants), 128)
	for _, g := range p.grants {
		grants.row(6)
		grants.int2(g.bucket)
		grants.text(g.id)
		grants.int8(g.remaining, g.held)
		grants.text(g.status)
		grants.bool(g.inForce)
	}
	wallets := rowsOf(types.Wallet, len(p.wallets), 256)
	for _, w := range p.wallets {
		wallets.row(12)
		wallets.int2(w.Bucket)
		wallets.text(w.ID)
		if p.fenced {
			wallets.int8(w.Version)
		} else {
			wallets.null(oidInt8)
		}
		wallets.int8(w.Total, w.Held, w.Pending, w.Debt, w.StripeDebt, w.Seq, w.Used)
		wallets.bytes(w.Seal)
		wallets.time(w.EnteredAt)
	}
	return []any{entries.done(), grants.done(), wallets.done(), len(p.wallets)}
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

// empty reports whether there is nothing to write.
func (p *posting) empty() bool { return len(p.entries)+len(p.wallets)+len(p.grants) == 0 }

// write books the posting in a transaction and marks the customers whose mirror may have to follow.
func (t *tx) write(p *posting) error {
	if p.empty() {
		return nil
	}
	types, err := t.l.rowTypes(t.ctx, t)
	if err != nil {
		return err
	}
	if _, err := t.post(p.args(types)...); err != nil {
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
