package handlers

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// atStripe is the address of a thing's page in Stripe's dashboard; "" where there is none. Such links lead away, and are
// all that leads away.
func (s *Server) atStripe(id string) string {
	for prefix, page := range map[string]string{"cus_": "customers", "pi_": "payments", "in_": "invoices", "ch_": "payments", "evt_": "events",
		"sub_": "subscriptions", "dp_": "disputes", "du_": "disputes"} {
		if strings.HasPrefix(id, prefix) {
			mode := "test/"
			if s.Stripe != nil && s.Stripe.Livemode() {
				mode = ""
			}
			return "https://dashboard.stripe.com/" + mode + page + "/" + id
		}
	}
	return ""
}

// stripeLink is an id of Stripe's, and where it is shown there.
type stripeLink struct{ ID, URL string }

func (s *Server) stripeLink(id *string) *stripeLink {
	if deref(id) == "" {
		return nil
	}
	return &stripeLink{*id, s.atStripe(*id)}
}

type customersPage struct {
	Query     string
	Customers []customerRow
	Page      listPage
}

type customerRow struct {
	ledger.Customer
	Wallets []ledger.Wallet
}

// showCustomers lists customers: the newest, or those that are searched for.
func (s *Server) showCustomers(v *visit) error {
	var p customersPage
	after := ""
	if err := v.asked(map[string]*string{"q": &p.Query, "after": &after}); err != nil {
		return err
	}
	p.Query = strings.TrimSpace(p.Query)
	var found []ledger.Customer
	var err error
	if p.Query == "" {
		found, err = s.Ledger.Customers(v.ctx(), after, onPage+1)
	} else {
		found, err = s.Ledger.SearchCustomers(v.ctx(), p.Query, after, onPage+1)
	}
	if err != nil {
		return err
	}
	n, page := v.pageOf(len(found), func(i int) string { return found[i].ID })
	p.Page = page
	refs := make([]ledger.Ref, n)
	for i, c := range found[:n] {
		refs[i] = c.Ref
	}
	wallets, err := s.Ledger.WalletsOf(v.ctx(), refs)
	if err != nil {
		return err
	}
	for _, c := range found[:n] {
		p.Customers = append(p.Customers, customerRow{c, wallets[c.ID]})
	}
	return s.show(v, http.StatusOK, "customers", pages.Frame{Title: "Customers", Data: p})
}

type customerPage struct {
	ledger.Customer
	Stripe   *stripeLink
	Wallets  []walletRow
	Mirror   *ledger.MirrorView // what is known here of the balance in Stripe
	Acts     []auditRow
	Metadata []option
}

type walletRow struct {
	ledger.Wallet
	Rule *ruleShown
}

// ruleShown is an auto top-up rule in words.
type ruleShown struct {
	ledger.RuleView
	Asset      string
	When       string // "below 5.00"
	Buys       string // "by 20.00", "up to 50.00"
	Clears     string // what ends its pause
	SpentShare int64  // of its cap, in hundredths; 0 without one
}

func (s *Server) customerIn(v *visit) (ledger.Customer, error) {
	id := v.r.PathValue("customer")
	if err := texts("customer", id); err != nil {
		return ledger.Customer{}, err
	}
	return s.Ledger.Customer(v.ctx(), id)
}

func (s *Server) showCustomer(v *visit) error {
	cust, err := s.customerIn(v)
	if err != nil {
		return err
	}
	p := customerPage{Customer: cust, Stripe: s.stripeLink(&cust.StripeCustomer), Metadata: metadataRows(cust.Metadata)}
	wallets, err := s.Ledger.Wallets(v.ctx(), cust.Ref)
	if err != nil {
		return err
	}
	for _, w := range wallets {
		rule, err := s.ruleShown(v, &w)
		if err != nil {
			return err
		}
		p.Wallets = append(p.Wallets, walletRow{w, rule})
	}
	m, mirrored, err := s.Ledger.MirrorOf(v.ctx(), cust.Ref)
	if err != nil {
		return err
	}
	if mirrored {
		p.Mirror = &m
	}
	acts, err := s.Ledger.Acts(v.ctx(), ledger.ActFilter{Customer: cust.ID}, "", 5)
	if err != nil {
		return err
	}
	for _, a := range acts {
		p.Acts = append(p.Acts, auditRow{a, actionName(a.Action)})
	}
	return s.show(v, http.StatusOK, "customer", pages.Frame{Title: cust.ID, Data: p})
}

