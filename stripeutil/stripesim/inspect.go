package stripesim

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"time"
)

// maxRequests bounds the log of requests.
const maxRequests = 10_000

// Customer, and the types below, are copies for a test to look at.
type Customer struct {
	ID                   string
	Balance              int64
	Currency             string
	DefaultPaymentMethod string
	Email, Name          string
	Deleted              bool
	Metadata             map[string]string
	Created              time.Time
}

type BalanceTransaction struct {
	ID, Customer          string
	Amount, EndingBalance int64
	Currency, Type        string
	Description           string
	Invoice, CreditNote   string
	Metadata              map[string]string
	Created               time.Time
}

type PaymentMethod struct {
	ID, Customer, Type, Token string
	Brand, Last4              string
	Created                   time.Time
}

type PaymentIntent struct {
	ID, Customer, PaymentMethod, Status, Currency string
	Invoice, LatestCharge, ClientSecret           string
	Amount, AmountReceived                        int64
	// LastErrorCode and LastDeclineCode are of last_payment_error.
	LastErrorCode, LastDeclineCode string
	Metadata                       map[string]string
	Created                        time.Time
}

type Charge struct {
	ID, Customer, PaymentIntent, PaymentMethod, Invoice string
	Status, Currency, FailureCode                       string
	Amount, AmountRefunded                              int64
	Paid, Refunded, Disputed                            bool
	Metadata                                            map[string]string
	Created                                             time.Time
}

type Event struct {
	ID, Type                   string
	RequestID, IdempotencyKey  string // "" when Stripe or an operator made it
	ObjectID                   string
	Object, PreviousAttributes json.RawMessage
	PendingWebhooks            int
	Livemode                   bool
	Created                    time.Time
}

// Request is one API request as it arrived.
type Request struct {
	Method, Path, ID string
	Form             url.Values
	IdempotencyKey   string
	Status           int // 0 when the connection was dropped before execution
	Replayed         bool
	At               time.Time
}

func (s *Sim) record(q *request, a *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) >= maxRequests {
		s.requests = slices.Delete(s.requests, 0, maxRequests/10)
	}
	s.requests = append(s.requests, Request{Method: q.method, Path: q.path, ID: q.id, Form: q.form,
		IdempotencyKey: q.key, Status: a.status, Replayed: a.replayed, At: s.now()})
}

// collect copies the rows that keep selects, oldest first.
func collect[T, V any](s *Sim, t *table[T], keep func(*T) bool, view func(*T) V) []V {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []V
	for _, row := range t.oldest {
		if keep(row) {
			out = append(out, view(row))
		}
	}
	return out
}

func viewCustomer(r *customer) Customer {
	return Customer{ID: r.ID, Balance: r.Balance, Currency: string(r.Currency), DefaultPaymentMethod: string(r.InvoiceSettings.DefaultPaymentMethod),
		Email: string(r.Email), Name: string(r.Name), Deleted: r.Deleted, Metadata: maps.Clone(r.Metadata), Created: time.Unix(r.Created, 0)}
}

// Customer finds a customer, deleted ones too.
func (s *Sim) Customer(id string) (Customer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.state.Customers.get(id); r != nil {
		return viewCustomer(r), true
	}
	return Customer{}, false
}

// Customers are all customers, oldest first.
func (s *Sim) Customers() []Customer {
	return collect(s, &s.state.Customers, func(*customer) bool { return true }, viewCustomer)
}

// BalanceTransactions are a customer's, oldest first.
func (s *Sim) BalanceTransactions(customer string) []BalanceTransaction {
	return collect(s, &s.state.BalanceTransactions, func(r *balanceTransaction) bool { return r.Customer == customer },
		func(r *balanceTransaction) BalanceTransaction {
			return BalanceTransaction{ID: r.ID, Customer: r.Customer, Amount: r.Amount, EndingBalance: r.EndingBalance, Currency: r.Currency,
				Type: r.Type, Description: string(r.Description), Invoice: string(r.Invoice), CreditNote: string(r.CreditNote),
				Metadata: maps.Clone(r.Metadata), Created: time.Unix(r.Created, 0)}
		})
}

// PaymentMethods are those attached to a customer, oldest first.
func (s *Sim) PaymentMethods(customer string) []PaymentMethod {
	return collect(s, &s.state.PaymentMethods, func(r *paymentMethod) bool { return string(r.Customer) == customer },
		func(r *paymentMethod) PaymentMethod {
			v := PaymentMethod{ID: r.ID, Customer: string(r.Customer), Type: r.Type, Token: s.state.Tokens[r.ID], Created: time.Unix(r.Created, 0)}
			if r.Card != nil {
				v.Brand, v.Last4 = r.Card.Brand, r.Card.Last4
			} else {
				v.Last4, _ = toMap(r.bank())["last4"].(string)
			}
			return v
		})
}

// PaymentIntents are a customer's, oldest first; "" gives all.
func (s *Sim) PaymentIntents(customer string) []PaymentIntent {
	return collect(s, &s.state.PaymentIntents, func(r *paymentIntent) bool { return customer == "" || string(r.Customer) == customer },
		func(r *paymentIntent) PaymentIntent {
			v := PaymentIntent{ID: r.ID, Customer: string(r.Customer), PaymentMethod: string(r.PaymentMethod), Status: r.Status, Currency: r.Currency,
				Invoice: string(r.Invoice), LatestCharge: string(r.LatestCharge), ClientSecret: r.ClientSecret, Amount: r.Amount,
				AmountReceived: r.AmountReceived, Metadata: maps.Clone(r.Metadata), Created: time.Unix(r.Created, 0)}
			if e := r.LastPaymentError; e != nil {
				v.LastErrorCode, v.LastDeclineCode = e.Code, e.DeclineCode
			}
			return v
		})
}

// Charges are a customer's, oldest first, failed ones too; "" gives all.
func (s *Sim) Charges(customer string) []Charge {
	return collect(s, &s.state.Charges, func(r *charge) bool { return customer == "" || string(r.Customer) == customer },
		func(r *charge) Charge {
			return Charge{ID: r.ID, Customer: string(r.Customer), PaymentIntent: string(r.PaymentIntent), PaymentMethod: string(r.PaymentMethod),
				Invoice: string(r.Invoice), Status: r.Status, Currency: r.Currency, FailureCode: string(r.FailureCode), Amount: r.Amount,
				AmountRefunded: r.AmountRefunded, Paid: r.Paid, Refunded: r.Refunded, Disputed: r.Disputed, Metadata: maps.Clone(r.Metadata),
				Created: time.Unix(r.Created, 0)}
		})
}

// Events are all events of the last 30 days, oldest first.
func (s *Sim) Events() []Event {
	return collect(s, &s.state.Events, func(*event) bool { return true }, s.viewEvent)
}

func (s *Sim) viewEvent(r *event) Event {
	v := Event{ID: r.ID, Type: r.Type, RequestID: string(r.Request.ID), IdempotencyKey: string(r.Request.IdempotencyKey),
		ObjectID: objectID(r), Object: bytes.Clone(r.Data.Object), PendingWebhooks: len(s.state.Waiting[r.ID]),
		Livemode: r.Livemode, Created: time.Unix(r.Created, 0)}
	if r.Data.PreviousAttributes != nil {
		v.PreviousAttributes = compact(r.Data.PreviousAttributes)
	}
	return v
}

func objectID(e *event) string {
	var o struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(e.Data.Object, &o); err != nil {
		return ""
	}
	return o.ID
}

// Requests are the last API requests, oldest first.
func (s *Sim) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}
