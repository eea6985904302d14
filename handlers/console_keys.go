package handlers

import (
	"net/http"
	"slices"
	"strings"

	"lockstep/handlers/pages"
	"lockstep/ledger"
)

// scopeWords are what the scopes of a key let it do.
var scopeWords = map[string]string{
	"usage": "book usage, check and hold credit",
	"read":  "read everything",
	"write": "change customers, credit, top-ups, prices and webhooks",
	"admin": "sign in at this console",
}

type keysPage struct {
	Keys []keyRow
	Page listPage
}

type keyRow struct {
	ledger.APIKey
	May         []string // in words
	Environment bool
	Own         bool // whoever looks is signed in with it
}

func (s *Server) showKeys(v *visit) error {
	after, err := v.ask("after")
	if err != nil {
		return err
	}
	keys, err := s.Ledger.Keys(v.ctx()) // made by hand, each of them
	if err != nil {
		return err
	}
	if keys, err = pageOf(keys, func(k *ledger.APIKey) string { return k.ID }, onPage, after); err != nil {
		return err
	}
	var p keysPage
	n, page := v.pageOf(len(keys), func(i int) string { return keys[i].ID })
	p.Page = page
	for _, k := range keys[:n] {
		row := keyRow{APIKey: k, Environment: k.FromEnvironment(), Own: k.ID == v.operator.KeyID}
		for _, scope := range strings.Split(k.ScopeList, ",") {
			row.May = append(row.May, scopeWords[scope])
		}
		p.Keys = append(p.Keys, row)
	}
	return s.show(v, http.StatusOK, "keys", pages.Frame{Title: "API keys", Data: p})
}

func mayWords(scopes []string) string {
	var words []string
	for _, scope := range scopes {
		words = append(words, scopeWords[scope])
	}
	return strings.Join(words, "; ")
}

func (s *Server) newKeyOrder(v *visit) (*order, error) {
	scopes := &formField{Name: "scopes", Label: "It may", Kind: "checks", Value: "usage,read"}
	for _, scope := range ledger.Scopes {
		scopes.Options = append(scopes.Options, option{scope, scope + ": " + scopeWords[scope]})
	}
	var made ledger.APIKey
	secret := ""
	o := &order{action: "create_key", keyed: true, title: "Make an API key", verb: "Make the key", back: "/console/keys",
		fields: []*formField{{Name: "name", Label: "Name", Help: "What it is for, so that you know it when you want to revoke it."}, scopes}}
	o.plan = func() (p plan, err error) {
		chosen := strings.Split(o.value("scopes"), ",")
		for _, scope := range chosen {
			if !slices.Contains(ledger.Scopes, scope) {
				return p, invalid("scopes", "Choose from what is there.")
			}
		}
		p.say("There is a new key, " + o.value("name") + ". Whoever has it may: " + mayWords(chosen) + ".")
		p.say("It is shown once, right after: only its hash is kept.")
		return p, nil
	}
	o.do = func(once ledger.Once) (d deed, err error) {
		once.Bucket = ledger.BucketOfKey(once.Key)
		made, secret, _, err = s.Ledger.MakeKey(v.ctx(), o.value("name"), strings.Split(o.value("scopes"), ","), once)
		return deed{said: "The key …" + made.Hint + " was made. It was shown to whoever made it, and to nobody since.", result: made.ID}, err
	}
	o.reveal = func() (string, pages.Frame) {
		if secret == "" {
			return "", pages.Frame{}
		}
		const title = "The key was made"
		return "secret", pages.Frame{Title: title, Data: secretShown{title, "API key", secret,
			"Keep it where your app finds it, and nowhere else. It is not shown again; if it is lost, revoke it and make another.", "/console/keys", "API keys"}}
	}
	return o, nil
}

func (s *Server) revokeKeyOrder(v *visit) (*order, error) {
	id := v.r.PathValue("id")
	if err := texts("id", id); err != nil {
		return nil, err
	}
	k, err := s.Ledger.KeyByID(v.ctx(), id)
	if err != nil {
		return nil, err
	}
	return &order{action: "revoke_key", title: "Revoke an API key", verb: "Revoke the key", danger: true, object: k.ID, back: "/console/keys",
		plan: func() (p plan, err error) {
			if k.RevokedAt != nil {
				return p, &fault{http.StatusConflict, "conflict", string(ledger.CodeState), "", "This key was revoked before."}
			}
			p.say("The key " + k.Name + " (…" + k.Hint + ") stops working, in all processes within seconds. What uses it is refused from then on. It can't be undone.")
			if k.FromEnvironment() {
				p.say("It is the key that the environment gives: it comes back at the next start, as long as LOCKSTEP_API_KEY is set. Take it out of there, too, if it is to be gone.")
			}
			if k.ID == v.operator.KeyID {
				p.say("You are signed in with this key: you will be signed out.")
			}
			other, err := s.otherAdmin(v, k.ID)
			if err == nil && k.Can("admin") && !other {
				p.say("It is the last key that may sign in here. Another one can then be made on the command line alone: lockstep keys create.")
			}
			p.move("Key …"+k.Hint, "works", "revoked")
			return p, err
		},
		do: func(ledger.Once) (deed, error) {
			return deed{said: "The key …" + k.Hint + " is revoked."}, s.Ledger.RevokeKey(v.ctx(), k.ID)
		}}, nil
}

// otherAdmin reports whether somebody could still sign in without a key.
func (s *Server) otherAdmin(v *visit, without string) (bool, error) {
	keys, err := s.Ledger.Keys(v.ctx())
	return slices.ContainsFunc(keys, func(k ledger.APIKey) bool { return k.ID != without && k.RevokedAt == nil && k.Can("admin") }), err
}
