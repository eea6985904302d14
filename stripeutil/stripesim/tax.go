package stripesim

// taxRates are those of the countries that the simulated merchant collects tax in, in hundredths of a percent. A
// customer elsewhere pays none.
var taxRates = map[string]int64{"DE": 1900, "GB": 2000, "FR": 2000}

// country is where a customer is taxed; "" is not known.
func (cus *customer) country() string {
	fields, _ := cus.Address.(map[string]any)
	switch country := fields["country"].(type) {
	case opt:
		return string(country)
	case string:
		return country
	}
	return ""
}

// taxed puts tax on a draft's lines and into its total, where it is asked for and the customer's country is known.
func (c *call) taxed(in *invoice) {
	if in.AutomaticTax["enabled"] != true {
		return
	}
	cus := c.state.Customers.get(in.Customer)
	country := cus.country()
	if country == "" {
		in.AutomaticTax["status"] = "requires_location_inputs"
		return
	}
	in.AutomaticTax["status"] = "complete"
	rate, reason := taxRates[country], "standard_rated"
	if cus.TaxExempt != "none" {
		rate, reason = 0, "customer_exempt"
	} else if rate == 0 {
		reason = "not_collecting"
	}
	in.TotalTaxAmounts = []any{}
	sum := int64(0)
	for i := range in.Lines.Data {
		l := &in.Lines.Data[i]
		net := l.Amount - l.discount()
		amount := map[string]any{"amount": (net*rate + 5000) / 10000, "inclusive": false, "tax_rate": "txr_1" + country, "taxability_reason": reason, "taxable_amount": net}
		l.TaxAmounts = []any{amount}
		in.TotalTaxAmounts = append(in.TotalTaxAmounts, amount)
		sum += (net*rate + 5000) / 10000
	}
	in.Tax = optInt(sum)
	in.Total += sum
}

// locationMissing refuses to finalize what can't be taxed.
func (in *invoice) locationMissing() *apiError {
	if in.AutomaticTax["status"] != "requires_location_inputs" {
		return nil
	}
	return badRequest("customer_tax_location_invalid", "", "The customer's location isn't recognized. Set a valid customer address in order to automatically calculate tax.")
}
