package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

type ratesPage struct {
	Features []rateRow
	Page     listPage
	Begins   string
}

type rateRow struct {
	ledger.Feature
	Price string // in words
	Link  string
	State string // of a version: in force, from then on, past
}

func (s *Server) rateRow(v *visit, f *ledger.Feature) rateRow {
	return rateRow{Feature: *f, Price: priceInWords(v, f.Asset, f.UnitCost, f.Tiers, f.TierMode, f.MinimumCost),
		Link: "/console/rates/feature?key=" + url.QueryEscape(f.Key)}
}

// priceInWords says what a unit costs.
func priceInWords(v *visit, asset string, unit *ledger.Decimal, tiers []ledger.Tier, mode string, minimum *ledger.Decimal) string {
	say := ""
	if unit != nil {
		say = inAsset(v, *unit, asset) + " a unit"
	}
	for i, t := range tiers {
		part := inAsset(v, t.UnitCost, asset) + " a unit"
		if t.FlatCost != nil {
			part += " and " + inAsset(v, *t.FlatCost, asset) + " once"
		}
		switch {
		case i > 0 && t.UpTo == nil:
			part = "above that " + part
		case t.UpTo != nil:
			part = "up to " + v.locale.Number(t.UpTo.String()) + " units " + part
		}
		if i > 0 {
			say += "; "
		}
		say += part
	}
	switch mode {
	case "graduated":
		say += ". Each part of a use is priced by its own tier"
	case "volume":
		say += ". All of a use is priced by the tier that it ends in"
	}
	if minimum != nil {
		say += "; at least " + inAsset(v, *minimum, asset) + " a use"
	}
	return say
}

// inAsset writes a decimal of an asset, with all its digits.
func inAsset(v *visit, d ledger.Decimal, asset string) string {
	return v.locale.Amount(d.Digits, int16(d.Scale), asset)
}

func (s *Server) showRates(v *visit) error {
	var p ratesPage
	after := ""
	err := v.asked(map[string]*string{"after": &after, "begins": &p.Begins})
	if err != nil {
		return err
	}
	features, err := s.Ledger.ListFeatures(v.ctx(), p.Begins, after, onPage+1)
	if err != nil {
		return err
	}
	n, page := v.pageOf(len(features), func(i int) string { return features[i].Key })
	p.Page = page
	for i := range features[:n] {
		p.Features = append(p.Features, s.rateRow(v, &features[i]))
	}
	return s.show(v, http.StatusOK, "rates", pages.Frame{Title: "Rate card", Data: p})
}

type featurePage struct {
	rateRow
	Versions []rateRow // the newest first
	Examples []exampleCost
	Change   string
}

// exampleCost is what a quantity costs.
type exampleCost struct{ Quantity, Now string }

// exampleQuantities are those that a price is shown for.
var exampleQuantities = []ledger.Decimal{{Digits: 1}, {Digits: 1_000}, {Digits: 1_000_000}}

// unitsOf names a quantity in one use.
func unitsOf(v *visit, q ledger.Decimal) string {
	if q.Digits == 1 && q.Scale == 0 {
		return "1 unit in one use"
	}
	return v.locale.Number(q.String()) + " units in one use"
}

// versionsShown bounds how many versions a page shows: the newest.
const versionsShown = 100

func (s *Server) showFeature(v *visit) error {
	key, err := v.ask("key")
	if err != nil {
		return err
	}
	f, err := s.Ledger.Feature(v.ctx(), key)
	if err != nil {
		return err
	}
	versions, err := s.Ledger.FeatureVersions(v.ctx(), key)
	if err != nil {
		return err
	}
	p := featurePage{rateRow: s.rateRow(v, &f), Change: "/console/rates/change?key=" + url.QueryEscape(key)}
	now := s.Ledger.Now()
	for i := len(versions) - 1; i >= 0 && len(p.Versions) < versionsShown; i-- {
		row := s.rateRow(v, &versions[i])
		switch {
		case versions[i].EffectiveAt.After(now):
			row.State = "from then on"
		case versions[i].Version == f.Version:
			row.State = "in force"
		default:
			row.State = "past"
		}
		p.Versions = append(p.Versions, row)
	}
	if costs, err := s.Ledger.QuoteBy(v.ctx(), &f, exampleQuantities); err == nil { // what can't be counted has no example
		for i, q := range exampleQuantities {
			p.Examples = append(p.Examples, exampleCost{Quantity: unitsOf(v, q), Now: inAsset(v, costs[i], f.Asset)})
		}
	}
	return s.show(v, http.StatusOK, "feature", pages.Frame{Title: f.Key, Data: p})
}

