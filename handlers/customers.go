package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/mail"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

type customerJSON struct {
	Object         string          `json:"object"`
	ID             string          `json:"id"`
	StripeCustomer *string         `json:"stripe_customer"`
	Email          *string         `json:"email"`
	Name           *string         `json:"name"`
	Currency       *string         `json:"currency"`
	Status         string          `json:"status"`
	Wallets        []walletJSON    `json:"wallets"`
	Metadata       json.RawMessage `json:"metadata"`
	CreatedAt      string          `json:"created_at"`
}

func (s *Server) customerJSON(c *call, cust ledger.Customer, wallets []ledger.Wallet) (customerJSON, error) {
	v := customerJSON{Object: "customer", ID: cust.ID, StripeCustomer: orNil(cust.StripeCustomer), Email: orNil(cust.Email),
		Name: orNil(cust.Name), Currency: orNil(cust.Currency), Status: cust.Status, Metadata: json.RawMessage(cust.Metadata),
		CreatedAt: stamp(cust.CreatedAt), Wallets: make([]walletJSON, 0, len(wallets))}
	for i := range wallets {
		w, err := s.walletJSON(c, &wallets[i])
		if err != nil {
			return customerJSON{}, err
		}
		v.Wallets = append(v.Wallets, w)
	}
	return v, nil
}

