package main

import (
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ids are what differs from story to story in what is written of them.
var ids = regexp.MustCompile(`\b(cus|pi|ch|cs|in|sub|re|dp|pm|cn|cbtxn|grt|top|deb|hld|ent|wal|price)_[A-Za-z0-9_]{8,}`)

// account is a story's books in words: each customer's wallets, entries, grants and top-ups, and their balance in
// Stripe. Entries and grants are in the order of their words: events in another order may book in another order.
func (p *part) account() (lines []string, err error) {
	for _, name := range sortedKeys(p.people) {
		who := p.people[name]
		a, err := p.called("GET", "/v1/customers/"+who.id, nil)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("%s is %s", name, a.str("status")))
		if stripe := a.str("stripe_customer"); stripe != "" {
			c := p.s.customer(stripe)
			if a := p.s.w.call("GET", "/v1/customers/"+who.id+"/lockstep", nil); !c.Deleted && (a.str("state") != "in_step" || a.str("ledger") != fmt.Sprint(-c.Balance)) {
				return nil, fmt.Errorf("%s is not in step: %v; at Stripe %d", name, a, c.Balance)
			}
			lines = append(lines, fmt.Sprintf("%s: Stripe's balance is %d, deleted %v, a card is saved %v", name, c.Balance, c.Deleted, c.DefaultPaymentMethod != ""))
		}
		for _, read := range []struct{ what, query string }{
			{"wallet", `select concat_ws(' ', w.asset, w.total, w.held, w.pending, coalesce((select concat_ws(' ', 'rule', r.pause_reason, r.enabled, r.retried) from topup_rules r
				where r.bucket = w.bucket and r.wallet_id = w.id), '')) from wallets w where w.customer_id = $1`},
			{"entry", `select concat_ws(' ', w.asset, e.type, e.amount, e.held, e.reason) from entries e join wallets w on w.bucket = e.bucket and w.id = e.wallet_id where w.customer_id = $1`},
			{"top-up", `select concat_ws(' ', t.trigger, t.mode, t.status, t.amount) from topups t join wallets w on w.bucket = t.bucket and w.id = t.wallet_id where w.customer_id = $1`},
		} {
			var rows []string
			if err := p.s.w.g.ledger.DB().Select(&rows, read.query, who.id); err != nil {
				return nil, fmt.Errorf("%s: %w", read.what, err)
			}
			for i := range rows {
				rows[i] = fmt.Sprintf("%s: %s %s", name, read.what, ids.ReplaceAllString(rows[i], "${1}_…"))
			}
			slices.Sort(rows)
			lines = append(lines, rows...)
		}
		var grants []string
		list, err := p.called("GET", "/v1/grants?limit=100&customer="+who.id, nil)
		if err != nil {
			return nil, err
		}
		for _, g := range list.list() {
			grants = append(grants, fmt.Sprintf("%s: grant of %s, %s left, %s, %s, for %s, priority %s, %s, cost %s, expires %v", name, g.str("amount"), g.str("remaining"), g.str("status"),
				g.str("kind"), g.str("covers"), g.str("priority"), ids.ReplaceAllString(g.str("reason"), "${1}_…"), g.str("cost.amount"), g.str("expires_at") != ""))
		}
		slices.Sort(grants)
		lines = append(lines, grants...)
	}
	return lines, nil
}

// differences are the lines that only one of two accounts has.
func differences(want, got []string) string {
	var b strings.Builder
	for _, side := range []struct {
		sign        string
		lines, less []string
	}{{"-", want, got}, {"+", got, want}} {
		rest := slices.Clone(side.less)
		for _, line := range side.lines {
			if i := slices.Index(rest, line); i >= 0 {
				rest = slices.Delete(rest, i, i+1)
				continue
			}
			b.WriteString("\n\t" + side.sign + " " + line)
		}
	}
	return b.String()
}

// revenue is the report since a world began: by kind, sold, earned, refunded, breakage and what is left; and its rows, of one
// of so many stories that are the same.
func (s *scene) revenue() (byKind map[string][5]*big.Rat, rows []string, err error) {
	path := "/v1/reports/revenue?from=" + scenariosBegin.Add(-time.Hour).Format(time.RFC3339) + "&to=" + s.w.clock.now().Add(time.Hour).UTC().Format(time.RFC3339)
	a := s.w.call("GET", path, nil)
	if a.status != 200 {
		return nil, nil, fmt.Errorf("the revenue report: %v", a)
	}
	byKind = map[string][5]*big.Rat{}
	list, _ := a.at("rows").([]any)
	for _, v := range list {
		m, _ := v.(map[string]any)
		row := answer{m: m}
		kind := byKind[row.str("kind")]
		line := []string{row.str("period"), row.str("currency"), row.str("kind")}
		for i, name := range []string{"sold", "earned", "refunded", "breakage", "closing", "opening"} {
			n, ok := new(big.Rat).SetString(row.str(name))
			if !ok {
				return nil, nil, fmt.Errorf("the revenue report: %v", a)
			}
			n.Quo(n, big.NewRat(int64(len(s.parts)), 1))
			line = append(line, name, n.FloatString(8))
			switch {
			case name == "opening":
			case name == "closing" || kind[i] == nil:
				kind[i] = n
			default:
				kind[i] = new(big.Rat).Add(kind[i], n)
			}
		}
		byKind[row.str("kind")] = kind
		rows = append(rows, strings.Join(line, " "))
	}
	slices.Sort(rows)
	return byKind, rows, nil
}

// compare holds the revenue report against a scenario's books.
func (sc *scenario) compare(byKind map[string][5]*big.Rat) (wrong []string) {
	for _, b := range sc.books {
		got, found := byKind[b.kind]
		delete(byKind, b.kind)
		for i, want := range []string{b.sold, b.earned, b.refunded, b.breakage, b.closed} {
			have := "0.00"
			if found {
				have = got[i].FloatString(6)
			}
			w, _ := new(big.Rat).SetString(want)
			h, _ := new(big.Rat).SetString(have)
			if w.Cmp(h) != 0 {
				wrong = append(wrong, fmt.Sprintf("%s: %s of %s credit is %s, not %s", b.at, []string{"sold", "earned", "refunded", "breakage", "left"}[i], b.kind, have, want))
			}
		}
	}
	for kind, got := range byKind {
		for _, n := range got {
			if n.Sign() != 0 {
				wrong = append(wrong, fmt.Sprintf("%s: there are books of %s credit too: sold %s, earned %s, refunded %s, breakage %s, left %s", sc.at, kind,
					got[0].FloatString(2), got[1].FloatString(2), got[2].FloatString(2), got[3].FloatString(2), got[4].FloatString(2)))
				break
			}
		}
	}
	return wrong
}