// tierLine writes a tier as a line of the form: up to, cost of a unit, and what it costs once.
func tierLine(t ledger.Tier) string {
	upTo, flat := "rest", ""
	if t.UpTo != nil {
		upTo = t.UpTo.String()
	}
	if t.FlatCost != nil {
		flat = " " + t.FlatCost.String()
	}
	return upTo + " " + t.UnitCost.String() + flat
}

// tierLines reads what tierLine wrote.
func tierLines(text string) (tiers []ledger.Tier, err error) {
	for i, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) < 2 || len(words) > 3 {
			return nil, invalid("tiers", fmt.Sprintf("Line %d: write up to how many units, what a unit costs, and, if you like, what the tier costs once: 1000 0.002 or rest 0.001.", i+1))
		}
		var numbers [3]*ledger.Decimal
		for n, word := range words {
			if n == 0 && word == "rest" {
				continue
			}
			d, ok := ledger.ParseDecimal(word)
			if !ok {
				return nil, invalid("tiers", fmt.Sprintf("Line %d: %q is no number such as 0.002.", i+1, brief(word)))
			}
			numbers[n] = &d
		}
		tiers = append(tiers, ledger.Tier{UpTo: numbers[0], UnitCost: *numbers[1], FlatCost: numbers[2]})
	}
	return tiers, nil
}

// rateFields are what is said of a version; f is the one that is to be changed.
func rateFields(f *ledger.Feature) []*formField {
	var lines []string
	for _, t := range f.Tiers {
		lines = append(lines, tierLine(t))
	}
	text := func(d *ledger.Decimal) string {
		if d == nil {
			return ""
		}
		return d.String()
	}
	return []*formField{
		{Name: "key", Label: "Feature", Help: "By which apps name it when they send usage, such as gpt-4o.output.", Value: f.Key},
		{Name: "name", Label: "Name", Help: "What customers read.", Value: f.Name, Optional: true},
		{Name: "asset", Label: "Paid in", Help: "A currency, such as usd, or an asset of yours.", Value: f.Asset},
		{Name: "unit_cost", Label: "Cost of a unit", Help: "In that asset, such as 0.002. Leave it empty where there are tiers.", Value: text(f.UnitCost), Optional: true, Decimal: true},
		{Name: "tiers", Label: "Tiers", Help: "One a line: up to how many units, what a unit costs, what the tier costs once (may be left out). The last begins with rest.",
			Kind: "area", Value: strings.Join(lines, "\n"), Optional: true},
		{Name: "tier_mode", Label: "How tiers count", Kind: "select", Value: f.TierMode, Optional: true, Options: []option{{"", "There are none"},
			{"graduated", "Each part of a use by its own tier"}, {"volume", "All of a use by the tier that it ends in"}}},
		{Name: "minimum_cost", Label: "Least cost of one use", Value: text(f.MinimumCost), Optional: true, Decimal: true},
		{Name: "effective_at", Label: "From", Help: "In UTC: 2026-12-01, or 2026-12-01T09:00:00Z. Empty is at once.", Optional: true},
	}
}

// rateSaid is what the form of an order says of a version.
func rateSaid(o *order) (in ledger.FeatureInput, err error) {
	in = ledger.FeatureInput{Key: o.value("key"), Asset: o.value("asset"), Name: o.value("name"), TierMode: o.value("tier_mode")}
	if err = texts("name", in.Name); err != nil {
		return in, err
	}
	if in.UnitCost, err = optionalAmount("unit_cost", orNil(o.value("unit_cost"))); err != nil {
		return in, err
	}
	if in.MinimumCost, err = optionalAmount("minimum_cost", orNil(o.value("minimum_cost"))); err != nil {
		return in, err
	}
	if in.Tiers, err = tierLines(o.value("tiers")); err != nil {
		return in, err
	}
	in.EffectiveAt, err = momentSaid("effective_at", o.value("effective_at"))
	return in, err
}

