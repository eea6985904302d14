package referee

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/stripe/stripe-mock/spec"
)

// check judges a decoded value (with json.Number for numbers) by a schema. It is
// stricter than the description in one point: a property that the description
// does not list is wrong, since Stripe of that version does not send it.
func (d *document) check(at string, v any, s *spec.Schema) error {
	nullable := s.Nullable
	s, err := d.schema(s)
	if err != nil {
		return err
	}
	if v == nil {
		if nullable || s.Nullable {
			return nil
		}
		return fmt.Errorf("%s: is null, which the schema does not allow", at)
	}
	if len(s.AnyOf) > 0 {
		return d.checkAny(at, v, s.AnyOf)
	}
	if len(s.Enum) > 0 && !slices.ContainsFunc(s.Enum, func(e any) bool { return fmt.Sprint(e) == fmt.Sprint(v) }) {
		return fmt.Errorf("%s: %v is not one of %v", at, v, s.Enum)
	}
	switch value := v.(type) {
	case string:
		return checkString(at, value, s)
	case bool:
		return checkType(at, "a boolean", s, spec.TypeBoolean)
	case json.Number:
		return checkNumber(at, value, s)
	case []any:
		if err := checkType(at, "an array", s, spec.TypeArray); err != nil || s.Items == nil {
			return err
		}
		for i, e := range value {
			if err := d.check(fmt.Sprintf("%s[%d]", at, i), e, s.Items); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		return d.checkObject(at, value, s)
	}
	return fmt.Errorf("%s: value of type %T", at, v)
}

// checkAny accepts what one of the alternatives accepts. When the value names
// its kind, the verdict of that alternative is the interesting one.
func (d *document) checkAny(at string, v any, alternatives []*spec.Schema) error {
	var all []error
	for _, a := range alternatives {
		err := d.check(at, v, a)
		if err == nil {
			return nil
		}
		s, _ := d.schema(a)
		if m, ok := v.(map[string]any); ok && s != nil && s.Properties["object"] != nil && !isDeleted(s) &&
			d.check(at, m["object"], s.Properties["object"]) == nil && m["deleted"] == nil {
			return err
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

func isDeleted(s *spec.Schema) bool { return s.Properties["deleted"] != nil }

func checkType(at, is string, s *spec.Schema, want string) error {
	if s.Type != "" && s.Type != want {
		return fmt.Errorf("%s: is %s, the schema wants %s", at, is, s.Type)
	}
	return nil
}

func checkString(at, v string, s *spec.Schema) error {
	if err := checkType(at, "a string", s, spec.TypeString); err != nil {
		return err
	}
	if s.MaxLength > 0 && utf8.RuneCountInString(v) > s.MaxLength {
		return fmt.Errorf("%s: longer than %d", at, s.MaxLength)
	}
	if s.Pattern != "" {
		if ok, err := regexp.MatchString(s.Pattern, v); err != nil || !ok {
			return fmt.Errorf("%s: %q does not match %s", at, v, s.Pattern)
		}
	}
	return nil
}

func checkNumber(at string, v json.Number, s *spec.Schema) error {
	switch s.Type {
	case spec.TypeInteger:
		if _, err := v.Int64(); err != nil {
			return fmt.Errorf("%s: %s is not an integer", at, v)
		}
	case spec.TypeNumber, "":
		if f, err := v.Float64(); err != nil || math.IsInf(f, 0) {
			return fmt.Errorf("%s: %s is not a number", at, v)
		}
	default:
		return checkType(at, "a number", s, spec.TypeNumber)
	}
	return nil
}

func (d *document) checkObject(at string, v map[string]any, s *spec.Schema) error {
	if err := checkType(at, "an object", s, spec.TypeObject); err != nil {
		return err
	}
	for _, k := range s.Required {
		if _, ok := v[k]; !ok {
			return fmt.Errorf("%s: %s is missing", at, k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(v)) {
		inner := s.Properties[k]
		if inner == nil {
			inner = s.AdditionalProperties
		}
		switch {
		case inner != nil:
			if err := d.check(at+"."+k, v[k], inner); err != nil {
				return err
			}
		case len(s.Properties) > 0:
			return fmt.Errorf("%s: Stripe has no property %s here", at, k)
		}
	}
	return nil
}
