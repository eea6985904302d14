package handlers

import (
	"os"
	"slices"
	"strings"
	"testing"

	"lockstep/ledger"
	"lockstep/stripeutil"
)

// judged is what a difference has to be.
type judgedAs struct {
	kind, state    string // "" for no difference at all
	ledger, stripe int64
	repairable     bool
	says           string // in the explanation or the action
}

func (want judgedAs) check(t *testing.T, name string, found []difference) {
	t.Helper()
	if want.kind == "" {
		if len(found) > 0 {
			t.Errorf("%s: %+v, want nothing", name, found)
		}
		return
	}
	if len(found) != 1 {
		t.Errorf("%s: %+v, want one %s", name, found, want.kind)
		return
	}
	d := found[0]
	if d.kind != want.kind || d.state != want.state || d.ledger != want.ledger || d.stripe != want.stripe || d.repairable != want.repairable {
		t.Errorf("%s: %+v, want %+v", name, d, want)
	}
	if !strings.Contains(d.why+" | "+d.todo, want.says) {
		t.Errorf("%s: %q and %q, want %q", name, d.why, d.todo, want.says)
	}
	if d.why == "" || d.todo == "" || !slices.Contains(FindingKinds, d.kind) {
		t.Errorf("%s: %+v is not explained", name, d)
	}
}

func booked(status string, change ...func(*ledger.TopupBooks)) *ledger.TopupBooks {
	pi := "pi_1"
	b := &ledger.TopupBooks{Topup: ledger.Topup{ID: "top_1", Mode: "charge", Status: status, Amount: 20_000_000, Charge: 2000, Currency: "usd", GrantID: "grt_1", PaymentIntent: &pi, Trigger: "auto"},
		GrantAmount: 20_000_000, GrantStatus: "confirmed"}
	if b.InFlight() {
		b.PaymentIntent = nil
	}
	for _, f := range change {
		f(b)
	}
	return b
}

// payment is one of the top-up top_1.
func payment(status string, change ...func(*stripeutil.PaymentIntent)) stripeutil.PaymentIntent {
	pi := stripeutil.PaymentIntent{ID: "pi_1", Status: status, Currency: "usd", Amount: 2000, Metadata: map[string]string{TopupMetadata: "top_1"}}
	if status == "succeeded" {
		pi.AmountReceived = 2000
	}
	for _, f := range change {
		f(&pi)
	}
	return pi
}