func (s *Server) postCustomer(c *call) error {
	var in struct {
		ID             *string           `json:"id"`
		Email          *string           `json:"email"`
		Name           *string           `json:"name"`
		StripeCustomer *string           `json:"stripe_customer"`
		Metadata       map[string]string `json:"metadata"`
		IdempotencyKey *string           `json:"idempotency_key"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.ID == nil {
		return missing("id")
	}
	if err := filled(field{"stripe_customer", in.StripeCustomer}); err != nil {
		return err
	}
	if err := ledger.CheckCustomerID(*in.ID); err != nil {
		return err
	}
	meta, err := metadata(in.Metadata)
	if err != nil {
		return err
	}
	if in.Email != nil && *in.Email != "" {
		if a, err := mail.ParseAddress(*in.Email); err != nil || a.Address != *in.Email {
			return invalid("email", "email is not an email address")
		}
	}
	want := ledger.CustomerInput{ID: *in.ID, Email: deref(in.Email), Name: deref(in.Name), Metadata: meta, StripeCustomer: deref(in.StripeCustomer)}
	if err := texts("email", want.Email, "name", want.Name, "stripe_customer", want.StripeCustomer); err != nil {
		return err
	}
	key, err := c.key(in.IdempotencyKey)
	if err != nil {
		return err
	}
	bucket := ledger.BucketOfKey(want.ID) // of the customer: its id hashes as a key does
	return s.once(c, key, bucket, []string{want.ID, want.Email, want.Name, want.StripeCustomer, want.Metadata}, func(once ledger.Once) (int, any, error) {
		cust, err := s.createCustomer(c, want, once)
		if err != nil {
			return 0, nil, err
		}
		wallets, err := s.Ledger.Wallets(c.ctx(), cust.Ref)
		if err != nil {
			return 0, nil, err
		}
		v, err := s.customerJSON(c, cust, wallets)
		return http.StatusCreated, v, err
	})
}

// createCustomer writes the customer, then makes or ties its Stripe customer.
//
// row → commit → Stripe → link. A crash after the commit leaves a customer without a Stripe customer: the
// same call again, or a worker, goes on from there under a Stripe key that comes from the row.
func (s *Server) createCustomer(c *call, in ledger.CustomerInput, once ledger.Once) (ledger.Customer, error) {
	if in.StripeCustomer != "" {
		sc, err := s.existing(c.ctx(), in.StripeCustomer)
		if err != nil {
			return ledger.Customer{}, err
		}
		in.Currency = sc.Currency
	}
	cust, _, err := s.Ledger.CreateCustomer(c.ctx(), in, once)
	if ledger.IsCode(err, ledger.CodeState) && in.StripeCustomer == "" {
		// The id is taken. Where an earlier call got no further than its row, this one finishes it.
		old, findErr := s.Ledger.Customer(c.ctx(), in.ID)
		if findErr != nil || old.StripeCustomer != "" || old.Email != in.Email || old.Name != in.Name {
			return ledger.Customer{}, err
		}
		cust, err = old, nil
	}
	if err != nil {
		return ledger.Customer{}, err
	}
	if cust.StripeCustomer == "" {
		cust, err = s.Link(c.ctx(), cust)
		if errors.Is(err, stripeutil.ErrInvalid) {
			if err := s.Ledger.ForgetCustomer(c.ctx(), cust.Ref); err != nil {
				return ledger.Customer{}, err
			}
		}
		if err != nil {
			return ledger.Customer{}, err
		}
	}
	if in.StripeCustomer != "" {
		// What Stripe holds already is credit from the start. Should Stripe fail now, a worker imports it.
		if err := s.Sync(c.ctx(), cust.Ref); err != nil {
			s.Log.Warn("import waits", "customer", cust.ID, "error", err)
		}
	}
	return cust, nil
}

// existing is a customer that is said to be in Stripe.
func (s *Server) existing(ctx context.Context, id string) (stripeutil.Customer, error) {
	sc, err := s.Stripe.Customer(ctx, id)
	var se *stripeutil.Error
	switch {
	case stripeutil.OtherMode(err) && errors.As(err, &se):
		return sc, &fault{http.StatusNotFound, "invalid_request_error", "resource_missing", "stripe_customer",
			se.Message + " Test and live mode are two accounts: use a service with the other key and a database of its own, or a customer of this mode"}
	case errors.Is(err, stripeutil.ErrNotFound):
		return sc, &fault{http.StatusNotFound, "invalid_request_error", "resource_missing", "stripe_customer", "Stripe has no such customer: '" + id + "'"}
	case err == nil && sc.Deleted:
		return sc, invalid("stripe_customer", id+" was deleted in Stripe")
	}
	return sc, err
}

// patchCustomer changes a customer. One who has no Stripe customer yet is given one in the same transaction, and what
// that one holds is imported: should Stripe fail then, a worker does.
func (s *Server) patchCustomer(c *call) error {
	var in struct {
		Status         *string            `json:"status"`
		Metadata       *map[string]string `json:"metadata"`
		StripeCustomer *string            `json:"stripe_customer"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if err := filled(field{"stripe_customer", in.StripeCustomer}); err != nil {
		return err
	}
	if err := texts("stripe_customer", deref(in.StripeCustomer)); err != nil {
		return err
	}
	change := ledger.CustomerChange{Status: in.Status}
	if in.Metadata != nil {
		meta, err := metadata(*in.Metadata)
		if err != nil {
			return err
		}
		if meta == "" {
			meta = "{}"
		}
		change.Metadata = &meta
	}
	cust, err := s.customer(c)
	if err != nil {
		return err
	}
	linked := in.StripeCustomer != nil && cust.StripeCustomer != *in.StripeCustomer
	if linked {
		sc, err := s.existing(c.ctx(), *in.StripeCustomer)
		if err != nil {
			return err
		}
		change.StripeCustomer, change.Currency = sc.ID, sc.Currency
	}
	if cust, err = s.Ledger.ChangeCustomer(c.ctx(), cust.Ref, change); err != nil {
		return err
	}
	if linked {
		if err := s.Sync(c.ctx(), cust.Ref); err != nil {
			s.Log.Warn("import waits", "customer", cust.ID, "error", err)
		}
	}
	return s.replyCustomer(c, cust)
}

func (s *Server) getCustomer(c *call) error {
	cust, err := s.customer(c)
	if err != nil {
		return err
	}
	return s.replyCustomer(c, cust)
}

func (s *Server) replyCustomer(c *call, cust ledger.Customer) error {
	wallets, err := s.Ledger.Wallets(c.ctx(), cust.Ref)
	if err != nil {
		return err
	}
	v, err := s.customerJSON(c, cust, wallets)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, v)
}

// customer is the one in the path.
func (s *Server) customer(c *call) (ledger.Customer, error) {
	id := c.r.PathValue("customer")
	if err := texts("customer", id); err != nil {
		return ledger.Customer{}, err
	}
	return s.Ledger.Customer(c.ctx(), id)
}

func (s *Server) listCustomers(c *call) error {
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	customers, err := s.Ledger.Customers(c.ctx(), after, limit+1)
	if err != nil {
		return err
	}
	refs := make([]ledger.Ref, len(customers))
	for i, cust := range customers {
		refs[i] = cust.Ref
	}
	wallets, err := s.Ledger.WalletsOf(c.ctx(), refs)
	if err != nil {
		return err
	}
	objects := make([]customerJSON, len(customers))
	for i, cust := range customers {
		if objects[i], err = s.customerJSON(c, cust, wallets[cust.ID]); err != nil {
			return err
		}
	}
	return c.reply(http.StatusOK, list(objects, limit))
}