// metadataRows are a customer's metadata, as names and values.
func metadataRows(text string) (rows []option) {
	var m map[string]string
	if decodeJSON([]byte(text), &m) != nil {
		return nil
	}
	for k, v := range m {
		rows = append(rows, option{k, v})
	}
	slices.SortFunc(rows, func(a, b option) int { return strings.Compare(a.Value, b.Value) })
	return rows
}

// ruleShown is a wallet's rule in words; nil where it has none.
func (s *Server) ruleShown(v *visit, w *ledger.Wallet) (*ruleShown, error) {
	r, found, err := s.Ledger.RuleOf(v.ctx(), w)
	if err != nil || !found {
		return nil, err
	}
	is := &ruleShown{RuleView: r, Asset: w.Asset}
	amount := func(n int64) string { return v.locale.Amount(n, w.Scale, w.Asset) }
	switch {
	case r.Threshold != nil:
		is.When = "below " + amount(*r.Threshold)
	default:
		is.When = "below " + strconv.Itoa(int(deref(r.ThresholdPercent))) + "% of what was there after the last refill (" + amount(w.FullAmount) + ")"
	}
	if r.RunwayMinutes != nil {
		is.When += ", or when it would not last " + strconv.Itoa(int(*r.RunwayMinutes)) + " minutes"
	}
	if r.Amount != nil {
		is.Buys = "by " + amount(*r.Amount)
	} else {
		is.Buys = "up to " + amount(deref(r.Target))
	}
	if pause := pauseJSON(&r); pause != nil {
		is.Clears = pause.ClearsWhen
	}
	if r.CapAmount != nil && *r.CapAmount > 0 {
		is.SpentShare = min(100, r.Spent*100 / *r.CapAmount)
	}
	return is, nil
}

// entryTypes are the types of entries, for the filter of a wallet's page.
var entryTypes = []string{"grant", "debit", "hold", "capture", "release", "expire", "void", "refund", "dispute", "reversal", "stripe_balance", "adjustment"}

// What a wallet's page shows of each at most.
const (
	maxBurnShown  = 50
	maxOtherShown = 10
	maxHoldsShown = 20
	maxTopsShown  = 10
)

type walletPage struct {
	ledger.Wallet
	Rule     *ruleShown
	Burn     []ledger.Grant
	MoreBurn bool
	Other    []ledger.Grant
	Holds    []ledger.Hold
	MoreHold bool
	Tops     []topupRow
	Entries  []entryRow
	Type     string
	Types    []string
	Page     listPage
	Searched bool // no entry of the type was found as far as was looked
}

type topupRow struct {
	ledger.Topup
	Payment, Bill *stripeLink
}

type entryRow struct {
	ledger.Entry
	Debit string // the page that explains it, of a debit
	About string // the page of what it refers to
}

func (s *Server) showWallet(v *visit) error {
	w, err := s.wallet(v.call)
	if err != nil {
		return err
	}
	p := walletPage{Wallet: w, Types: entryTypes}
	if p.Rule, err = s.ruleShown(v, &w); err != nil {
		return err
	}
	if p.Burn, err = s.Ledger.BurnOrder(v.ctx(), &w, maxBurnShown+1); err != nil {
		return err
	}
	if p.MoreBurn = len(p.Burn) > maxBurnShown; p.MoreBurn {
		p.Burn = p.Burn[:maxBurnShown]
	}
	if p.Other, err = s.Ledger.OtherGrants(v.ctx(), &w, maxOtherShown); err != nil {
		return err
	}
	if p.Holds, err = s.Ledger.OpenHolds(v.ctx(), &w, maxHoldsShown+1); err != nil {
		return err
	}
	if p.MoreHold = len(p.Holds) > maxHoldsShown; p.MoreHold {
		p.Holds = p.Holds[:maxHoldsShown]
	}
	tops, err := s.Ledger.TopupsOf(v.ctx(), &w, maxTopsShown)
	if err != nil {
		return err
	}
	for _, t := range tops {
		p.Tops = append(p.Tops, topupRow{t, s.stripeLink(t.PaymentIntent), s.stripeLink(t.Invoice)})
	}
	if err := s.walletEntries(v, &p); err != nil {
		return err
	}
	return s.show(v, http.StatusOK, "wallet", pages.Frame{Title: "Wallet of " + w.Customer, Data: &p})
}