// A top-up and its payment, in every way in which the two can be.
func TestJudgeTopup(t *testing.T) {
	t.Parallel()
	received := func(n int64) func(*stripeutil.PaymentIntent) {
		return func(pi *stripeutil.PaymentIntent) { pi.AmountReceived = n }
	}
	back := func(n int64) func(*stripeutil.PaymentIntent) {
		return func(pi *stripeutil.PaymentIntent) { pi.Refunded = n }
	}
	other := func(pi *stripeutil.PaymentIntent) { pi.ID = "pi_2" }
	declined := func(code string) func(*stripeutil.PaymentIntent) {
		return func(pi *stripeutil.PaymentIntent) { pi.Failure = &stripeutil.Failure{Code: code} }
	}
	granted := func(steps int64) func(*ledger.TopupBooks) {
		return func(b *ledger.TopupBooks) { b.GrantAmount = steps }
	}
	voided := func(b *ledger.TopupBooks) { b.GrantStatus = "voided" }
	page := func(b *ledger.TopupBooks) { b.Mode = "checkout" }
	for name, tt := range map[string]struct {
		books *ledger.TopupBooks
		pi    stripeutil.PaymentIntent
		want  judgedAs
	}{
		"paid and credited":                       {booked("succeeded"), payment("succeeded"), judgedAs{}},
		"paid, and of another's":                  {nil, payment("succeeded"), judgedAs{kindChargeWithoutGrant, "stripe_ahead", 0, 2000, false, "refund it in Stripe"}},
		"of another's, and given back":            {nil, payment("succeeded", back(2000)), judgedAs{}},
		"of another's, and given back in part":    {nil, payment("succeeded", back(1999)), judgedAs{kindChargeWithoutGrant, "stripe_ahead", 0, 2000, false, "top_1"}},
		"of another's, not paid":                  {nil, payment("processing"), judgedAs{}},
		"paid, in flight":                         {booked("pending"), payment("succeeded"), judgedAs{kindTopupStuck, "stripe_ahead", 0, 2000, true, "20.00 USD"}},
		"paid, failed":                            {booked("failed"), payment("succeeded"), judgedAs{kindChargeWithoutGrant, "stripe_ahead", 0, 2000, true, "has failed"}},
		"paid, canceled":                          {booked("canceled"), payment("succeeded"), judgedAs{kindChargeWithoutGrant, "stripe_ahead", 0, 2000, true, "was canceled"}},
		"paid, failed, and given back":            {booked("failed"), payment("succeeded", back(2000)), judgedAs{}},
		"paid twice":                              {booked("succeeded"), payment("succeeded", other), judgedAs{kindChargeWithoutGrant, "stripe_ahead", 2000, 4000, false, "refund pi_2"}},
		"paid twice, once given back":             {booked("succeeded"), payment("succeeded", other, back(2000)), judgedAs{}},
		"paid less, and granted so":               {booked("succeeded", granted(15_000_000)), payment("succeeded", received(1500)), judgedAs{}},
		"paid less":                               {booked("succeeded"), payment("succeeded", received(1500)), judgedAs{kindAmount, "ledger_ahead", 2000, 1500, false, "/v1/grants/grt_1/void"}},
		"paid more":                               {booked("succeeded"), payment("succeeded", received(2001)), judgedAs{kindAmount, "stripe_ahead", 2000, 2001, false, "refund the rest"}},
		"paid less, and voided":                   {booked("succeeded", voided), payment("succeeded", received(1500)), judgedAs{}},
		"credited, canceled":                      {booked("succeeded"), payment("canceled"), judgedAs{kindGrantWithoutCharge, "ledger_ahead", 2000, 0, false, `POST /v1/grants/grt_1/void {"reason":"was not paid"}`}},
		"credited, declined":                      {booked("succeeded"), payment("requires_payment_method", declined("card_declined")), judgedAs{kindGrantWithoutCharge, "ledger_ahead", 2000, 0, false, "requires_payment_method"}},
		"credited, nothing said":                  {booked("succeeded"), payment("requires_confirmation"), judgedAs{kindGrantWithoutCharge, "ledger_ahead", 2000, 0, false, "requires_confirmation"}},
		"credited, canceled, and voided":          {booked("succeeded", voided), payment("canceled"), judgedAs{}},
		"credited by another payment":             {booked("succeeded"), payment("canceled", other), judgedAs{}},
		"in flight, canceled":                     {booked("pending"), payment("canceled"), judgedAs{kindTopupStuck, "in_step", 0, 0, true, "canceled"}},
		"in flight, declined":                     {booked("processing"), payment("requires_payment_method", declined("card_declined")), judgedAs{kindTopupStuck, "in_step", 0, 0, true, "end the top-up"}},
		"in flight, waits for the customer":       {booked("action_required"), payment("requires_payment_method", declined("authentication_required")), judgedAs{}},
		"in flight, processing":                   {booked("pending"), payment("processing"), judgedAs{}},
		"failed, failed":                          {booked("failed"), payment("canceled"), judgedAs{}},
		"on a page, declined, for another card":   {booked("pending", page), payment("requires_payment_method", declined("card_declined")), judgedAs{}},
		"on a page, in a currency of their own":   {booked("succeeded", page), payment("succeeded", received(1870), func(pi *stripeutil.PaymentIntent) { pi.Currency = "eur" }), judgedAs{}},
		"the payment of another top-up":           {booked("succeeded"), payment("succeeded", func(pi *stripeutil.PaymentIntent) { pi.Metadata = nil }), judgedAs{kindGrantWithoutCharge, "ledger_ahead", 2000, 0, false, "the payment of something else"}},
		"in flight, the payment of another thing": {booked("pending"), payment("succeeded", func(pi *stripeutil.PaymentIntent) { pi.Metadata = nil }), judgedAs{}},
	} {
		tt.want.check(t, name, judgeTopup(sidesOfPayment("top_1", tt.books, tt.pi)))
	}
	judgedAs{kindGrantWithoutCharge, "ledger_ahead", 2000, 0, false, "Stripe does not know pi_1"}.check(t, "gone", judgeTopup(topupSides{topup: "top_1", books: booked("succeeded"), object: "pi_1", gone: true}))
	judgedAs{kindTopupStuck, "in_step", 0, 0, false, "/v1/topups/top_1/cancel"}.check(t, "never made", judgeTopup(topupSides{topup: "top_1", books: booked("processing"), gone: true}))
}

