package ledger

// Part is what one movement did to one grant. A part without a grant is debt: credit taken that no grant
// had, or, with a positive amount, debt paid down.
type Part struct {
	Grant  string // grt_…, or one of the two below
	Amount int64  // steps; negative where credit was taken
}

// The two kinds of debt, in the place of a grant's id.
const (
	debtPart       = ""       // owed here alone
	stripeDebtPart = "stripe" // owed here and shown as owed by the customer's balance in Stripe
)

// tranche is what burn needs to know of a grant: its id and what of it is free to take, now and at first.
type tranche struct {
	id        string
	free, was int64
	mirrored  bool // it may pay invoices, so Stripe shows it
}

// burn takes amount from the tranches in the order given, which is burn order, and lowers their free.
// It returns what it took, as negative parts, and what was missing.
func burn(tranches []tranche, amount int64) (parts []Part, short int64) {
	for i := range tranches {
		if amount == 0 {
			break
		}
		take := min(tranches[i].free, amount)
		if take <= 0 {
			continue
		}
		tranches[i].free -= take
		amount -= take
		parts = append(parts, Part{Grant: tranches[i].id, Amount: -take})
	}
	return parts, amount
}
