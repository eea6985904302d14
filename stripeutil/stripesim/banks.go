package stripesim

// bankAccount is what a method of type us_bank_account shows.
type bankAccount struct {
	AccountHolderType string `json:"account_holder_type"`
	AccountType       string `json:"account_type"`
	BankName          string `json:"bank_name"`
	Fingerprint       string `json:"fingerprint"`
	Last4             string `json:"last4"`
	RoutingNumber     string `json:"routing_number"`
}

// bankDebit is what the other bank debits show; each kind has some of it.
type bankDebit struct {
	BankCode          string `json:"bank_code,omitempty"`
	BankName          string `json:"bank_name,omitempty"`
	BranchCode        string `json:"branch_code,omitempty"`
	BSBNumber         string `json:"bsb_number,omitempty"`
	Country           string `json:"country,omitempty"`
	Fingerprint       string `json:"fingerprint"`
	InstitutionNumber string `json:"institution_number,omitempty"`
	Last4             string `json:"last4"`
	SortCode          string `json:"sort_code,omitempty"`
	TransitNumber     string `json:"transit_number,omitempty"`
}

// fillBank makes a method the bank account of a test token.
func (pm *paymentMethod) fillBank(spec testCard) {
	pm.Type = spec.bank
	print := newID("", 16)
	switch spec.bank {
	case "sepa_debit":
		pm.SEPADebit = &bankDebit{BankCode: "37040044", BranchCode: "94832", Country: "DE", Fingerprint: print, Last4: spec.last4}
	case "acss_debit":
		pm.ACSSDebit = &bankDebit{BankName: "STRIPE TEST BANK", Fingerprint: print, InstitutionNumber: "000", Last4: spec.last4, TransitNumber: "11000"}
	case "au_becs_debit":
		pm.BECSDebit = &bankDebit{BSBNumber: "000000", Fingerprint: print, Last4: spec.last4}
	case "bacs_debit":
		pm.BACSDebit = &bankDebit{Fingerprint: print, Last4: spec.last4, SortCode: "108800"}
	default:
		pm.USBankAccount = &bankAccount{AccountHolderType: "individual", AccountType: "checking", BankName: "STRIPE TEST BANK",
			Fingerprint: print, Last4: spec.last4, RoutingNumber: "110000000"}
	}
}

// bank is what a method shows of its bank account, nil for a card. A charge
// shows the same.
func (pm *paymentMethod) bank() any {
	switch {
	case pm.USBankAccount != nil:
		return pm.USBankAccount
	case pm.SEPADebit != nil:
		return pm.SEPADebit
	case pm.ACSSDebit != nil:
		return pm.ACSSDebit
	case pm.BECSDebit != nil:
		return pm.BECSDebit
	case pm.BACSDebit != nil:
		return pm.BACSDebit
	}
	return nil
}
