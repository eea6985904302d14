package ledger

import (
	"encoding/json"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Credit sold by Stripe alone. A pack or a plan is a price in Stripe whose metadata (or, key by key, its product's)
// says what paying it gives. The rules:
//
//   - credits is per unit of quantity; a line whose price names none says nothing to us. credits_asset is the default
//     asset, credits_kind plan on a subscription's line and else purchased, credits_expire period_end on a subscription's
//     line and else never, credits_priority 50, credits_rollover none. What it covers follows from the kind.
//   - What can't be read refuses the whole sale: its event is retried, then put aside, and can be replayed once the
//     metadata has been put right. All lines of a sale are booked in one transaction.
//   - A subscription's line is in force from its payment to the end of its period. Paid only after that end, it lives
//     for as long as the period was. A line of nothing, whose price is of something and that has no discount, is a
//     trial's: it gives nothing. A price of zero gives, and so does a coupon of 100 %.
//   - A proration gives its share, which is its amount by the full price. Unused time takes its share back from what
//     is left of the credit of the same subscription item and period, the newest first, never more, never as debt. Its
//     lines come before those that give. Where a price has tiers its prorations do nothing.
//   - The payment of a renewal brings back what was left, when it expired, of the credit of the period just ended that
//     was sold with credits_rollover: all of it, or at most that much for one renewal. It is a grant of its own, beside
//     the renewal's and on its terms, so that it may be carried on. Without the payment nothing is carried over.
//   - A sale is booked once: each of its lines has a row, and each grant its line as its source.

// Sale is an invoice or a checkout session that was paid.
type Sale struct {
	ID            string // in_… or cs_…
	Customer      Ref
	PaymentIntent string // "" when none was made
	PaidAt        time.Time
	Lines         []SaleLine
}

// SaleLine is one line of a sale. Amount is before discounts and may be below zero; Net is what the merchant earns.
type SaleLine struct {
	ID, Price                      string
	PriceMetadata, ProductMetadata map[string]string
	Currency                       string
	Quantity                       int64
	Amount, Net                    int64
	Discounted                     bool
	UnitAmount                     *int64 // nil: Amount says nothing of a share
	Subscription, SubscriptionItem string
	Start, End                     time.Time
	Proration                      bool
}

// Sells reports whether any line names credits.
func (s *Sale) Sells() bool {
	return slices.ContainsFunc(s.Lines, func(ln SaleLine) bool { return ln.term("credits") != "" })
}

// source is the kind of sale, as grants show it.
func (s *Sale) source() string {
	if strings.HasPrefix(s.ID, "cs_") {
		return "stripe_checkout"
	}
	return "stripe_invoice"
}

// term is what the price says under a key, else its product.
func (ln *SaleLine) term(key string) string {
	if v := strings.TrimSpace(ln.PriceMetadata[key]); v != "" {
		return v
	}
	return strings.TrimSpace(ln.ProductMetadata[key])
}

// saleTerms are a line's, read and checked, before its asset is known.
type saleTerms struct {
	credits   Decimal // of one unit
	asset     string
	kind      string
	priority  int16
	expires   string // never, period_end, days
	days      int
	rollover  *Decimal // most; nil: none
	rollsOver string   // none, all, most
}

var expiresInDays = regexp.MustCompile(`^([1-9][0-9]{0,4})d$`)

// maxSaleDays is a hundred years: more is a mistake.
const maxSaleDays = 36500

// terms reads what a line sells. sells is false when its price names no credits.
func (ln *SaleLine) terms(defaultAsset string) (t saleTerms, sells bool, err error) {
	credits := ln.term("credits")
	if credits == "" {
		return saleTerms{}, false, nil
	}
	t = saleTerms{asset: defaultAsset, kind: "purchased", expires: "never", priority: DefaultPriority, rollsOver: "none"}
	if ln.SubscriptionItem != "" {
		t.kind, t.expires = "plan", "period_end"
	}
	var ok bool
	if t.credits, ok = ParseDecimal(credits); !ok || t.credits.Digits <= 0 {
		return t, true, ln.unreadable("credits", "a decimal above zero such as 1000 or 2.5")
	}
	if v := ln.term("credits_asset"); v != "" {
		t.asset = v
	}
	if v := ln.term("credits_kind"); v != "" {
		if t.kind = v; !slices.Contains(grantKinds, v) {
			return t, true, ln.unreadable("credits_kind", "plan, purchased, promotional or adjustment")
		}
	}
	if v := ln.term("credits_priority"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > 100 {
			return t, true, ln.unreadable("credits_priority", "a number from 0 (burned first) to 100")
		}
		t.priority = int16(n)
	}
	if err := ln.expiry(&t); err != nil {
		return t, true, err
	}
	switch v := ln.term("credits_rollover"); v {
	case "", "none":
	case "all":
		t.rollsOver = "all"
	default:
		most, ok := ParseDecimal(v)
		if !ok || most.Digits <= 0 {
			return t, true, ln.unreadable("credits_rollover", "none, all, or the most that is carried over, such as 500")
		}
		t.rollsOver, t.rollover = "most", &most
	}
	return t, true, nil
}

func (ln *SaleLine) expiry(t *saleTerms) error {
	v := ln.term("credits_expire")
	if v == "" {
		return nil
	}
	if m := expiresInDays.FindStringSubmatch(v); m != nil {
		t.expires = "days"
		if t.days, _ = strconv.Atoi(m[1]); t.days <= maxSaleDays {
			return nil
		}
	}
	switch {
	case v == "period_end" && !ln.End.After(ln.Start):
		return ln.unreadable("credits_expire", "never or a number of days such as 30d on what is sold once: only a subscription has a period to end")
	case v == "never" || v == "period_end":
		t.expires = v
		return nil
	}
	return ln.unreadable("credits_expire", "never, period_end, or a number of days such as 30d (at most 36500d)")
}

// unreadable refuses a line for one of its terms.
func (ln *SaleLine) unreadable(key, want string) error {
	return refuse(CodeInvalid, key, "price %s: %s is %q and has to be %s; put the metadata of the price or of its product right in Stripe and replay the event",
		ln.Price, key, ln.term(key), want)
}

// worth is what a line does once its asset is known, in steps: above zero it gives, below it takes back. why says
// why it is zero.
func (ln *SaleLine) worth(t saleTerms, scale int16) (steps int64, why string, err error) {
	unit, ok := t.credits.steps(scale)
	if !ok {
		return 0, "", ln.unreadable("credits", "small enough for "+t.asset+", with at most "+strconv.Itoa(int(scale))+" decimals")
	}
	total, fit := fits(new(big.Int).Mul(big.NewInt(unit), big.NewInt(ln.Quantity)))
	if !fit {
		return 0, "", ln.unreadable("credits", "smaller: "+strconv.FormatInt(ln.Quantity, 10)+" times that is too large for "+t.asset)
	}
	switch {
	case ln.Quantity <= 0:
		return 0, "its quantity is zero", nil
	case ln.Proration:
		return ln.share(unit, total)
	case ln.Amount < 0:
		return 0, "it gives money back", nil
	case ln.SubscriptionItem != "" && ln.Amount == 0 && !ln.Discounted && deref(ln.UnitAmount) == 0 && ln.UnitAmount != nil:
		return total, "", nil // a plan for nothing
	case ln.SubscriptionItem != "" && ln.Amount == 0 && !ln.Discounted:
		return 0, "it is a trial's", nil
	}
	return total, "", nil
}

// share is the part of a proration: its amount by its full price. What is taken back is never more than was sold.
func (ln *SaleLine) share(unit, total int64) (steps int64, why string, err error) {
	if deref(ln.UnitAmount) <= 0 {
		return 0, "its price has no unit amount above zero to tell a share by", nil
	}
	n := new(big.Int).Mul(big.NewInt(unit), new(big.Int).Abs(big.NewInt(ln.Amount)))
	n.Div(n, big.NewInt(*ln.UnitAmount)) // the quantity is in both
	steps, fit := fits(n)
	switch {
	case !fit:
		return 0, "", ln.unreadable("credits", "smaller: its share is too large")
	case steps == 0:
		return 0, "its share is less than the smallest step", nil
	case ln.Amount < 0:
		return -min(steps, total), "", nil
	}
	return steps, "", nil
}

// ends is when what a line gives expires; nil is never.
func (ln *SaleLine) ends(t saleTerms, paid time.Time) *time.Time {
	var at time.Time
	switch t.expires {
	case "never":
		return nil
	case "days":
		at = paid.AddDate(0, 0, t.days)
	default:
		if at = ln.End; !at.After(paid) {
			at = paid.Add(ln.End.Sub(ln.Start))
		}
	}
	return &at
}

// most is how many steps of a line a renewal may carry over; nil is none.
func (ln *SaleLine) most(t saleTerms, scale int16) (*int64, error) {
	n := int64(math.MaxInt64)
	if t.rollsOver == "none" || ln.SubscriptionItem == "" {
		return nil, nil
	}
	if t.rollsOver == "most" {
		var ok bool
		if n, ok = t.rollover.steps(scale); !ok {
			return nil, ln.unreadable("credits_rollover", "small enough for "+t.asset+", with at most "+strconv.Itoa(int(scale))+" decimals")
		}
	}
	return &n, nil
}

// ended is a grant of a period that has ended, and what was left of it then.
type ended struct {
	Line         string  `db:"line"`
	Grant        string  `db:"id"`
	Amount       int64   `db:"amount"`
	Left         int64   `db:"left_over"`
	Most         int64   `db:"rollover"`
	CostAmount   *int64  `db:"cost_amount"`
	CostCurrency *string `db:"cost_currency"`
}

// carry is what a renewal brings back of grants that have ended, the oldest first: of each at most what its own
// terms allow, and of all together no more than the most that any allows. Its cost is the share of theirs, where they
// are in one currency.
func carry(grants []ended) (steps int64, cost *Money) {
	var most int64
	for _, g := range grants {
		most = max(most, g.Most)
	}
	mixed := false
	for _, g := range grants {
		part := min(g.Left, g.Most, most-steps)
		if part <= 0 {
			continue
		}
		steps += part
		switch {
		case g.CostAmount == nil:
		case cost == nil:
			cost = &Money{share(*g.CostAmount, part, g.Amount), *g.CostCurrency}
		case cost.Currency != *g.CostCurrency:
			mixed = true
		default:
			cost.Amount += share(*g.CostAmount, part, g.Amount)
		}
	}
	if mixed {
		return steps, nil
	}
	return steps, cost
}

// note is a sold grant's metadata.
func (ln *SaleLine) note() string {
	m := map[string]string{"stripe_price": ln.Price}
	if ln.Subscription != "" {
		m["stripe_subscription"] = ln.Subscription
	}
	b, err := json.Marshal(m)
	if err != nil {
		return "{}" // strings always marshal
	}
	return string(b)
}
