package handlers

import (
	"encoding/json"
	"net/http"
	"slices"

	"lockstep/ledger"
)

type balanceJSON struct {
	Available string `json:"available"`
	Held      string `json:"held"`
	Pending   string `json:"pending"`
	Total     string `json:"total"`
}

func newBalance(b ledger.Balance, scale int16) balanceJSON {
	return balanceJSON{ledger.FormatSteps(b.Available, scale), ledger.FormatSteps(b.Held, scale),
		ledger.FormatSteps(b.Pending, scale), ledger.FormatSteps(b.Total, scale)}
}

type walletJSON struct {
	walletBrief
	AutoTopup *ruleJSON   `json:"auto_topup"`
	Alerts    []alertJSON `json:"alerts"`
	CreatedAt string      `json:"created_at"`
}

func (s *Server) walletJSON(c *call, w *ledger.Wallet) (walletJSON, error) {
	v := walletJSON{walletBrief: newWallet(w), CreatedAt: stamp(w.CreatedAt)}
	alerts, err := s.Ledger.AlertsOf(c.ctx(), w)
	if err != nil {
		return walletJSON{}, err
	}
	v.Alerts = newAlerts(alerts, w.Scale)
	rule, found, err := s.Ledger.RuleOf(c.ctx(), w)
	if err != nil {
		return walletJSON{}, err
	}
	if found {
		v.AutoTopup = newRule(&rule)
	}
	return v, nil
}

