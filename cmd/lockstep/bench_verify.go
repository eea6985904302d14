package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"lockstep/ledger"
)

// benchBooks is what the ledger says of what was acknowledged.
type benchBooks struct {
	Acknowledged int       `json:"acknowledged"`
	Entries      int       `json:"entries"`  // debits and captures in the ledger
	Missing      int       `json:"missing"`  // acknowledged, and not in the ledger
	Unasked      int       `json:"unasked"`  // in the ledger, and nobody sent it: another key, customer or amount
	Unsure       int       `json:"unsure"`   // in the ledger, sent, and never acknowledged, which may be
	Total        int64     `json:"steps"`    // that the debits took, in steps of usd
	Findings     int       `json:"findings"` // invariants broken
	Mix          *mixBooks `json:"mix,omitempty"`
	firstWrong   string
	described    string
}

// err is what is wrong with the books.
func (b *benchBooks) err() error {
	switch {
	case b.Missing > 0 || b.Unasked > 0:
		return fmt.Errorf("the ledger is not what was acknowledged: %d events are missing, %d were never sent (%s)",
			b.Missing, b.Unasked, b.firstWrong)
	case b.Findings > 0:
		return fmt.Errorf("the books are wrong:\n%s", b.described)
	}
	return nil
}

func (b *benchBooks) wrong(count *int, format string, args ...any) {
	*count++
	if b.firstWrong == "" {
		b.firstWrong = fmt.Sprintf(format, args...)
	}
}

// verifyBench compares every debit in the ledger with what the load was told, and checks every invariant.
// The gateway must have ended.
func verifyBench(ctx context.Context, l *ledger.Ledger, load *benchLoad, mix *benchMix) (*benchBooks, error) {
	b := &benchBooks{Acknowledged: load.acknowledged()}
	if err := b.compare(ctx, l, load); err != nil {
		return b, err
	}
	findings, err := l.Check(ctx)
	if err != nil {
		return b, err
	}
	b.Findings, b.described = len(findings), ledger.Describe(findings)
	if mix != nil {
		b.Mix, err = mix.verify(ctx)
	}
	return b, err
}

// compare reads all debits, and all captures of holds, whose keys are those of their holds. The database refuses a key that is there twice, but that is not to be relied
// on here: each event is ticked off.
func (b *benchBooks) compare(ctx context.Context, l *ledger.Ledger, load *benchLoad) error {
	booked := make([][]bool, len(load.workers))
	for i, w := range load.workers {
		booked[i] = make([]bool, w.issued)
	}
	if _, err := l.DB().ExecContext(ctx, `analyze entries, wallets, answers`); err != nil { // the join is of millions
		return err
	}
	rows, err := l.DB().QueryContext(ctx, `select coalesce(e.key, a.key, ''), w.customer_id, e.amount
		from entries e join wallets w on w.bucket = e.bucket and w.id = e.wallet_id
		left join answers a on a.bucket = e.bucket and a.refers_to = e.refers_to and e.type = 'capture'
		where e.type = 'debit' or e.type = 'capture' and e.refers_to is not null`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key, customer string
		var amount int64
		if err := rows.Scan(&key, &customer, &amount); err != nil {
			return err
		}
		b.Entries++
		b.Total -= amount
		w, n, ok := load.event(key)
		switch {
		case !ok || booked[w.id][n]:
			b.wrong(&b.Unasked, "key %q", key)
			continue
		case amount != -benchAmountSteps || customer != load.customer(w, n):
			b.wrong(&b.Unasked, "key %q took %d from %s", key, amount, customer)
		}
		booked[w.id][n] = true
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, w := range load.workers {
		b.tick(w, booked[w.id])
	}
	return nil
}

// tick counts what is missing of a worker's events.
func (b *benchBooks) tick(w *benchWorker, booked []bool) {
	unsure := w.unsure
	for n, there := range booked {
		for len(unsure) > 0 && n >= unsure[0].to {
			unsure = unsure[1:]
		}
		maybe := len(unsure) > 0 && n >= unsure[0].from
		switch {
		case maybe && there:
			b.Unsure++
		case !maybe && !there:
			b.wrong(&b.Missing, "key %q", appendBenchKey(nil, benchKey(w.id, n), w.id, n))
		}
	}
}

// event finds the event that a key was made for, if any was.
func (l *benchLoad) event(key string) (w *benchWorker, n int, ok bool) {
	parts := strings.Split(key, "-")
	if len(parts) != 3 {
		return nil, 0, false
	}
	id, err := strconv.Atoi(parts[1])
	if err != nil || id < 0 || id >= len(l.workers) {
		return nil, 0, false
	}
	w = l.workers[id]
	if n, err = strconv.Atoi(parts[2]); err != nil || n < 0 || n >= w.issued {
		return nil, 0, false
	}
	return w, n, string(appendBenchKey(nil, benchKey(id, n), id, n)) == key
}

// customer is whom a worker's event was for.
func (l *benchLoad) customer(w *benchWorker, n int) string {
	return string(appendBenchCustomer(nil, l.pick(w.c, benchKey(w.id, n))))
}