// A top-up and its invoice: what the balance paid of it counts, too.
func TestJudgeInvoicedTopup(t *testing.T) {
	t.Parallel()
	in := func(status string, paid, starting int64) stripeutil.Invoice {
		return stripeutil.Invoice{ID: "in_1", Status: status, AmountPaid: paid, StartingBalance: starting, Customer: "cus_1", PaymentIntent: "pi_1", Metadata: map[string]string{TopupMetadata: "top_1"}}
	}
	invoiced := func(b *ledger.TopupBooks) { b.Mode, b.StripeCustomer = "invoice", "cus_1" }
	for name, tt := range map[string]struct {
		books *ledger.TopupBooks
		in    stripeutil.Invoice
		want  judgedAs
	}{
		"paid":                {booked("succeeded", invoiced), in("paid", 2000, 0), judgedAs{}},
		"paid by the balance": {booked("succeeded", invoiced), in("paid", 1700, -300), judgedAs{}},
		"void":                {booked("succeeded", invoiced), in("void", 0, 0), judgedAs{kindGrantWithoutCharge, "ledger_ahead", 2000, 0, false, "in_1"}},
		"in flight, paid":     {booked("pending", invoiced), in("paid", 2000, 0), judgedAs{kindTopupStuck, "stripe_ahead", 0, 2000, true, "in_1"}},
		"in flight, void":     {booked("pending", invoiced), in("void", 0, 0), judgedAs{kindTopupStuck, "in_step", 0, 0, true, "void"}},
		"of nobody's":         {nil, in("paid", 2000, 0), judgedAs{kindChargeWithoutGrant, "stripe_ahead", 0, 2000, false, "top_1"}},
	} {
		tt.want.check(t, name, judgeTopup(sidesOfInvoice(tt.books, tt.in)))
	}
}

// An invoice or a checkout that sold credit, and what came of it.
func TestJudgeSale(t *testing.T) {
	t.Parallel()
	sold := &ledger.SaleBooks{Sale: "in_1", Grants: "grt_1, grt_2", Cost: 1000, Currency: "usd"}
	for name, tt := range map[string]struct {
		sides saleSides
		want  judgedAs
	}{
		"booked and paid":             {saleSides{paid: true, books: sold}, judgedAs{}},
		"paid, sold, not booked":      {saleSides{paid: true, sells: true, owner: "acme", amount: 1000}, judgedAs{kindSaleUnbooked, "stripe_ahead", 0, 1000, true, "10.00 USD"}},
		"to a stranger":               {saleSides{paid: true, sells: true, amount: 1000}, judgedAs{kindSaleUnbooked, "stripe_ahead", 0, 1000, false, "link the Stripe customer"}},
		"to one who was deleted":      {saleSides{paid: true, sells: true, owner: "acme", closed: true, amount: 1000}, judgedAs{kindSaleUnbooked, "stripe_ahead", 0, 1000, false, "refund it"}},
		"paid, and sells nothing":     {saleSides{paid: true, owner: "acme"}, judgedAs{}},
		"not paid":                    {saleSides{sells: true, owner: "acme"}, judgedAs{}},
		"booked, void":                {saleSides{books: sold, status: "void"}, judgedAs{kindGrantWithoutCharge, "ledger_ahead", 1000, 0, false, "/v1/grants/grt_2/void"}},
		"booked, not there":           {saleSides{books: sold, gone: true}, judgedAs{kindGrantWithoutCharge, "ledger_ahead", 1000, 0, false, "Stripe does not know it"}},
		"booked, void, and seen to":   {saleSides{books: &ledger.SaleBooks{Sale: "in_1"}, status: "void"}, judgedAs{}},
		"booked with nothing, unpaid": {saleSides{books: &ledger.SaleBooks{Sale: "in_1"}, gone: true}, judgedAs{}},
	} {
		tt.sides.id, tt.sides.currency = "in_1", "usd"
		tt.want.check(t, name, judgeSale(tt.sides))
	}
}

