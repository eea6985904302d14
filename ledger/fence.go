package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lib/pq"
)

// A lane remembers the customers that it has written to or read: their wallets, and the grants that they burn next.
// While nobody else changes them it can decide a debit without asking the database, and write a batch with
// one statement. The fence is the wallet's version, which every other writer moves: the statement writes only
// where the version is still the remembered one, and where any is not it writes nothing at all, and the batch
// goes the long way, under row locks.
//
// Only what is sure is decided so. A refusal, a debit that calls for a refill or an alert, a turn that is due,
// a key that was used: all go the long way, since memory may be behind.

// remembered is a customer as a lane's last commit left it. A batch changes it in place: when the batch is not
// written, it is forgotten.
type remembered struct {
	wallets []*Wallet
	purses  []*purse // beside wallets; nil where nothing is known of a wallet's grants
}

// memoryLimit bounds each of a lane's two generations of customers, about a kilobyte each.
const memoryLimit = 16384

// memory is a lane's alone: no lock.
type memory struct {
	now, old map[Ref]*remembered
	doubted  map[string]int64  // wallets of a batch whose fence was lost, with the versions they were remembered by
	shared   map[Ref]time.Time // customers that somebody else wrote to: not remembered until then
}

// sharedFor is how long a customer goes the long way after another writer was seen: where several processes
// spend from one wallet, a fence would be lost each time.
const sharedFor = time.Second

func (m *memory) recall(ref Ref) *remembered {
	if r := m.now[ref]; r != nil {
		return r
	}
	r := m.old[ref]
	if r != nil {
		m.keep(ref, r)
	}
	return r
}

func (m *memory) keep(ref Ref, r *remembered) {
	if m.now == nil || len(m.now) >= memoryLimit {
		m.old, m.now = m.now, make(map[Ref]*remembered)
	}
	m.now[ref] = r
}

func (m *memory) forget(ref Ref) {
	delete(m.now, ref)
	delete(m.old, ref)
}

// doubt forgets the customers of a batch that was not written, until they have been read under their locks.
func (m *memory) doubt(wallets []*Wallet) {
	m.doubted = make(map[string]int64, len(wallets))
	for _, w := range wallets {
		m.doubted[w.ID] = w.Version
		m.forget(w.ref())
	}
}

// found hears which version a wallet has under its lock: where it is another than the one remembered, the
// customer has other writers.
func (m *memory) found(w *Wallet, now time.Time) {
	if version, ok := m.doubted[w.ID]; !ok || version == w.Version {
		return
	}
	if m.shared == nil || len(m.shared) >= memoryLimit {
		m.shared = make(map[Ref]time.Time)
	}
	m.shared[w.ref()] = now.Add(sharedFor)
}

// alone reports whether a customer has had no other writer lately.
func (m *memory) alone(ref Ref, now time.Time) bool {
	until, ok := m.shared[ref]
	if ok && !now.Before(until) {
		delete(m.shared, ref)
		return true
	}
	return !ok
}

// remember keeps what a commit under row locks left of the batch's customers, but for those that something
// other than debits changed.
func (ln *lane) remember(b *debitBatch) {
	for ref, wallets := range b.wallets {
		for _, w := range wallets {
			ln.memory.found(w, b.t.now)
		}
		r := &remembered{wallets: wallets, purses: make([]*purse, len(wallets))}
		sure := len(wallets) > 0 && ln.memory.alone(ref, b.t.now)
		for i, w := range wallets {
			sure = sure && !b.unsure[w]
			if pu := b.grants[w]; pu != nil {
				if pu.changed {
					w.Version++
				}
				pu.settle()
				r.purses[i] = pu
			}
		}
		if sure {
			ln.memory.keep(ref, r)
		} else {
			ln.memory.forget(ref)
		}
	}
}

// settle makes what a purse has after a commit what it had.
func (pu *purse) settle() {
	kept := pu.tranches[:0]
	for _, tr := range pu.tranches {
		if tr.free > 0 {
			tr.was = tr.free
			kept = append(kept, tr)
		}
	}
	pu.tranches, pu.changed, pu.mirrored = kept, false, false
}

