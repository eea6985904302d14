package handlers

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"lockstep/ledger"
)

type holdJSON struct {
	Object    string          `json:"object"`
	ID        string          `json:"id"`
	Customer  string          `json:"customer"`
	Wallet    string          `json:"wallet"`
	Status    string          `json:"status"`
	Amount    string          `json:"amount"`
	Captured  string          `json:"captured"`
	Remaining string          `json:"remaining"`
	ExpiresAt string          `json:"expires_at"`
	Metadata  json.RawMessage `json:"metadata"`
	CreatedAt string          `json:"created_at"`
}

func newHold(h *ledger.Hold) holdJSON {
	return holdJSON{Object: "hold", ID: h.ID, Customer: h.Customer, Wallet: h.Wallet, Status: h.Status, Amount: ledger.FormatSteps(h.Amount, h.Scale),
		Captured: ledger.FormatSteps(h.Captured, h.Scale), Remaining: ledger.FormatSteps(h.Remaining(), h.Scale), ExpiresAt: stamp(h.ExpiresAt),
		Metadata: json.RawMessage(h.Metadata), CreatedAt: stamp(h.CreatedAt)}
}

// lifetime reads how long a hold is to live, in seconds.
func lifetime(seconds *int64) (time.Duration, error) {
	if seconds == nil {
		return ledger.DefaultHold, nil
	}
	if most := int64(ledger.MaxHold / time.Second); *seconds < 1 || *seconds > most {
		return 0, invalid("expires_in", "expires_in is 1 to "+strconv.FormatInt(most, 10)+" seconds")
	}
	return time.Duration(*seconds) * time.Second, nil
}

func (s *Server) postHold(c *call) error {
	var in struct {
		Customer       *string           `json:"customer"`
		Asset          *string           `json:"asset"`
		Amount         *string           `json:"amount"`
		ExpiresIn      *int64            `json:"expires_in"`
		Metadata       map[string]string `json:"metadata"`
		IdempotencyKey *string           `json:"idempotency_key"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if deref(in.Customer) == "" {
		return missing("customer")
	}
	if err := filled(field{"asset", in.Asset}); err != nil {
		return err
	}
	want := ledger.HoldInput{Customer: *in.Customer, Asset: deref(in.Asset)}
	var err error
	if want.Amount, err = amount("amount", in.Amount); err != nil {
		return err
	}
	if want.ExpiresIn, err = lifetime(in.ExpiresIn); err != nil {
		return err
	}
	if want.Metadata, err = metadata(in.Metadata); err != nil {
		return err
	}
	if err := texts("customer", want.Customer, "asset", want.Asset); err != nil {
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
	request := []string{want.Customer, want.Asset, want.Amount.String(), want.ExpiresIn.String(), want.Metadata}
	return s.once(c, key, ref.Bucket, request, func(once ledger.Once) (int, any, error) {
		h, _, err := s.Ledger.CreateHold(c.ctx(), want, once)
		return http.StatusCreated, newHold(&h), err
	})
}

func (s *Server) getHold(c *call) error {
	h, err := s.Ledger.HoldByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newHold(&h))
}

// changeHold answers a call on one hold under the key in its header.
func (s *Server) changeHold(c *call, request []string, change func(id string, once ledger.Once) (ledger.Hold, error)) error {
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	h, err := s.Ledger.HoldByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.once(c, key, h.Bucket, request, func(once ledger.Once) (int, any, error) {
		h, err := change(h.ID, once)
		return http.StatusOK, newHold(&h), err
	})
}

func (s *Server) captureHold(c *call) error {
	var in struct {
		Amount   *string `json:"amount"`
		Final    bool    `json:"final"`
		OnExcess *string `json:"on_excess"`
	}
	if err := c.decodeOptional(&in); err != nil {
		return err
	}
	err := filled(field{"on_excess", in.OnExcess})
	if err != nil {
		return err
	}
	want := ledger.CaptureInput{Final: in.Final, OnExcess: deref(in.OnExcess)}
	if want.Amount, err = optionalAmount("amount", in.Amount); err != nil {
		return err
	}
	return s.changeHold(c, []string{deref(in.Amount), strconv.FormatBool(in.Final), want.OnExcess}, func(id string, once ledger.Once) (ledger.Hold, error) {
		return s.Ledger.CaptureHold(c.ctx(), id, want, once)
	})
}

func (s *Server) extendHold(c *call) error {
	var in struct {
		ExpiresIn *int64 `json:"expires_in"`
	}
	if err := c.decodeOptional(&in); err != nil {
		return err
	}
	by, err := lifetime(in.ExpiresIn)
	if err != nil {
		return err
	}
	return s.changeHold(c, []string{by.String()}, func(id string, once ledger.Once) (ledger.Hold, error) {
		return s.Ledger.ExtendHold(c.ctx(), id, by, once)
	})
}

func (s *Server) releaseHold(c *call) error {
	if err := c.decodeOptional(&struct{}{}); err != nil {
		return err
	}
	return s.changeHold(c, nil, func(id string, once ledger.Once) (ledger.Hold, error) {
		return s.Ledger.ReleaseHold(c.ctx(), id, once)
	})
}

type reversalJSON struct {
	Object    string      `json:"object"`
	ID        string      `json:"id"`
	Debit     string      `json:"debit"`
	Amount    string      `json:"amount"`
	Parts     []partJSON  `json:"parts"`
	Balance   balanceJSON `json:"balance"`
	Reason    string      `json:"reason"`
	CreatedAt string      `json:"created_at"`
}

func (s *Server) reverseDebit(c *call) error {
	var in struct {
		Amount *string `json:"amount"`
		Reason *string `json:"reason"`
	}
	if err := c.decodeOptional(&in); err != nil {
		return err
	}
	back, err := optionalAmount("amount", in.Amount)
	if err != nil {
		return err
	}
	if err := texts("reason", deref(in.Reason)); err != nil {
		return err
	}
	key, err := c.key(nil)
	if err != nil {
		return err
	}
	d, err := s.Ledger.DebitByID(c.ctx(), c.r.PathValue("id"))
	if err != nil {
		return err
	}
	ref, err := s.Ledger.Resolve(c.ctx(), d.Customer)
	if err != nil {
		return err
	}
	return s.once(c, key, ref.Bucket, []string{deref(in.Amount), deref(in.Reason)}, func(once ledger.Once) (int, any, error) {
		r, _, err := s.Ledger.Reverse(c.ctx(), d.ID, back, deref(in.Reason), once)
		return http.StatusOK, reversalJSON{"reversal", r.ID, r.Debit, ledger.FormatSteps(r.Amount, r.Scale), newParts(r.Parts, r.Scale),
			newBalance(r.Balance, r.Scale), r.Reason, stamp(r.CreatedAt)}, err
	})
}