// Refunds and disputes, and what was taken back for them.
func TestJudgeBacks(t *testing.T) {
	t.Parallel()
	move := func(kind, status string, amount int64) []ledger.MoneyBack {
		m := ledger.MoneyBack{ID: "re_1", Kind: kind, Status: status, Amount: amount, Currency: "usd", Stands: true}
		switch status {
		case "failed", "canceled", "won":
			m.Stands, m.Final = false, true
		case "lost":
			m.Final = true
		case "needs_response":
			m.Open = true
		case "warning_needs_response":
			m.Stands = false
		}
		return []ledger.MoneyBack{m}
	}
	taken := func(steps, times int64) []ledger.BoughtGrant {
		return []ledger.BoughtGrant{{ID: "grt_1", Amount: 20_000_000, Taken: steps, Times: times}}
	}
	refund, dispute := move("refund", "succeeded", 500), move("dispute", "needs_response", 2000)
	for name, tt := range map[string]struct {
		stripe, books []ledger.MoneyBack
		grants        []ledger.BoughtGrant
		want          judgedAs
	}{
		"none":                             {nil, nil, taken(0, 0), judgedAs{}},
		"a refund, taken":                  {refund, refund, taken(5_000_000, 1), judgedAs{}},
		"a refund, pending before":         {refund, move("refund", "pending", 500), taken(5_000_000, 1), judgedAs{}},
		"a refund, rounded":                {refund, refund, taken(4_999_999, 1), judgedAs{}},
		"a refund, unheard":                {refund, nil, taken(0, 0), judgedAs{kindRefundUnbooked, "ledger_ahead", 2000, 1500, true, "5.00 USD"}},
		"a refund that failed, unheard":    {move("refund", "failed", 500), nil, taken(0, 0), judgedAs{}},
		"a refund that failed since":       {move("refund", "failed", 500), refund, taken(5_000_000, 1), judgedAs{kindRefundFailed, "stripe_ahead", 1500, 2000, true, "has failed"}},
		"a refund that was canceled since": {move("refund", "canceled", 500), refund, taken(5_000_000, 1), judgedAs{kindRefundFailed, "stripe_ahead", 1500, 2000, true, "was canceled"}},
		"a refund of another amount":       {refund, move("refund", "succeeded", 300), taken(3_000_000, 1), judgedAs{kindRefundDiffers, "ledger_ahead", 1700, 1500, true, "of 3.00 USD in the books"}},
		"a refund, nothing taken":          {refund, refund, taken(0, 0), judgedAs{kindRefundDiffers, "ledger_ahead", 2000, 1500, true, "take what is missing"}},
		"a refund, too much taken":         {refund, refund, taken(6_000_000, 1), judgedAs{kindRefundDiffers, "stripe_ahead", 1400, 1500, false, "grt_1"}},
		"a refund of what bought nothing":  {refund, refund, nil, judgedAs{}},
		"taken for nothing":                {nil, nil, taken(5_000_000, 1), judgedAs{kindRefundDiffers, "stripe_ahead", 1500, 2000, false, "no refund or dispute of it stands"}},
		"a dispute, unheard":               {dispute, nil, taken(0, 0), judgedAs{kindDisputeUnbooked, "ledger_ahead", 2000, 0, true, "needs_response"}},
		"a dispute, taken":                 {dispute, dispute, taken(20_000_000, 1), judgedAs{}},
		"a dispute, lost unheard":          {move("dispute", "lost", 2000), nil, taken(0, 0), judgedAs{kindDisputeUnbooked, "ledger_ahead", 2000, 0, true, "lost"}},
		"a dispute, won unheard":           {move("dispute", "won", 2000), nil, taken(0, 0), judgedAs{}},
		"a dispute, won since":             {move("dispute", "won", 2000), dispute, taken(20_000_000, 1), judgedAs{kindDisputeChanged, "stripe_ahead", 0, 2000, true, "give the credit back"}},
		"a dispute, lost since":            {move("dispute", "lost", 2000), dispute, taken(20_000_000, 1), judgedAs{kindDisputeChanged, "in_step", 0, 0, true, "rules charge again"}},
		"an inquiry":                       {move("dispute", "warning_needs_response", 2000), nil, taken(0, 0), judgedAs{}},
		"an inquiry that became a dispute": {dispute, move("dispute", "warning_needs_response", 2000), taken(0, 0), judgedAs{kindDisputeUnbooked, "ledger_ahead", 2000, 0, true, "needs_response"}},
	} {
		tt.want.check(t, name, judgeBacks(backSides{payment: "pi_1", currency: "usd", received: 2000, stripe: tt.stripe, books: tt.books, grants: tt.grants}))
	}
}