// walletEntries reads the page of entries that is asked for.
func (s *Server) walletEntries(v *visit, p *walletPage) error {
	p.Type = v.query.Get("type")
	if p.Type != "" && !slices.Contains(entryTypes, p.Type) {
		return invalid("type", "there are no entries of that type")
	}
	below := int64(0)
	if after := v.query.Get("after"); after != "" {
		var err error
		if below, err = strconv.ParseInt(after, 10, 64); err != nil || below < 1 {
			return invalid("after", "this page of entries is none: open the wallet again")
		}
	}
	entries, next, err := s.Ledger.EntriesOfType(v.ctx(), &p.Wallet, p.Type, below, onPage)
	if err != nil {
		return err
	}
	for _, e := range entries {
		row := entryRow{Entry: e, About: placeOf(e.RefersTo)}
		if e.Type == "debit" {
			row.Debit = "/console/debits/deb_" + strings.TrimPrefix(e.ID, "ent_")
		}
		p.Entries = append(p.Entries, row)
	}
	_, p.Page = v.pageOf(0, nil)
	if next > 0 {
		_, p.Page = v.pageOf(onPage+1, func(int) string { return strconv.FormatInt(next, 10) })
	}
	p.Searched = len(entries) == 0 && next > 0
	return nil
}

type debitPage struct {
	ledger.Debit
	Asset string
	Parts []debitPart
	Left  int64 // that was not given back
}

type debitPart struct {
	explainedPart
	Steps int64
	Grant string
	Kind  string
	Paid  *stripeLink // what funded the grant
}

// showDebit explains a debit: which grants paid, by which rule, and what funded each.
func (s *Server) showDebit(v *visit) error {
	d, err := s.Ledger.DebitByID(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	w, err := s.Ledger.Wallet(v.ctx(), d.Wallet)
	if err != nil {
		return err
	}
	p := debitPage{Debit: d, Asset: w.Asset}
	for i, part := range d.Parts {
		if i == maxBurnShown {
			break
		}
		e, err := s.explainPart(v.call, part, d.Scale)
		if err != nil {
			return err
		}
		row := debitPart{explainedPart: e, Steps: part.Amount, Grant: part.Grant}
		if e.Grant != nil {
			row.Kind = e.Grant.Kind
			row.Paid = s.stripeLink(e.FundedBy.PaymentIntent)
		}
		p.Parts = append(p.Parts, row)
	}
	if p.Left, err = s.Ledger.LeftToReverse(v.ctx(), &d); err != nil {
		return err
	}
	return s.show(v, http.StatusOK, "debit", pages.Frame{Title: "Debit of " + d.Customer, Data: p})
}

type grantPage struct {
	ledger.Grant
	Wallet  ledger.Wallet
	PaidBy  string
	Now     time.Time
	CanVoid bool
}

func (s *Server) showGrant(v *visit) error {
	g, err := s.Ledger.GrantByID(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	w, err := s.Ledger.Wallet(v.ctx(), g.Wallet) // turns what is due, which may end the grant
	if err == nil {
		g, err = s.Ledger.GrantByID(v.ctx(), g.ID)
	}
	if err != nil {
		return err
	}
	p := grantPage{Grant: g, Wallet: w, PaidBy: g.PaidBy(), Now: s.Ledger.Now(), CanVoid: g.Status == "confirmed"}
	return s.show(v, http.StatusOK, "grant", pages.Frame{Title: "Grant of " + w.Customer, Data: p})
}
