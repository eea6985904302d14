package stripesim

type balanceTransaction struct {
	ID            string            `json:"id"`
	Object        string            `json:"object"`
	Amount        int64             `json:"amount"`
	Created       int64             `json:"created"`
	CreditNote    opt               `json:"credit_note"`
	Currency      string            `json:"currency"`
	Customer      string            `json:"customer"`
	Description   opt               `json:"description"`
	EndingBalance int64             `json:"ending_balance"`
	Invoice       opt               `json:"invoice"`
	Livemode      bool              `json:"livemode"`
	Metadata      map[string]string `json:"metadata"`
	Type          string            `json:"type"`
}

// book adds a transaction to a customer's balance: the only way in which a
// balance ever changes. With announce it also sends customer.updated, the only
// event that tells of it; callers that change more of the customer announce all
// at once themselves.
func (c *call) book(cus *customer, t balanceTransaction, announce bool) *balanceTransaction {
	before := toMap(cus)
	cus.Balance += t.Amount
	if cus.Currency == "" {
		cus.Currency = opt(t.Currency)
	}
	t.ID, t.Object = newID("cbtxn_", 24), "customer_balance_transaction"
	t.Created, t.Livemode = c.unix(), c.livemode
	t.Customer, t.EndingBalance, t.Metadata = cus.ID, cus.Balance, cloneMetadata(t.Metadata)
	c.state.BalanceTransactions.put(t.ID, &t)
	if announce {
		c.emitUpdated("customer.updated", before, cus)
	}
	return &t
}

// currencyFits refuses a second currency on one customer's balance.
func currencyFits(cus *customer, currency string) *apiError {
	if cus.Currency != "" && string(cus.Currency) != currency {
		return badRequest("", "currency", "You cannot combine currencies on a single customer. This customer has had a subscription, coupon, balance or invoice item with currency %s", cus.Currency)
	}
	return nil
}

func createBalanceTransaction(c *call) (any, *apiError) {
	cus, err := c.customerAt("customer")
	if err != nil {
		return nil, err
	}
	t := balanceTransaction{Amount: c.needInt("amount"), Currency: c.currency("currency", true), Metadata: c.metadata(nil), Type: "adjustment"}
	c.set("description", &t.Description)
	if len(t.Description) > 350 { // Stripe's limit on this field
		c.fail(badRequest("", "description", "Invalid string: must be at most 350 characters"))
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	if err := currencyFits(cus, t.Currency); err != nil {
		return nil, err
	}
	return c.book(cus, t, true), nil
}

func (c *call) balanceTransactionAt() (*balanceTransaction, *apiError) {
	t := c.state.BalanceTransactions.get(c.args[1])
	if t == nil || t.Customer != c.id() {
		return nil, noSuch("customer_balance_transaction", c.args[1], "transaction")
	}
	return t, nil
}

func getBalanceTransaction(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	return orError(c.balanceTransactionAt())
}

// updateBalanceTransaction changes the words; amount and type never change.
func updateBalanceTransaction(c *call) (any, *apiError) {
	if _, err := c.customerAt("customer"); err != nil {
		return nil, err
	}
	t, err := c.balanceTransactionAt()
	if err != nil {
		return nil, err
	}
	next := *t
	c.set("description", &next.Description)
	next.Metadata = c.metadata(t.Metadata)
	if err := c.done(); err != nil {
		return nil, err
	}
	c.state.BalanceTransactions.put(t.ID, &next)
	return &next, nil
}

func listBalanceTransactions(c *call) (any, *apiError) {
	if c.state.Customers.get(c.id()) == nil {
		return nil, noSuch("customer", c.id(), "customer")
	}
	return list(c, &c.state.BalanceTransactions, c.window(false), "customer_balance_transaction",
		func(r *balanceTransaction) int64 { return r.Created },
		func(r *balanceTransaction) bool { return r.Customer == c.id() })
}

// orError keeps a nil row from becoming a non-nil answer.
func orError[T any](row *T, err *apiError) (any, *apiError) {
	if err != nil {
		return nil, err
	}
	return row, nil
}
