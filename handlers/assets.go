package handlers

import (
	"net/http"
	"strings"

	"lockstep/ledger"
)

type assetJSON struct {
	Object       string  `json:"object"`
	Code         string  `json:"code"`
	Scale        int16   `json:"scale"`
	PricePerUnit *string `json:"price_per_unit"`
	Currency     *string `json:"currency"`
}

func newAsset(a ledger.Asset) assetJSON {
	v := assetJSON{Object: "asset", Code: a.Code, Scale: a.Scale, Currency: orNil(a.Currency)}
	if a.Price != nil {
		p := a.Price.String()
		v.PricePerUnit = &p
	}
	return v
}

func (s *Server) putAsset(c *call) error {
	var in struct {
		Scale        *int16  `json:"scale"`
		PricePerUnit *string `json:"price_per_unit"`
		Currency     *string `json:"currency"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.Scale == nil {
		return missing("scale")
	}
	price, err := optionalAmount("price_per_unit", in.PricePerUnit)
	if err != nil {
		return err
	}
	if err := texts("currency", deref(in.Currency)); err != nil {
		return err
	}
	if err := filled(field{"currency", in.Currency}); err != nil {
		return err
	}
	a, err := s.Ledger.PutAsset(c.ctx(), ledger.AssetInput{Code: c.r.PathValue("code"), Scale: *in.Scale, Price: price,
		Currency: strings.ToLower(deref(in.Currency))})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newAsset(a))
}

func (s *Server) getAsset(c *call) error {
	code := c.r.PathValue("code")
	if err := texts("code", code); err != nil {
		return err
	}
	a, err := s.Ledger.Asset(c.ctx(), code)
	if ledger.IsCode(err, ledger.CodeAssetUnknown) {
		return &fault{http.StatusNotFound, "invalid_request_error", "resource_missing", "code", "No such asset: '" + code + "'"}
	}
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newAsset(a))
}

func (s *Server) listAssets(c *call) error {
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	assets, err := s.Ledger.Assets(c.ctx())
	if err != nil {
		return err
	}
	assets, err = pageOf(assets, func(a *ledger.Asset) string { return a.Code }, limit, after)
	if err != nil {
		return err
	}
	objects := make([]assetJSON, len(assets))
	for i, a := range assets {
		objects[i] = newAsset(a)
	}
	return c.reply(http.StatusOK, list(objects, limit))
}
