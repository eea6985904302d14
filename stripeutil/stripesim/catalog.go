package stripesim

import "slices"

var catalogRoutes = map[string]handler{
	"POST /v1/products":      createProduct,
	"GET /v1/products":       listProducts,
	"GET /v1/products/{id}":  getProduct,
	"POST /v1/products/{id}": updateProduct,
	"POST /v1/prices":        createPrice,
	"GET /v1/prices":         listPrices,
	"GET /v1/prices/{id}":    getPrice,
	"POST /v1/prices/{id}":   updatePrice,
}

type product struct {
	ID                  string            `json:"id"`
	Object              string            `json:"object"`
	Active              bool              `json:"active"`
	Created             int64             `json:"created"`
	DefaultPrice        opt               `json:"default_price"`
	Description         opt               `json:"description"`
	Features            []any             `json:"features"`
	Images              []string          `json:"images"`
	Livemode            bool              `json:"livemode"`
	Metadata            map[string]string `json:"metadata"`
	Name                string            `json:"name"`
	PackageDimensions   any               `json:"package_dimensions"`
	Shippable           any               `json:"shippable"`
	StatementDescriptor opt               `json:"statement_descriptor"`
	TaxCode             opt               `json:"tax_code"`
	UnitLabel           opt               `json:"unit_label"`
	Updated             int64             `json:"updated"`
	URL                 opt               `json:"url"`
}

type price struct {
	ID                string            `json:"id"`
	Object            string            `json:"object"`
	Active            bool              `json:"active"`
	BillingScheme     string            `json:"billing_scheme"`
	Created           int64             `json:"created"`
	Currency          string            `json:"currency"`
	CustomUnitAmount  any               `json:"custom_unit_amount"`
	Livemode          bool              `json:"livemode"`
	LookupKey         opt               `json:"lookup_key"`
	Metadata          map[string]string `json:"metadata"`
	Nickname          opt               `json:"nickname"`
	Product           string            `json:"product"`
	Recurring         map[string]any    `json:"recurring"`
	TaxBehavior       string            `json:"tax_behavior"`
	TiersMode         any               `json:"tiers_mode"`
	TransformQuantity any               `json:"transform_quantity"`
	Type              string            `json:"type"`
	UnitAmount        *int64            `json:"unit_amount"`
	UnitAmountDecimal opt               `json:"unit_amount_decimal"`
}

func (c *call) fillProduct(p *product) {
	p.Metadata = c.metadata(p.Metadata)
	c.set("description", &p.Description)
	c.set("statement_descriptor", &p.StatementDescriptor)
	c.set("tax_code", &p.TaxCode)
	c.set("unit_label", &p.UnitLabel)
	c.set("url", &p.URL)
	if c.has("active") {
		p.Active = c.boolean("active")
	}
	if c.has("images") {
		p.Images = append([]string{}, c.params.list("images")...)
	}
	c.ignore("shippable", "package_dimensions")
}

func (c *call) newProduct(p product) *product {
	if p.ID == "" {
		p.ID = newID("prod_", 14)
	}
	p.Object, p.Created, p.Updated, p.Livemode = "product", c.unix(), c.unix(), c.livemode
	p.Features = []any{}
	if p.Images == nil {
		p.Images = []string{}
	}
	p.Metadata = cloneMetadata(p.Metadata)
	c.state.Products.put(p.ID, &p)
	c.emit("product.created", &p, nil)
	return &p
}