// fenced books what of the batch can be decided from memory, in one statement that is its own transaction,
// and answers the calls that have to go the long way. When nobody can say whether the statement was carried
// out, its calls are answered with the error and none goes any way.
func (ln *lane) fenced(batch []*debitCall) (rest []*debitCall, err error) {
	// The connection first: once memory has been changed, it must be written or forgotten.
	conn, err := ln.connection()
	if err != nil {
		return batch, nil // the long way meets the same, and says so
	}
	if err := ln.learn(conn, batch); err != nil {
		return batch, nil // the same
	}
	b := newBatch(ln.l)
	p := newPosting(ln.l.Now())
	p.fenced = true
	var sure []*debitCall
	long := make(map[Ref]bool) // who goes the long way: a customer's debits are booked in the order in which they came
	for _, c := range batch {
		if pu := b.recall(ln, c); pu != nil && !long[c.ref] && c.certain(pu, p.now) {
			b.grants[c.wallets[0]] = pu
			b.decide(p, c)
			sure = append(sure, c)
		} else {
			rest = append(rest, c)
			long[c.ref] = true
		}
	}
	if len(p.entries) == 0 {
		return batch, nil
	}
	for w, pu := range b.grants {
		pu.post(p, w)
	}
	p.sort()
	if _, err := conn.post.ExecContext(context.Background(), p.args(conn.types)...); err != nil {
		ln.memory.doubt(p.wallets)
		var pe *pq.Error
		if errors.As(err, &pe) && ln.alone(err) {
			return batch, nil // the fence was lost, or a key had been used: nothing was written
		}
		ln.drop()
		for _, c := range sure {
			c.result = DebitResult{Err: fmt.Errorf("debit: %w", err)}
		}
		return rest, err
	}
	ln.written(b, p, sure)
	return rest, nil
}

// learn reads the customers of the batch that are not remembered, without a lock: the fence tells whether anything has
// changed since. Wallets and grants are of one statement, so what is known of either is of one moment.
func (ln *lane) learn(conn *laneConn, batch []*debitCall) error {
	var unknown []*debitCall
	now := ln.l.Now()
	for _, c := range batch {
		if !c.seen && ln.memory.recall(c.ref) == nil && ln.memory.alone(c.ref, now) {
			unknown = append(unknown, c)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	b := newBatch(ln.l)
	b.conn = conn
	if err := b.learn(unknown); err != nil {
		return ln.unlearned(err)
	}
	for ref, wallets := range b.wallets {
		if len(wallets) == 0 {
			continue
		}
		r := &remembered{wallets: wallets, purses: make([]*purse, len(wallets))}
		for i, w := range wallets {
			r.purses[i] = b.grants[w]
		}
		ln.memory.keep(ref, r)
	}
	return nil
}

// unlearned lets go of a connection that could not be read from.
func (ln *lane) unlearned(err error) error {
	var pe *pq.Error
	if !errors.As(err, &pe) {
		ln.drop()
	}
	return err
}

// written tells of what a fenced batch wrote.
func (ln *lane) written(b *debitBatch, p *posting, sure []*debitCall) {
	for _, w := range p.wallets {
		w.Version++
	}
	b.moved()
	for _, pu := range b.grants {
		pu.settle()
	}
	b.t.tell()
	ln.l.recent.booked(sure)
}

// recall finds the call's wallet in memory and answers what is known of its grants; nil when it is not there or
// anything about the call is doubtful.
func (b *debitBatch) recall(ln *lane, c *debitCall) *purse {
	c.result, c.wallets = DebitResult{}, nil
	if c.seen {
		return nil
	}
	r := ln.memory.recall(c.ref)
	if r == nil {
		return nil
	}
	fit, err := usageWallets(r.wallets, c.ref.ID, c.in.Asset)
	if err != nil || !fit[0].active() {
		return nil
	}
	w := fit[0]
	if c.amount, err = stepsOf(c.in.Amount, w.Scale, "amount", w.Asset); err != nil {
		return nil
	}
	c.wallets = fit[:1] // the first that has the credit pays, and only what is certain is decided here
	return r.purses[slices.Index(r.wallets, w)]
}

// certain reports whether the grants in the purse pay the debit in full, with nothing else to happen by it.
func (c *debitCall) certain(pu *purse, now time.Time) bool {
	w := c.wallets[0]
	left := w.Available() - c.amount
	if left < 0 || w.due(now) || w.calls(left) {
		return false
	}
	need := c.amount
	for _, tr := range pu.tranches {
		if need -= tr.free; need <= 0 {
			return true
		}
	}
	return false
}
