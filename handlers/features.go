package handlers

import (
	"net/http"
	"strconv"

	"lockstep/ledger"
)

type featureJSON struct {
	Object      string        `json:"object"`
	Key         string        `json:"key"`
	Version     int           `json:"version"`
	Asset       string        `json:"asset"`
	Name        *string       `json:"name"`
	UnitCost    *string       `json:"unit_cost"`
	Tiers       []ledger.Tier `json:"tiers"`
	TierMode    *string       `json:"tier_mode"`
	MinimumCost *string       `json:"minimum_cost"`
	EffectiveAt string        `json:"effective_at"`
	CreatedAt   string        `json:"created_at"`
}

func newFeature(f *ledger.Feature) featureJSON {
	return featureJSON{Object: "feature", Key: f.Key, Version: f.Version, Asset: f.Asset, Name: orNil(f.Name), UnitCost: decimalOrNil(f.UnitCost),
		Tiers: f.Tiers, TierMode: orNil(f.TierMode), MinimumCost: decimalOrNil(f.MinimumCost), EffectiveAt: stamp(f.EffectiveAt), CreatedAt: stamp(f.CreatedAt)}
}

func decimalOrNil(d *ledger.Decimal) *string {
	if d == nil {
		return nil
	}
	s := d.String()
	return &s
}

func (s *Server) putFeature(c *call) error {
	type tierIn struct {
		UpTo     *string `json:"up_to"`
		UnitCost *string `json:"unit_cost"`
		FlatCost *string `json:"flat_cost"`
	}
	var in struct {
		Asset       *string  `json:"asset"`
		Name        *string  `json:"name"`
		UnitCost    *string  `json:"unit_cost"`
		Tiers       []tierIn `json:"tiers"`
		TierMode    *string  `json:"tier_mode"`
		MinimumCost *string  `json:"minimum_cost"`
		EffectiveAt *string  `json:"effective_at"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	want := ledger.FeatureInput{Key: c.r.PathValue("key"), Asset: deref(in.Asset), Name: deref(in.Name), TierMode: deref(in.TierMode)}
	if err := texts("key", want.Key, "asset", want.Asset, "name", want.Name); err != nil {
		return err
	}
	if err := filled(field{"tier_mode", in.TierMode}); err != nil {
		return err
	}
	var err error
	if want.UnitCost, err = optionalAmount("unit_cost", in.UnitCost); err != nil {
		return err
	}
	if want.MinimumCost, err = optionalAmount("minimum_cost", in.MinimumCost); err != nil {
		return err
	}
	if want.EffectiveAt, err = when("effective_at", in.EffectiveAt); err != nil {
		return err
	}
	if in.Tiers != nil {
		want.Tiers = make([]ledger.Tier, len(in.Tiers))
	}
	for i, t := range in.Tiers {
		param := "tiers[" + strconv.Itoa(i) + "]"
		tier := &want.Tiers[i]
		if tier.UpTo, err = optionalAmount(param+".up_to", t.UpTo); err != nil {
			return err
		}
		if tier.UnitCost, err = amount(param+".unit_cost", t.UnitCost); err != nil {
			return err
		}
		if tier.FlatCost, err = optionalAmount(param+".flat_cost", t.FlatCost); err != nil {
			return err
		}
	}
	f, err := s.Ledger.PutFeature(c.ctx(), want)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newFeature(&f))
}

// getFeature shows the version in force, with all that there have been and will be.
func (s *Server) getFeature(c *call) error {
	key := c.r.PathValue("key")
	if err := texts("key", key); err != nil {
		return err
	}
	f, err := s.Ledger.Feature(c.ctx(), key)
	if err != nil {
		return err
	}
	versions, err := s.Ledger.FeatureVersions(c.ctx(), key)
	if err != nil {
		return err
	}
	v := struct {
		featureJSON
		Versions []featureJSON `json:"versions"`
	}{featureJSON: newFeature(&f)}
	for i := range versions {
		v.Versions = append(v.Versions, newFeature(&versions[i]))
	}
	return c.reply(http.StatusOK, v)
}

func (s *Server) listFeatures(c *call) error {
	limit, after, err := c.page()
	if err != nil {
		return err
	}
	features, err := s.Ledger.Features(c.ctx())
	if err != nil {
		return err
	}
	if features, err = pageOf(features, func(f *ledger.Feature) string { return f.Key }, limit, after); err != nil {
		return err
	}
	objects := make([]featureJSON, len(features))
	for i := range features {
		objects[i] = newFeature(&features[i])
	}
	return c.reply(http.StatusOK, list(objects, limit))
}