// momentSaid reads a day or a moment in UTC; nil for nothing.
func momentSaid(param, said string) (*time.Time, error) {
	if said == "" {
		return nil, nil
	}
	if day, err := time.Parse(time.DateOnly, said); err == nil && day.Year() >= 1970 {
		return &day, nil
	}
	at, err := when(param, &said)
	if err != nil {
		return nil, invalid(param, "Write a day such as 2026-12-01, or a time such as 2026-12-01T09:00:00Z.")
	}
	utc := at.UTC()
	return &utc, nil
}

func (s *Server) rateOrder(v *visit) (*order, error) {
	f := ledger.Feature{Asset: s.Ledger.DefaultAsset()}
	if key := v.query.Get("key"); key != "" {
		newest, err := s.Ledger.FeatureVersions(v.ctx(), key)
		if err != nil {
			return nil, err
		}
		if len(newest) > 0 {
			f = newest[len(newest)-1]
		}
	}
	o := &order{action: "change_rate", title: "Set a price", verb: "Set the price", back: "/console/rates", fields: rateFields(&f)}
	o.plan = func() (plan, error) { return s.ratePlan(v, o) }
	o.do = func(ledger.Once) (d deed, err error) {
		in, err := rateSaid(o)
		if err != nil {
			return d, err
		}
		set, err := s.Ledger.PutFeature(v.ctx(), in)
		return deed{said: fmt.Sprintf("%s has version %d.", set.Key, set.Version)}, err
	}
	return o, nil
}

// ratePlan shows what uses would cost beside what they cost now.
func (s *Server) ratePlan(v *visit, o *order) (p plan, err error) {
	in, err := rateSaid(o)
	if err != nil {
		return p, err
	}
	then, err := s.Ledger.Quote(v.ctx(), in, exampleQuantities)
	if err != nil {
		return p, refusedField(err)
	}
	from := "From the moment that this is done"
	if in.EffectiveAt != nil && in.EffectiveAt.After(s.Ledger.Now()) {
		from = "From " + v.locale.DateTime(*in.EffectiveAt)
	}
	p.say(from + ", " + in.Key + " costs " + priceInWords(v, in.Asset, in.UnitCost, in.Tiers, in.TierMode, in.MinimumCost) + ".")
	p.say("From then on 1,000 units in one use will cost " + inAsset(v, then[1], in.Asset) + ". What was used before keeps its price.")
	now := make([]string, len(then))
	f, err := s.Ledger.Feature(v.ctx(), in.Key)
	switch {
	case ledger.IsCode(err, ledger.CodeNotFound):
		p.say("The rate card has no " + in.Key + " yet: apps may name it from then on.")
	case err != nil:
		return p, err
	default:
		if costs, err := s.Ledger.QuoteBy(v.ctx(), &f, exampleQuantities); err == nil {
			for i := range costs {
				now[i] = inAsset(v, costs[i], f.Asset)
			}
		}
		if f.Asset != in.Asset {
			p.say("It is paid in " + in.Asset + " then, not in " + f.Asset + " any more: customers need credit in that.")
		}
	}
	for i, q := range exampleQuantities {
		p.move(unitsOf(v, q), now[i], inAsset(v, then[i], in.Asset))
	}
	return p, nil
}

// refusedField has a refusal about a tier shown at the field that all tiers are written in.
func refusedField(err error) error {
	var r *ledger.Refusal
	if !errors.As(err, &r) {
		return err
	}
	var tier int
	if n, _ := fmt.Sscanf(r.Param, "tiers[%d]", &tier); n == 1 {
		return invalid("tiers", fmt.Sprintf("Tier %d: %s", tier+1, r.Message))
	}
	return err
}

type assetsPage struct {
	Assets []assetRow
	Page   listPage
}

type assetRow struct {
	ledger.Asset
	Price string // of a unit, in words
	Link  string // to change it
}

func (s *Server) showAssets(v *visit) error {
	after, err := v.ask("after")
	if err != nil {
		return err
	}
	assets, err := s.Ledger.ListAssets(v.ctx(), after, onPage+1)
	if err != nil {
		return err
	}
	var p assetsPage
	n, page := v.pageOf(len(assets), func(i int) string { return assets[i].Code })
	p.Page = page
	for _, a := range assets[:n] {
		p.Assets = append(p.Assets, assetRow{a, assetPrice(v, &a), "/console/assets/change?code=" + url.QueryEscape(a.Code)})
	}
	return s.show(v, http.StatusOK, "assets", pages.Frame{Title: "Assets", Data: p})
}

