package stripesim

import (
	"slices"
	"strings"
	"time"
)

// processingTime is how long a bank debit takes on the simulator's clock.
const processingTime = time.Minute

// customDecline begins the tokens of the simulator's own: pm_card_stripesim_X
// attaches and then declines every charge with decline code X.
const customDecline = "pm_card_stripesim_"

// testCard is how a payment method made from a test token behaves.
type testCard struct {
	brand, last4 string
	bank         string // the type of a bank debit, such as sepa_debit; "" is a card
	decline      string // decline code of each charge, of a bank debit its failure code; "" pays
	refused      bool   // declined at attach already
	auth         bool   // the customer must authenticate each payment
	authOnSetup  bool   // the customer must authenticate unless the method was set up before
	dispute      bool   // each charge is disputed at once
	hangs        bool   // a bank debit that stays processing until told otherwise
}

// bankDebits are the methods that debit a bank account, by the names that their
// tokens have, and the currencies that they pay in.
var bankDebits = map[string]struct {
	kind       string
	currencies []string
}{
	"usBankAccount": {"us_bank_account", []string{"usd"}},
	"sepaDebit":     {"sepa_debit", []string{"eur"}},
	"acssDebit":     {"acss_debit", []string{"cad", "usd"}},
	"auBecsDebit":   {"au_becs_debit", []string{"aud"}},
	"bacsDebit":     {"bacs_debit", []string{"gbp"}},
}

// debitCurrencies are the currencies that a type of method pays in; nil is any.
func debitCurrencies(kind string) []string {
	for _, d := range bankDebits {
		if d.kind == kind {
			return d.currencies
		}
	}
	return nil
}

// bankFor finds how a bank account of a token such as pm_sepaDebit_success
// behaves: every debit is processing; success pays after processingTime,
// processing only when Operator.FinishProcessing says so, and any other word is
// the code with which the bank sends the debit back, such as
// pm_usBankAccount_accountClosed.
func bankFor(token string) (testCard, bool) {
	name, outcome, ok := strings.Cut(strings.TrimPrefix(token, "pm_"), "_")
	debit, known := bankDebits[name]
	if !ok || !known || outcome == "" {
		return testCard{}, false
	}
	spec := testCard{last4: "6789", bank: debit.kind}
	switch outcome {
	case "success":
	case "processing":
		spec.last4, spec.hangs = "0004", true
	default:
		spec.last4, spec.decline = "2222", snake(outcome)
	}
	return spec, true
}

// testCards are Stripe's test tokens, with Stripe's behaviour.
var testCards = map[string]testCard{
	"pm_card_visa":                                 {brand: "visa", last4: "4242"},
	"pm_card_visa_debit":                           {brand: "visa", last4: "5556"},
	"pm_card_us":                                   {brand: "visa", last4: "4242"},
	"pm_card_mastercard":                           {brand: "mastercard", last4: "4444"},
	"pm_card_amex":                                 {brand: "amex", last4: "8431"},
	"pm_card_chargeCustomerFail":                   {brand: "visa", last4: "0341", decline: "generic_decline"},
	"pm_card_authenticationRequired":               {brand: "visa", last4: "3184", auth: true},
	"pm_card_authenticationRequiredOnSetup":        {brand: "visa", last4: "3155", authOnSetup: true},
	"pm_card_createDispute":                        {brand: "visa", last4: "0259", dispute: true},
	"pm_card_visa_chargeDeclined":                  {brand: "visa", last4: "0002", decline: "generic_decline", refused: true},
	"pm_card_chargeDeclined":                       {brand: "visa", last4: "0002", decline: "generic_decline", refused: true},
	"pm_card_visa_chargeDeclinedInsufficientFunds": {brand: "visa", last4: "9995", decline: "insufficient_funds", refused: true},
	"pm_card_chargeDeclinedInsufficientFunds":      {brand: "visa", last4: "9995", decline: "insufficient_funds", refused: true},
	"pm_card_visa_chargeDeclinedLostCard":          {brand: "visa", last4: "9987", decline: "lost_card", refused: true},
	"pm_card_visa_chargeDeclinedStolenCard":        {brand: "visa", last4: "9979", decline: "stolen_card", refused: true},
	"pm_card_chargeDeclinedExpiredCard":            {brand: "visa", last4: "0069", decline: "expired_card", refused: true},
	"pm_card_visa_chargeDeclinedExpiredCard":       {brand: "visa", last4: "0069", decline: "expired_card", refused: true},
	"pm_card_chargeDeclinedIncorrectCvc":           {brand: "visa", last4: "0127", decline: "incorrect_cvc", refused: true},
	"pm_card_visa_chargeDeclinedIncorrectCvc":      {brand: "visa", last4: "0127", decline: "incorrect_cvc", refused: true},
	"pm_card_chargeDeclinedProcessingError":        {brand: "visa", last4: "0119", decline: "processing_error", refused: true},
	"pm_card_visa_chargeDeclinedProcessingError":   {brand: "visa", last4: "0119", decline: "processing_error", refused: true},
	"pm_card_chargeDeclinedFraudulent":             {brand: "visa", last4: "0019", decline: "fraudulent", refused: true},
	"pm_card_visa_chargeDeclinedFraudulent":        {brand: "visa", last4: "0019", decline: "fraudulent", refused: true},
}

