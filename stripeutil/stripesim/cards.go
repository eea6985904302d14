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
	bank         bool   // us_bank_account instead of card
	decline      string // decline code of each charge; "" pays
	refused      bool   // declined at attach already
	auth         bool   // the customer must authenticate each payment
	authOnSetup  bool   // the customer must authenticate unless the method was set up before
	dispute      bool   // each charge is disputed at once
	hangs        bool   // a bank debit that stays processing until told otherwise
}

// testCards are Stripe's test tokens, with Stripe's behaviour. The three bank
// tokens pay (or fail) after processingTime, the third only when
// Operator.FinishProcessing says so.
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
	"pm_usBankAccount_success":                     {last4: "6789", bank: true},
	"pm_usBankAccount_insufficientFunds":           {last4: "2222", bank: true, decline: "insufficient_funds"},
	"pm_usBankAccount_processing":                  {last4: "0004", bank: true, hangs: true},
}

// cardFor finds how a token behaves.
func cardFor(token string) (testCard, bool) {
	if card, ok := testCards[token]; ok {
		return card, true
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

func authenticationRequired() *apiError {
	e := refuse(402, "authentication_required", "", "%s", "Your card was declined. This transaction requires authentication.")
	e.Type, e.DeclineCode = cardError, "authentication_required"
	return e
}