func assetPrice(v *visit, a *ledger.Asset) string {
	if a.Price == nil {
		return "has none: given and spent, never bought"
	}
	return v.locale.Amount(a.Price.Digits, int16(a.Price.Scale), a.Currency)
}

func (s *Server) assetOrder(v *visit) (*order, error) {
	fields := []*formField{
		{Name: "code", Label: "Code", Help: "By which apps name it, such as credits: a-z, 0-9, '_', '.', '-'."},
		{Name: "scale", Label: "Decimals", Help: "How finely it is counted, 0 to 9. It can't be changed later.", Value: "0", Decimal: true},
		{Name: "price", Label: "Price of one", Help: "Such as 0.01. Without a price it is given and spent, never bought, and Stripe does not see it.", Optional: true, Decimal: true},
		{Name: "currency", Label: "Currency of the price", Help: "Such as usd.", Optional: true},
	}
	if code := v.query.Get("code"); code != "" && v.r.Method == http.MethodGet && !v.query.Has("step") {
		a, err := s.Ledger.Asset(v.ctx(), code)
		if err != nil {
			return nil, err
		}
		fields[0].Value, fields[1].Value, fields[3].Value = a.Code, strconv.Itoa(int(a.Scale)), a.Currency
		if a.Price != nil {
			fields[2].Value = a.Price.String()
		}
	}
	o := &order{action: "change_asset", title: "Set an asset", verb: "Set the asset", back: "/console/assets", fields: fields}
	o.plan = func() (plan, error) { return s.assetPlan(v, o) }
	o.do = func(ledger.Once) (d deed, err error) {
		in, err := assetSaid(o)
		if err == nil {
			_, err = s.Ledger.PutAsset(v.ctx(), in)
		}
		return deed{said: "The asset " + in.Code + " is set."}, assetRefusal(err)
	}
	return o, nil
}

func assetSaid(o *order) (in ledger.AssetInput, err error) {
	scale, err := strconv.Atoi(o.value("scale"))
	if err != nil || scale < 0 || scale > 9 {
		return in, invalid("scale", "Decimals are a whole number, 0 to 9.")
	}
	in = ledger.AssetInput{Code: o.value("code"), Scale: int16(scale), Currency: strings.ToLower(o.value("currency"))}
	in.Price, err = optionalAmount("price", orNil(o.value("price")))
	return in, err
}

// assetRefusal names the fields as the form does.
func assetRefusal(err error) error {
	var r *ledger.Refusal
	if errors.As(err, &r) && r.Param == "price_per_unit" {
		return invalid("price", strings.ReplaceAll(r.Message, "price_per_unit", "the price"))
	}
	return err
}

func (s *Server) assetPlan(v *visit, o *order) (p plan, err error) {
	in, err := assetSaid(o)
	if err != nil {
		return p, err
	}
	if err := in.Check(); err != nil {
		return p, assetRefusal(err)
	}
	then := ledger.Asset{Code: in.Code, Scale: in.Scale, Price: in.Price, Currency: in.Currency}
	a, err := s.Ledger.Asset(v.ctx(), in.Code)
	switch {
	case ledger.IsCode(err, ledger.CodeAssetUnknown):
		p.say(fmt.Sprintf("There is a new asset, %s, counted to %d decimals. That can't be changed later, and an asset can't be removed.", in.Code, in.Scale))
		p.move("Price of one "+in.Code, "", assetPrice(v, &then))
		return p, nil
	case err != nil:
		return p, err
	case a.Scale != in.Scale:
		return p, invalid("scale", fmt.Sprintf("%s is counted to %d decimals, and wallets count in that: it can't be changed.", a.Code, a.Scale))
	}
	p.say("Credit that is bought from now on costs the new price. Wallets keep what they have.")
	if in.Price != nil || a.Price != nil {
		p.say("Credit that may pay invoices is worth the new price in Stripe too: the balance of each customer who has some is brought up to it.")
	}
	p.move("Price of one "+in.Code, assetPrice(v, &a), assetPrice(v, &then))
	return p, nil
}