func createProduct(c *call) (any, *apiError) {
	p := product{ID: c.ref("id"), Name: c.need("name"), Active: true}
	c.fillProduct(&p)
	var first *price
	if h := c.hash("default_price_data"); h != nil {
		unit := h.needInt("unit_amount")
		first = &price{Currency: h.currency("currency", true), UnitAmount: &unit}
		h.ignore("tax_behavior")
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	if c.state.Products.get(p.ID) != nil {
		return nil, badRequest("resource_already_exists", "id", "Product already exists.")
	}
	made := c.newProduct(p)
	if first != nil {
		first.Product = made.ID
		made.DefaultPrice = opt(c.newPrice(*first).ID)
	}
	return made, nil
}

func getProduct(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	if p := c.state.Products.get(c.id()); p != nil {
		return p, nil
	}
	return nil, noSuch("product", c.id(), "id")
}

func updateProduct(c *call) (any, *apiError) {
	p := c.state.Products.get(c.id())
	if p == nil {
		return nil, noSuch("product", c.id(), "id")
	}
	next := *p
	c.fillProduct(&next)
	if c.has("name") {
		next.Name = c.need("name")
	}
	c.set("default_price", &next.DefaultPrice)
	if id := string(next.DefaultPrice); id != "" && c.state.Prices.get(id) == nil {
		c.fail(noSuchParam("price", id, "default_price"))
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	before := toMap(p)
	next.Updated = c.unix()
	*p = next
	c.emitUpdated("product.updated", before, p)
	return p, nil
}

func listProducts(c *call) (any, *apiError) {
	w, ids := c.window(true), c.params.list("ids")
	filter, active := c.has("active"), c.boolean("active")
	return list(c, &c.state.Products, w, "product", func(r *product) int64 { return r.Created }, func(r *product) bool {
		return (len(ids) == 0 || slices.Contains(ids, r.ID)) && (!filter || r.Active == active)
	})
}

func (c *call) newPrice(p price) *price {
	p.ID, p.Object, p.Active, p.BillingScheme = newID("price_1", 23), "price", true, "per_unit"
	p.Created, p.Livemode, p.Metadata = c.unix(), c.livemode, cloneMetadata(p.Metadata)
	p.Type, p.TaxBehavior = "one_time", "unspecified"
	if p.UnitAmount != nil {
		p.UnitAmountDecimal = decimal(*p.UnitAmount)
	} else {
		p.BillingScheme, p.TiersMode = "tiered", "volume"
	}
	if p.Recurring != nil {
		p.Type = "recurring"
	}
	c.state.Prices.put(p.ID, &p)
	c.emit("price.created", &p, nil)
	return &p
}

func createPrice(c *call) (any, *apiError) {
	unit := c.needInt("unit_amount")
	p := price{Currency: c.currency("currency", true), UnitAmount: &unit, Product: c.ref("product"), Metadata: c.metadata(nil)}
	c.set("nickname", &p.Nickname)
	c.set("lookup_key", &p.LookupKey)
	c.enum("billing_scheme", "per_unit")
	c.ignore("tax_behavior")
	if h := c.hash("recurring"); h != nil {
		p.Recurring = map[string]any{"aggregate_usage": nil, "interval": h.need("interval"), "interval_count": 1, "usage_type": "licensed"}
	}
	var made *product
	if h := c.hash("product_data"); h != nil {
		made = &product{Name: h.need("name"), Active: true, Metadata: h.metadata(nil)}
		h.ignore("tax_code", "unit_label", "statement_descriptor")
	}
	if unit < 0 {
		c.fail(badRequest("parameter_invalid_integer", "unit_amount", "This value must be greater than or equal to 0."))
	}
	if (made == nil) == (p.Product == "") {
		c.fail(badRequest("parameter_missing", "product", "You must specify either `product` or `product_data` when creating a price."))
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	if made != nil {
		p.Product = c.newProduct(*made).ID
	} else if c.state.Products.get(p.Product) == nil {
		return nil, noSuchParam("product", p.Product, "product")
	}
	return c.newPrice(p), nil
}

func getPrice(c *call) (any, *apiError) {
	if err := c.done(); err != nil {
		return nil, err
	}
	if p := c.state.Prices.get(c.id()); p != nil {
		return p, nil
	}
	return nil, noSuch("price", c.id(), "price")
}

func updatePrice(c *call) (any, *apiError) {
	p := c.state.Prices.get(c.id())
	if p == nil {
		return nil, noSuch("price", c.id(), "price")
	}
	next := *p
	next.Metadata = c.metadata(p.Metadata)
	c.set("nickname", &next.Nickname)
	c.set("lookup_key", &next.LookupKey)
	if c.has("active") {
		next.Active = c.boolean("active")
	}
	if err := c.done(); err != nil {
		return nil, err
	}
	before := toMap(p)
	*p = next
	c.emitUpdated("price.updated", before, p)
	return p, nil
}

func listPrices(c *call) (any, *apiError) {
	w, productID, keys, currency := c.window(true), c.ref("product"), c.params.list("lookup_keys"), c.params.str("currency")
	kind := c.enum("type", "one_time", "recurring")
	filter, active := c.has("active"), c.boolean("active")
	return list(c, &c.state.Prices, w, "price", func(r *price) int64 { return r.Created }, func(r *price) bool {
		return (productID == "" || r.Product == productID) && (!filter || r.Active == active) && (currency == "" || r.Currency == currency) &&
			(len(keys) == 0 || slices.Contains(keys, string(r.LookupKey))) && (kind == "" || r.Type == kind)
	})
}
