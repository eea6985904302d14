package ledger

import (
	"context"
	"database/sql"
	"errors"
	"regexp"
	"strings"
	"time"
)

// Customer is a customer of the merchant.
type Customer struct {
	Ref
	StripeCustomer string // "" until Stripe has answered
	Email, Name    string
	Currency       string // of the balance in Stripe; "" while it has none
	Status         string // active, frozen, deleted
	Metadata       string // JSON object of strings
	CreatedAt      time.Time
}

// CustomerInput makes a customer.
type CustomerInput struct {
	ID, Email, Name, Metadata string
	StripeCustomer            string // an existing one; "" when one is to be made
	Currency                  string // of the existing one's balance, "" when it has none
}

type customerRow struct {
	Ref
	StripeCustomer *string   `db:"stripe_customer"`
	Email          string    `db:"email"`
	Name           string    `db:"name"`
	Currency       *string   `db:"currency"`
	Status         string    `db:"status"`
	Metadata       string    `db:"metadata"`
	CreatedAt      time.Time `db:"created_at"`
}

const customerColumns = `bucket, id, stripe_customer, email, name, currency, status, metadata, created_at`

func (r customerRow) customer() Customer {
	return Customer{Ref: r.Ref, StripeCustomer: deref(r.StripeCustomer), Email: r.Email, Name: r.Name,
		Currency: deref(r.Currency), Status: r.Status, Metadata: r.Metadata, CreatedAt: r.CreatedAt.UTC()}
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// ref is &v, or nil for the zero value.
func ref[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// customerID is printable ASCII but for what would have to be quoted in a path or in JSON.
var customerID = regexp.MustCompile(`^[!$&-.0-;=@-[\]-~]{1,128}$`)

// CheckCustomerID refuses an id that a customer can't have.
func CheckCustomerID(id string) error {
	switch {
	case id == "":
		return refuse(CodeMissing, "id", "id is missing: your own id of the customer")
	case strings.HasPrefix(id, "cus_"):
		return refuse(CodeInvalid, "id", "id is your own id of the customer; ids that start with cus_ are Stripe's: pass it as stripe_customer")
	case id == "." || id == "..":
		return refuse(CodeInvalid, "id", "id can't be . or ..: it stands in paths, where those mean something else")
	case !customerID.MatchString(id):
		return refuse(CodeInvalid, "id", "id must be 1 to 128 printable ASCII characters, without spaces, quotes and any of / \\ ? # %% < >")
	}
	return nil
}

// CreateCustomer makes a customer with a wallet of the default asset. With once it is made at most once:
// replayed says that the same call had made it before.
//
// A customer without a StripeCustomer is whole but not linked: whoever made it creates one in Stripe and
// calls LinkCustomer. A crash in between leaves it unlinked, which Unlinked lists.
func (l *Ledger) CreateCustomer(ctx context.Context, in CustomerInput, once Once) (c Customer, replayed bool, err error) {
	if err := CheckCustomerID(in.ID); err != nil {
		return Customer{}, false, err
	}
	asset, err := l.Asset(ctx, l.defaultAsset)
	if err != nil {
		return Customer{}, false, err
	}
	ref := Ref{bucketOf(in.ID), in.ID}
	once.Bucket = ref.Bucket
	err = l.inTx(ctx, func(t *tx) error {
		if _, replayed, err = t.claim(once, in.ID); err != nil || replayed {
			return err
		}
		if in.Metadata == "" {
			in.Metadata = "{}"
		}
		err := t.exec(`insert into customers (bucket, id, email, name, metadata, created_at) values ($1, $2, $3, $4, $5, $6)`,
			ref.Bucket, ref.ID, in.Email, in.Name, in.Metadata, t.now)
		if violates(err, "customers_pkey") {
			return refuse(CodeState, "id", "there is a customer %q already", in.ID)
		}
		if err != nil {
			return err
		}
		if _, err := t.insertWallet(ref, asset, "all", 0); err != nil {
			return err
		}
		if in.StripeCustomer != "" {
			return t.link(ref, in.StripeCustomer, in.Currency, false)
		}
		return nil
	})
	if err != nil {
		return Customer{}, false, err
	}
	c, err = l.Customer(ctx, ref.ID)
	return c, replayed, err
}

// LinkCustomer ties a customer to a Stripe customer; fresh says that it was just made and so holds nothing.
// A Stripe customer that is another's is refused with CodeState.
func (l *Ledger) LinkCustomer(ctx context.Context, ref Ref, stripeCustomer, currency string, fresh bool) error {
	return l.inTx(ctx, func(t *tx) error { return t.link(ref, stripeCustomer, currency, fresh) })
}

func (t *tx) link(ref Ref, stripeCustomer, currency string, fresh bool) error {
	var old customerRow
	found, err := t.get(&old, `select `+customerColumns+` from customers where bucket = $1 and id = $2 for update`, ref.Bucket, ref.ID)
	if err != nil {
		return err
	}
	if !found {
		return noCustomer(ref.ID)
	}
	if s := deref(old.StripeCustomer); s != "" {
		if s == stripeCustomer {
			return nil
		}
		return refuse(CodeState, "stripe_customer", "customer %s is linked to %s already", ref.ID, s)
	}
	err = t.exec(`insert into stripe_links (stripe_customer, bucket, customer_id) values ($1, $2, $3)`, stripeCustomer, ref.Bucket, ref.ID)
	if violates(err, "stripe_links_pkey") {
		return refuse(CodeState, "stripe_customer", "%s belongs to another customer: two can't share one balance in Stripe", stripeCustomer)
	}
	if err != nil {
		return err
	}
	if currency == "" {
		currency = deref(old.Currency)
	}
	if currency == "" { // Stripe has not fixed one: the default asset's, where it has a price
		a, err := t.asset(t.l.defaultAsset)
		if err != nil {
			return err
		}
		currency = a.Currency
	}
	if err := t.exec(`update customers set stripe_customer = $3 where bucket = $1 and id = $2`, ref.Bucket, ref.ID, stripeCustomer); err != nil {
		return err
	}
	old.StripeCustomer = &stripeCustomer
	return t.mirrorIn(old, currency, fresh)
}

// mirrorIn fixes the currency of a linked customer's balance in Stripe, which begins its mirror; with "" there
// is nothing to mirror yet. A fresh Stripe customer has no transactions: its list counts as read.
func (t *tx) mirrorIn(c customerRow, currency string, fresh bool) error {
	if currency == "" || c.StripeCustomer == nil {
		return nil
	}
	if err := t.exec(`update customers set currency = $3 where bucket = $1 and id = $2`, c.Bucket, c.ID, currency); err != nil {
		return err
	}
	t.dirty = append(t.dirty, c.Ref)
	var listedTo *string
	if fresh {
		listedTo = new(string)
	}
	return t.exec(`insert into mirrors (bucket, customer_id, stripe_customer, currency, listed_to, import_due, run_at)
		values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing`,
		c.Bucket, c.ID, *c.StripeCustomer, currency, listedTo, !fresh, t.now)
}

// mirrorAsset begins the mirror of a customer who has none yet, when credit of a priced asset comes.
func (t *tx) mirrorAsset(ref Ref, asset Asset) error {
	if asset.Currency == "" {
		return nil
	}
	var c customerRow
	found, err := t.get(&c, `select `+customerColumns+` from customers where bucket = $1 and id = $2 and currency is null`, ref.Bucket, ref.ID)
	if err != nil || !found {
		return err
	}
	return t.mirrorIn(c, asset.Currency, false)
}

func noCustomer(id string) error {
	return refuse(CodeNotFound, "customer", "No such customer: '%s'", id)
}

// Customer finds a customer by the merchant's id or Stripe's, or refuses with CodeNotFound.
func (l *Ledger) Customer(ctx context.Context, id string) (Customer, error) {
	ref, err := l.Resolve(ctx, id)
	if err != nil {
		return Customer{}, err
	}
	var row customerRow
	found, err := l.getRow(ctx, &row, `select `+customerColumns+` from customers where bucket = $1 and id = $2`, ref.Bucket, ref.ID)
	if err != nil {
		return Customer{}, err
	}
	if !found {
		return Customer{}, noCustomer(id)
	}
	return row.customer(), nil
}

// Resolve says which customer an id means: the merchant's own, whose bucket follows from it, or a Stripe
// customer's, which is looked up once.
func (l *Ledger) Resolve(ctx context.Context, id string) (Ref, error) {
	if !strings.HasPrefix(id, "cus_") {
		return Ref{bucketOf(id), id}, nil
	}
	if ref, ok := l.links.Load(id); ok {
		return ref.(Ref), nil
	}
	var ref Ref
	found, err := l.getRow(ctx, &ref, `select bucket, customer_id as id from stripe_links where stripe_customer = $1`, id)
	if err != nil {
		return Ref{}, err
	}
	if !found {
		return Ref{}, noCustomer(id)
	}
	l.links.Store(id, ref) // a link is never changed
	return ref, nil
}

// Customers lists customers, newest first, at most limit of them, those made before the customer named by after.
func (l *Ledger) Customers(ctx context.Context, after string, limit int) ([]Customer, error) {
	var rows []customerRow
	query, args := `select `+customerColumns+` from customers order by created_at desc, id desc limit $1`, []any{limit}
	if after != "" {
		c, err := l.Customer(ctx, after)
		if IsCode(err, CodeNotFound) {
			err = noneAfter(after)
		}
		if err != nil {
			return nil, err
		}
		query = `select ` + customerColumns + ` from customers where (created_at, id) < ($2, $3) order by created_at desc, id desc limit $1`
		args = append(args, c.CreatedAt, c.ID)
	}
	if err := l.db.SelectContext(ctx, &rows, query, args...); err != nil {
		return nil, err
	}
	customers := make([]Customer, len(rows))
	for i, r := range rows {
		customers[i] = r.customer()
	}
	return customers, nil
}

// Unlinked lists customers that have no Stripe customer and were made before a moment, a few at a time.
func (l *Ledger) Unlinked(ctx context.Context, before time.Time) ([]Customer, error) {
	var rows []customerRow
	err := l.db.SelectContext(ctx, &rows, `select `+customerColumns+` from customers
		where stripe_customer is null and status = 'active' and created_at < $1 order by created_at limit 100`, before)
	customers := make([]Customer, len(rows))
	for i, r := range rows {
		customers[i] = r.customer()
	}
	return customers, err
}

// ForgetCustomer removes a customer for whom Stripe refused to make a customer. It refuses once there is
// anything to lose.
func (l *Ledger) ForgetCustomer(ctx context.Context, ref Ref) error {
	return l.inTx(ctx, func(t *tx) error {
		var used bool
		_, err := t.get(&used, `select exists (select from wallets where bucket = $1 and customer_id = $2 and (seq > 0 or pending > 0))
			or exists (select from customers where bucket = $1 and id = $2 and stripe_customer is not null)`, ref.Bucket, ref.ID)
		if err != nil {
			return err
		}
		if used {
			return refuse(CodeState, "", "customer %s is in use", ref.ID)
		}
		for _, q := range []string{
			`delete from answers where bucket = $1 and refers_to = $2`,
			`delete from wallets where bucket = $1 and customer_id = $2`,
			`delete from customers where bucket = $1 and id = $2`,
		} {
			if err := t.exec(q, ref.Bucket, ref.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// CustomerChange changes a customer; nil leaves things as they are.
type CustomerChange struct {
	Status         *string // active, frozen
	Metadata       *string
	StripeCustomer string // of a customer who has none yet; "" leaves things as they are
	Currency       string // of that one's balance, "" when it has none
}

// ChangeCustomer changes a customer. A frozen one spends nothing and buys nothing; credit may still come. A Stripe
// customer is given once: whoever has one keeps it.
func (l *Ledger) ChangeCustomer(ctx context.Context, ref Ref, in CustomerChange) (Customer, error) {
	err := l.inTx(ctx, func(t *tx) error {
		var status string
		found, err := t.get(&status, `select status from customers where bucket = $1 and id = $2 for update`, ref.Bucket, ref.ID)
		if err != nil {
			return err
		}
		if !found {
			return noCustomer(ref.ID)
		}
		if in.StripeCustomer != "" {
			if err := t.link(ref, in.StripeCustomer, in.Currency, false); err != nil {
				return err
			}
		}
		if in.Metadata != nil {
			if err := t.exec(`update customers set metadata = $3 where bucket = $1 and id = $2`, ref.Bucket, ref.ID, *in.Metadata); err != nil {
				return err
			}
		}
		if in.Status == nil || *in.Status == status {
			return nil
		}
		switch {
		case *in.Status != "active" && *in.Status != "frozen":
			return refuse(CodeInvalid, "status", "status is active or frozen")
		case status == "deleted":
			return refuse(CodeState, "status", "customer %s was deleted in Stripe and stays frozen", ref.ID)
		}
		if err := t.exec(`update customers set status = $3 where bucket = $1 and id = $2`, ref.Bucket, ref.ID, *in.Status); err != nil {
			return err
		}
		return t.bar(ref, *in.Status == "frozen")
	})
	if err != nil {
		return Customer{}, err
	}
	return l.Customer(ctx, ref.ID)
}

// bar stops, or allows again, everything that spends from a customer's wallets, whatever each one's own status.
func (t *tx) bar(ref Ref, barred bool) error {
	var ids []string
	if err := t.SelectContext(t.ctx, &ids, `select id from wallets where bucket = $1 and customer_id = $2 order by id`, ref.Bucket, ref.ID); err != nil {
		return err
	}
	for _, id := range ids {
		w, err := t.lockWallet(ref.Bucket, id)
		if err != nil {
			return err
		}
		w.Barred = barred
		if err := t.exec(`update wallets set barred = $3, version = version + 1 where bucket = $1 and id = $2`, ref.Bucket, id, barred); err != nil {
			return err
		}
		if err := t.rearm(w); err != nil {
			return err
		}
	}
	return nil
}

// getRow reads one row outside a transaction; found is false when there is none.
func (l *Ledger) getRow(ctx context.Context, dest any, query string, args ...any) (found bool, err error) {
	err = l.db.GetContext(ctx, dest, query, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}
