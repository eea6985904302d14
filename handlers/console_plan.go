package handlers

import (
	"context"
	"strings"

	"lockstep/ledger"
)

// rehearse says what something would do to a customer, by doing it and taking it back.
func (s *Server) rehearse(v *visit, ref ledger.Ref, do func(context.Context) error) (plan, error) {
	seen, err := s.Ledger.Rehearse(v.ctx(), ref, do)
	if err != nil {
		return plan{}, err
	}
	return s.planOf(v, seen)
}

// planOf writes what a rehearsal has shown.
func (s *Server) planOf(v *visit, seen ledger.Rehearsal) (p plan, err error) {
	for i := range seen.After.Wallets {
		after := &seen.After.Wallets[i]
		var before ledger.Wallet
		for _, w := range seen.Before.Wallets {
			if w.ID == after.ID {
				before = w
			}
		}
		planWallet(v, &p, &before, after)
		planRule(v, &p, &seen, after)
		if err := s.planGrants(v, &p, seen.Entries, after); err != nil {
			return p, err
		}
	}
	if seen.After.Currency == "" {
		return p, nil
	}
	was, is := v.locale.Money(seen.Before.Stripe, seen.After.Currency), v.locale.Money(seen.After.Stripe, seen.After.Currency)
	if was == is {
		p.say("The customer's credit balance in Stripe stays at " + is + ".")
	} else {
		p.move("Credit balance in Stripe, which follows within seconds", was, is)
	}
	return p, nil
}

func planWallet(v *visit, p *plan, before, after *ledger.Wallet) {
	for _, f := range []struct {
		what    string
		was, is int64
	}{{"Available", before.Available(), after.Available()}, {"Held", before.Held, after.Held}, {"On its way", before.Pending, after.Pending}, {"Owed", before.Debt, after.Debt}} {
		if f.was != f.is {
			p.move(f.what+", "+after.Asset, v.locale.Amount(f.was, after.Scale, after.Asset), v.locale.Amount(f.is, after.Scale, after.Asset))
		}
	}
	if before.Barred != after.Barred {
		spends := map[bool]string{false: "can be spent", true: "frozen"}
		p.move("Wallet of "+after.Asset, spends[before.Barred], spends[after.Barred])
	}
}

func planRule(v *visit, p *plan, seen *ledger.Rehearsal, w *ledger.Wallet) {
	state := func(of map[string]ledger.Rule) string {
		r, found := of[w.ID]
		switch {
		case !found || !r.Enabled:
			return "off"
		case r.PauseReason != nil:
			return "paused: " + strings.ReplaceAll(*r.PauseReason, "_", " ")
		}
		return "on"
	}
	if was, is := state(seen.Before.Rules), state(seen.After.Rules); was != is {
		p.move("Automatic top-up, "+w.Asset, was, is)
	}
	if top, found := seen.After.InFlight[w.ID]; found && seen.Before.InFlight[w.ID].ID == "" {
		who := "By hand"
		if top.Trigger == "auto" {
			who = "By the wallet's rule, at once"
		}
		p.say(who + ": " + v.locale.Money(top.Charge, top.Currency) + " is charged for " + v.locale.Amount(top.Amount, w.Scale, w.Asset) + ".")
	}
}

// planGrants says what becomes of each grant, from the parts of the entries that would be booked.
func (s *Server) planGrants(v *visit, p *plan, entries []ledger.Entry, w *ledger.Wallet) error {
	var order []string
	change := map[string]int64{}
	for _, e := range entries {
		if e.Wallet != w.ID {
			continue
		}
		for _, part := range e.Parts {
			if _, known := change[part.Grant]; !known {
				order = append(order, part.Grant)
			}
			change[part.Grant] += part.Amount
		}
	}
	amount := func(n int64) string { return v.locale.Amount(n, w.Scale, w.Asset) }
	for i, id := range order {
		if i == maxBurnShown {
			p.say("And more grants.")
			break
		}
		if !strings.HasPrefix(id, "grt_") {
			continue // debt, which the wallet says
		}
		g, err := s.Ledger.GrantByID(v.ctx(), id)
		if ledger.IsCode(err, ledger.CodeNotFound) {
			p.move("A new grant", "none", amount(change[id]))
			continue
		}
		if err != nil {
			return err
		}
		if change[id] != 0 {
			p.move("Grant "+id+" ("+g.Kind+")", amount(g.Remaining), amount(g.Remaining+change[id]))
		}
	}
	return nil
}