// A customer's balance: who wrote what, in step to the cent, and what nobody can compare.
func TestJudgeBalance(t *testing.T) {
	t.Parallel()
	txn := func(id string, amount int64, flush, doubles string) ledger.StripeTransaction {
		return ledger.StripeTransaction{ID: id, Amount: amount, Flush: flush, Doubles: doubles}
	}
	at := func(balance int64) stripeutil.Customer {
		return stripeutil.Customer{ID: "cus_1", Balance: balance, Currency: "usd"}
	}
	mirror := func(want, credit int64) ledger.MirrorView {
		return ledger.MirrorView{Mirror: ledger.Mirror{Credit: credit, Currency: "usd"}, Want: want}
	}
	tried := mirror(1000, 900)
	tried.Tries = 3
	for name, tt := range map[string]struct {
		sides balanceSides
		state string // of the customer
		want  judgedAs
	}{
		"in step":           {balanceSides{stripe: at(-1000), mirror: mirror(1000, 1000)}, "in_step", judgedAs{}},
		"to be flushed":     {balanceSides{stripe: at(-900), mirror: mirror(1000, 900)}, "flushing", judgedAs{kindUnflushed, "flushing", 1000, 900, true, "next flush"}},
		"refused for long":  {balanceSides{stripe: at(-900), mirror: tried}, "flushing", judgedAs{kindUnflushed, "flushing", 1000, 900, true, "3 times in a row"}},
		"our own, unnoted":  {balanceSides{stripe: at(-1000), mirror: mirror(1000, 900), unknown: []ledger.StripeTransaction{txn("cbtxn_1", -100, "flu_1", "")}}, "flushing", judgedAs{kindUnflushed, "flushing", 1000, 1000, true, ""}},
		"a stranger's":      {balanceSides{stripe: at(-1300), mirror: mirror(1000, 1000), unknown: []ledger.StripeTransaction{txn("cbtxn_1", -300, "", "")}}, "foreign", judgedAs{kindForeign, "foreign", 1000, 1300, true, "3.00 USD"}},
		"a copy of ours":    {balanceSides{stripe: at(-2000), mirror: mirror(1000, 1000), unknown: []ledger.StripeTransaction{txn("cbtxn_2", -1000, "flu_1", "cbtxn_1")}}, "foreign", judgedAs{kindDoubled, "foreign", 1000, 2000, true, "cbtxn_2, a copy of cbtxn_1"}},
		"two of one, new":   {balanceSides{stripe: at(-200), mirror: mirror(100, 0), unknown: []ledger.StripeTransaction{txn("cbtxn_2", -100, "flu_1", ""), txn("cbtxn_1", -100, "flu_1", "")}}, "foreign", judgedAs{kindDoubled, "foreign", 100, 200, true, "cbtxn_2, a copy of cbtxn_1"}},
		"more than known":   {balanceSides{stripe: at(-1200), mirror: mirror(1000, 1000)}, "stripe_ahead", judgedAs{kindStripeAhead, "stripe_ahead", 1000, 1200, true, "2.00 USD more"}},
		"less than known":   {balanceSides{stripe: at(-800), mirror: mirror(1000, 1000)}, "ledger_ahead", judgedAs{kindLedgerAhead, "ledger_ahead", 1000, 800, true, "2.00 USD less"}},
		"partly explained":  {balanceSides{stripe: at(-1300), mirror: mirror(1000, 1000), unknown: []ledger.StripeTransaction{txn("cbtxn_1", -100, "", "")}}, "stripe_ahead", judgedAs{kindStripeAhead, "stripe_ahead", 1000, 1300, true, "3.00 USD more"}},
		"deleted":           {balanceSides{stripe: stripeutil.Customer{Deleted: true}, mirror: mirror(0, 0)}, "unknown", judgedAs{kindDeleted, "unknown", 0, 0, true, "cus_1 was deleted"}},
		"deleted, known":    {balanceSides{deletedHere: true, mirror: mirror(0, 0)}, "unknown", judgedAs{}},
		"deleted, has some": {balanceSides{deletedHere: true, mirror: mirror(500, 500)}, "unknown", judgedAs{kindDeleted, "unknown", 500, 500, false, "5.00 USD"}},
		"not there":         {balanceSides{missing: true, mirror: mirror(0, 0)}, "unknown", judgedAs{kindMissing, "unknown", 0, 0, false, "lockstep doctor"}},
		"in euros":          {balanceSides{stripe: stripeutil.Customer{Currency: "eur"}, mirror: mirror(0, 0)}, "unknown", judgedAs{kindCurrency, "unknown", 0, 0, false, "EUR"}},
		"in part in euros":  {balanceSides{stripe: stripeutil.Customer{Currency: "usd"}, mirror: ledger.MirrorView{Mirror: ledger.Mirror{Currency: "usd"}, Unshown: []string{"eur"}}}, "in_step", judgedAs{kindUnshown, "in_step", 0, 0, false, "credit of eur"}},
		"without currency":  {balanceSides{stripe: stripeutil.Customer{}, mirror: mirror(0, 0)}, "in_step", judgedAs{}},
	} {
		tt.sides.customer, tt.sides.stripeCustomer = "acme", "cus_1"
		v, found := judgeBalance(tt.sides)
		tt.want.check(t, name, found)
		if v.State != tt.state {
			t.Errorf("%s: the customer is %s, want %s", name, v.State, tt.state)
		}
	}
	v, found := judgeBalance(balanceSides{stripe: at(-1400), mirror: mirror(1000, 1000), unknown: []ledger.StripeTransaction{txn("cbtxn_3", -300, "", ""), txn("cbtxn_2", -100, "flu_1", "cbtxn_1")}})
	if len(found) != 2 || found[0].kind != kindDoubled || found[1].kind != kindForeign || v.Drift != 400 {
		t.Errorf("a copy and a stranger's: %+v, %+v", v, found)
	}
}

// The kinds are the same in the code, in the API's document and in the README.
func TestFindingKindsAreDocumented(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("openapi/lockstep.yaml")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "enum: [" + strings.Join(FindingKinds, ", ") + "]"; !strings.Contains(string(document), want) {
		t.Errorf("the document does not say %s", want)
	}
	for _, kind := range FindingKinds {
		if !strings.Contains(string(document), "`"+kind+"`") || !strings.Contains(string(readme), "`"+kind+"`") {
			t.Errorf("%s is not explained in the document and in the README", kind)
		}
	}
}