func (s *Server) postWallet(c *call) error {
	var in struct {
		Asset          *string   `json:"asset"`
		Scope          *string   `json:"scope"`
		OverdraftLimit *string   `json:"overdraft_limit"`
		Alerts         []alertIn `json:"alerts"`
		IdempotencyKey *string   `json:"idempotency_key"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if deref(in.Asset) == "" {
		return missing("asset")
	}
	if err := filled(field{"scope", in.Scope}); err != nil {
		return err
	}
	want := ledger.WalletInput{Customer: c.r.PathValue("customer"), Asset: *in.Asset, Scope: deref(in.Scope)}
	if err := texts("customer", want.Customer, "asset", want.Asset, "scope", want.Scope); err != nil {
		return err
	}
	if in.OverdraftLimit != nil {
		var err error
		if want.Overdraft, err = amount("overdraft_limit", in.OverdraftLimit); err != nil {
			return err
		}
	}
	var err error
	if want.Alerts, err = alerts(in.Alerts); err != nil {
		return err
	}
	key, err := c.key(in.IdempotencyKey)
	if err != nil {
		return err
	}
	ref, err := s.Ledger.Resolve(c.ctx(), want.Customer)
	if err != nil {
		return err
	}
	asked, err := encode(in.Alerts)
	if err != nil {
		return err
	}
	return s.once(c, key, ref.Bucket, []string{want.Asset, want.Scope, want.Overdraft.String(), string(asked)}, func(once ledger.Once) (int, any, error) {
		w, _, err := s.Ledger.CreateWallet(c.ctx(), want, once)
		if err != nil {
			return 0, nil, err
		}
		v, err := s.walletJSON(c, &w)
		return http.StatusCreated, v, err
	})
}

func (s *Server) listWallets(c *call) error {
	cust, err := s.customer(c)
	if err != nil {
		return err
	}
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	wallets, err := s.Ledger.Wallets(c.ctx(), cust.Ref)
	if err != nil {
		return err
	}
	slices.Reverse(wallets) // newest first, as every list
	wallets, err = pageOf(wallets, func(w *ledger.Wallet) string { return w.ID }, limit, after)
	if err != nil {
		return err
	}
	objects := make([]walletJSON, len(wallets))
	for i := range wallets {
		if objects[i], err = s.walletJSON(c, &wallets[i]); err != nil {
			return err
		}
	}
	return c.reply(http.StatusOK, list(objects, limit))
}

// wallet is the one in the path.
func (s *Server) wallet(c *call) (ledger.Wallet, error) {
	return s.Ledger.Wallet(c.ctx(), c.r.PathValue("id"))
}

func (s *Server) getWallet(c *call) error {
	w, err := s.wallet(c)
	if err != nil {
		return err
	}
	return s.replyWallet(c, &w)
}

func (s *Server) replyWallet(c *call, w *ledger.Wallet) error {
	v, err := s.walletJSON(c, w)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, v)
}

func (s *Server) getBalance(c *call) error {
	w, err := s.wallet(c)
	if err != nil {
		return err
	}
	at, b, seq := s.Ledger.Now(), w.Balance(), w.Seq
	if asked := c.query.Get("at"); c.query.Has("at") {
		t, err := when("at", &asked)
		if err != nil {
			return err
		}
		if t.Before(at) {
			at = *t
			if b, seq, err = s.Ledger.BalanceAt(c.ctx(), &w, at); err != nil {
				return err
			}
		}
	}
	return c.reply(http.StatusOK, struct {
		Object string `json:"object"`
		Wallet string `json:"wallet"`
		At     string `json:"at"`
		Seq    int64  `json:"seq"`
		balanceJSON
	}{"balance", w.ID, stamp(at), seq, newBalance(b, w.Scale)})
}

type partJSON struct {
	Grant  *string `json:"grant"`
	Amount string  `json:"amount"`
}

// newParts shows parts; a part of no grant is debt.
func newParts(parts ledger.Parts, scale int16) []partJSON {
	list := make([]partJSON, len(parts))
	for i, p := range parts {
		list[i] = partJSON{nil, ledger.FormatSteps(p.Amount, scale)}
		if p.Grant != "" && p.Grant != "stripe" {
			list[i].Grant = &parts[i].Grant
		}
	}
	return list
}

type entryJSON struct {
	Object       string          `json:"object"`
	ID           string          `json:"id"`
	Seq          int64           `json:"seq"`
	Type         string          `json:"type"`
	Amount       string          `json:"amount"`
	Held         *string         `json:"held,omitempty"`
	BalanceAfter string          `json:"balance_after"`
	Reason       string          `json:"reason"`
	Parts        []partJSON      `json:"parts"`
	RefersTo     *string         `json:"refers_to"`
	Stripe       *atStripeJSON   `json:"stripe,omitempty"`
	Metadata     json.RawMessage `json:"metadata,omitempty"`
	CreatedAt    string          `json:"created_at"`
}

// atStripeJSON names what an entry is about at Stripe.
type atStripeJSON struct {
	BalanceTransaction *string `json:"balance_transaction"`
	Invoice            *string `json:"invoice"`
	CreditNote         *string `json:"credit_note"`
}

func (s *Server) listEntries(c *call) error {
	w, err := s.wallet(c)
	if err != nil {
		return err
	}
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	entries, err := s.Ledger.Entries(c.ctx(), &w, after, limit+1)
	if err != nil {
		return err
	}
	objects := make([]entryJSON, len(entries))
	for i, e := range entries {
		o := entryJSON{Object: "entry", ID: e.ID, Seq: e.Seq, Type: e.Type, Amount: ledger.FormatSteps(e.Amount, w.Scale),
			BalanceAfter: ledger.FormatSteps(e.BalanceAfter, w.Scale), Reason: e.Reason, Parts: newParts(e.Parts, w.Scale),
			RefersTo: orNil(e.RefersTo), Metadata: json.RawMessage(e.Metadata), CreatedAt: stamp(e.CreatedAt)}
		if e.Type == "debit" {
			id := "deb_" + e.ID[len("ent_"):]
			o.RefersTo = &id
		}
		if e.Held != 0 {
			held := ledger.FormatSteps(e.Held, w.Scale)
			o.Held = &held
		}
		if at := e.AtStripe; at != nil {
			o.Stripe = &atStripeJSON{orNil(at.Transaction), orNil(at.Invoice), orNil(at.CreditNote)}
		}
		objects[i] = o
	}
	return c.reply(http.StatusOK, list(objects, limit))
}

func (s *Server) patchWallet(c *call) error {
	var in struct {
		OverdraftLimit *string    `json:"overdraft_limit"`
		Status         *string    `json:"status"`
		Alerts         *[]alertIn `json:"alerts"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	change := ledger.WalletChange{Status: in.Status}
	var err error
	if change.Overdraft, err = optionalAmount("overdraft_limit", in.OverdraftLimit); err != nil {
		return err
	}
	if in.Alerts != nil {
		set, err := alerts(*in.Alerts)
		if err != nil {
			return err
		}
		change.Alerts = &set
	}
	w, err := s.Ledger.ChangeWallet(c.ctx(), c.r.PathValue("id"), change)
	if err != nil {
		return err
	}
	return s.replyWallet(c, &w)
}