// cardFor finds how a token behaves.
func cardFor(token string) (testCard, bool) {
	if card, ok := testCards[token]; ok {
		return card, true
	}
	if bank, ok := bankFor(token); ok {
		return bank, true
	}
	code, ok := strings.CutPrefix(token, customDecline)
	if !ok || code == "" {
		return testCard{}, false
	}
	return testCard{brand: "visa", last4: "0341", decline: snake(code)}, true
}

// snake accepts a decline code in the camel case of Stripe's own tokens too.
func snake(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// declineMessages are the sentences for the codes that are not the generic one.
var declineMessages = map[string]string{
	"insufficient_funds": "Your card has insufficient funds.",
	"expired_card":       "Your card has expired.",
	"incorrect_cvc":      "Your card's security code is incorrect.",
	"incorrect_number":   "Your card number is incorrect.",
	"processing_error":   "An error occurred while processing your card. Try again in a little bit.",
}

// declined is the card error of a decline code. Four codes are error codes in
// their own right; the others come under card_declined.
func declined(decline string) *apiError {
	e := refuse(402, "card_declined", "", "%s", "Your card was declined.")
	if m := declineMessages[decline]; m != "" {
		e.Message = m
	}
	if slices.Contains([]string{"expired_card", "incorrect_cvc", "incorrect_number", "processing_error"}, decline) {
		e.Code, e.DocURL = decline, "https://stripe.com/docs/error-codes/"+dashed(decline)
	}
	if e.Code != decline || decline == "authentication_required" {
		e.DeclineCode = decline
	}
	e.Type = cardError
	return e
}

// sentBack is the failure of a bank debit, days after it was accepted: the code
// is the bank's reason, and there is no decline code.
func sentBack(code string) *apiError {
	if code == "" {
		code = "generic_could_not_process"
	}
	e := refuse(402, code, "", "%s", bankMessages[code])
	if e.Message == "" {
		e.Message = "The payment failed."
	}
	e.Type = cardError
	return e
}

var bankMessages = map[string]string{
	"account_closed":       "The customer's bank account has been closed.",
	"debit_not_authorized": "The customer has notified their bank that this payment was unauthorized.",
	"insufficient_funds":   "The customer's account has insufficient funds to cover this payment.",
	"no_account":           "The bank account could not be located.",
}

func authenticationRequired() *apiError {
	e := refuse(402, "authentication_required", "", "%s", "Your card was declined. This transaction requires authentication.")
	e.Type, e.DeclineCode = cardError, "authentication_required"
	return e
}
