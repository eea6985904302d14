package handlers

import (
	"encoding/json"
	"net/http"
	"slices"

	"lockstep/ledger"
)

type grantJSON struct {
	Object      string          `json:"object"`
	ID          string          `json:"id"`
	Wallet      string          `json:"wallet"`
	Status      string          `json:"status"`
	Amount      string          `json:"amount"`
	Remaining   string          `json:"remaining"`
	Kind        string          `json:"kind"`
	Priority    int16           `json:"priority"`
	Covers      string          `json:"covers"`
	EffectiveAt string          `json:"effective_at"`
	ExpiresAt   *string         `json:"expires_at"`
	Reason      *string         `json:"reason"`
	Cost        *ledger.Money   `json:"cost"`
	Source      sourceJSON      `json:"source"`
	Metadata    json.RawMessage `json:"metadata"`
	CreatedAt   string          `json:"created_at"`
}

type sourceJSON struct {
	Type string  `json:"type"`
	ID   *string `json:"id"`
}

func newGrant(g *ledger.Grant) grantJSON {
	v := grantJSON{Object: "grant", ID: g.ID, Wallet: g.Wallet, Status: g.Status, Amount: ledger.FormatSteps(g.Amount, g.Scale),
		Remaining: ledger.FormatSteps(g.Remaining, g.Scale), Kind: g.Kind, Priority: g.Priority, Covers: g.Covers,
		EffectiveAt: stamp(g.EffectiveAt), ExpiresAt: optionalStamp(g.ExpiresAt), Reason: orNil(g.Reason),
		Source: sourceJSON{Type: g.SourceType}, Metadata: json.RawMessage(g.Metadata), CreatedAt: stamp(g.CreatedAt)}
	if g.SourceType != "api" {
		id := g.PaidBy()
		v.Source.ID = &id
	}
	if g.CostAmount != nil {
		v.Cost = &ledger.Money{Amount: *g.CostAmount, Currency: *g.CostCurrency}
	}
	return v
}

// costJSON is money as it is sent: an amount that is left out is not one of zero.
type costJSON struct {
	Amount   *int64 `json:"amount"`
	Currency string `json:"currency"`
}

func (c *costJSON) money() (*ledger.Money, error) {
	if c == nil {
		return nil, nil
	}
	if c.Amount == nil {
		return nil, missing("cost.amount")
	}
	return &ledger.Money{Amount: *c.Amount, Currency: c.Currency}, nil
}

func (s *Server) postGrant(c *call) error {
	var in struct {
		Customer       *string           `json:"customer"`
		Asset          *string           `json:"asset"`
		Wallet         *string           `json:"wallet"`
		Amount         *string           `json:"amount"`
		Kind           *string           `json:"kind"`
		Priority       *int16            `json:"priority"`
		Covers         *string           `json:"covers"`
		EffectiveAt    *string           `json:"effective_at"`
		ExpiresAt      *string           `json:"expires_at"`
		Reason         *string           `json:"reason"`
		Cost           *costJSON         `json:"cost"`
		Metadata       map[string]string `json:"metadata"`
		IdempotencyKey *string           `json:"idempotency_key"`
	}
	body, err := c.read(maxBody)
	if err != nil {
		return err
	}
	if err := decodeJSON(body, &in); err != nil {
		return err
	}
	if deref(in.Customer) == "" {
		return missing("customer")
	}
	if err := filled(field{"asset", in.Asset}, field{"wallet", in.Wallet}, field{"kind", in.Kind}, field{"covers", in.Covers}); err != nil {
		return err
	}
	want := ledger.GrantInput{Customer: *in.Customer, Asset: deref(in.Asset), Wallet: deref(in.Wallet), Kind: deref(in.Kind), Priority: ledger.DefaultPriority,
		Covers: deref(in.Covers), Reason: deref(in.Reason)}
	if want.Cost, err = in.Cost.money(); err != nil {
		return err
	}
	if in.Priority != nil {
		want.Priority = *in.Priority
	}
	if want.Amount, err = amount("amount", in.Amount); err != nil {
		return err
	}
	if want.EffectiveAt, err = when("effective_at", in.EffectiveAt); err != nil {
		return err
	}
	if want.ExpiresAt, err = when("expires_at", in.ExpiresAt); err != nil {
		return err
	}
	if want.Metadata, err = metadata(in.Metadata); err != nil {
		return err
	}
	if err := texts("customer", want.Customer, "asset", want.Asset, "wallet", want.Wallet, "reason", want.Reason); err != nil {
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
	in.IdempotencyKey = nil // in the header or in the body, it is the same request
	request, err := encode(in)
	if err != nil {
		return err
	}
	return s.once(c, key, ref.Bucket, []string{string(request)}, func(once ledger.Once) (int, any, error) {
		g, _, err := s.Ledger.Grant(c.ctx(), want, once)
		return http.StatusCreated, newGrant(&g), err
	})
}

func (s *Server) getGrant(c *call) error {
	g, err := s.Ledger.GrantByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newGrant(&g))
}

var grantStatuses = []string{"pending", "confirmed", "exhausted", "expired", "voided", "frozen"}

func (s *Server) listGrants(c *call) error {
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	q := c.query
	status := q.Get("status")
	if status != "" && !slices.Contains(grantStatuses, status) {
		return invalid("status", "status is pending, confirmed, exhausted, expired, voided or frozen")
	}
	ref, err := s.whose(c)
	if err != nil {
		return err
	}
	if _, err := s.Ledger.Wallets(c.ctx(), ref); err != nil { // turns those that are due
		return err
	}
	grants, err := s.Ledger.Grants(c.ctx(), ref, status, after, limit+1)
	if err != nil {
		return err
	}
	objects := make([]grantJSON, len(grants))
	for i := range grants {
		objects[i] = newGrant(&grants[i])
	}
	return c.reply(http.StatusOK, list(objects, limit))
}

// whose is the customer that a list is asked of; the zero Ref for everybody's.
func (s *Server) whose(c *call) (ledger.Ref, error) {
	if !c.query.Has("customer") {
		return ledger.Ref{}, nil
	}
	id := c.query.Get("customer")
	if id == "" {
		return ledger.Ref{}, missing("customer")
	}
	if err := texts("customer", id); err != nil {
		return ledger.Ref{}, err
	}
	cust, err := s.Ledger.Customer(c.ctx(), id)
	return cust.Ref, err
}

func (s *Server) voidGrant(c *call) error {
	var in struct {
		Reason *string `json:"reason"`
	}
	if err := c.decodeOptional(&in); err != nil {
		return err
	}
	if err := texts("reason", deref(in.Reason)); err != nil {
		return err
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	g, err := s.Ledger.GrantByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.once(c, key, g.Bucket, []string{deref(in.Reason)}, func(once ledger.Once) (int, any, error) {
		g, _, err := s.Ledger.VoidGrant(c.ctx(), g.ID, deref(in.Reason), once)
		return http.StatusOK, newGrant(&g), err
	})
}
