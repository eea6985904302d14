package browsertest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// JSON is an object of an API.
type JSON map[string]any

// At is what is at a path of names and indexes: At("data", 0, "id"). Numbers are json.Number. It is nil where nothing is.
func (j JSON) At(path ...any) any {
	var v any = map[string]any(j)
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		}
	}
	return v
}

// Text is At as text; it is empty where nothing is.
func (j JSON) Text(path ...any) string {
	if v := j.At(path...); v != nil {
		return fmt.Sprint(v)
	}
	return ""
}

// Get, Post, Put, Patch and Delete call the gateway's API with the key of everything; a refusal fails the test.
func (w *World) Get(path string) JSON              { w.t.Helper(); return w.api("GET", path, nil) }
func (w *World) Post(path string, body JSON) JSON  { w.t.Helper(); return w.api("POST", path, body) }
func (w *World) Put(path string, body JSON) JSON   { w.t.Helper(); return w.api("PUT", path, body) }
func (w *World) Patch(path string, body JSON) JSON { w.t.Helper(); return w.api("PATCH", path, body) }
func (w *World) Delete(path string) JSON           { w.t.Helper(); return w.api("DELETE", path, nil) }

// api sends an Idempotency-Key of its own with a POST, unless the body has one.
func (w *World) api(method, path string, body JSON) JSON {
	w.t.Helper()
	var b io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		b = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.URL+path, b)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.Key)
	if _, own := body["idempotency_key"]; method == "POST" && !own {
		req.Header.Set("Idempotency-Key", rand.Text())
	}
	return w.answer(req)
}

// Stripe calls the API of the simulated Stripe with form-encoded parameters, such as "customer=cus_1&amount=5".
func (w *World) Stripe(method, path, form string) JSON {
	w.t.Helper()
	if form != "" && method == "GET" {
		path, form = path+"?"+form, ""
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.StripeURL+path, strings.NewReader(form))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.StripeKey)
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return w.answer(req)
}

// PressHosted presses a button of a page that Stripe hosts, without a browser: on a checkout or setup page, "card" with
// a test token such as pm_card_visa; in the billing portal also "default" and "remove" with a saved card's id.
func (w *World) PressHosted(page, do, on string) {
	w.t.Helper()
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: 30 * time.Second}
	resp, err := c.PostForm(page, url.Values{"do": {do}, "on": {on}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		w.t.Fatalf("%s answered %s", page, resp.Status)
	}
}

func (w *World) answer(req *http.Request) JSON {
	w.t.Helper()
	c := http.Client{Timeout: time.Minute}
	resp, err := c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.StatusCode >= 300 {
		w.t.Fatalf("%s %s: %s\n%s", req.Method, req.URL.Path, resp.Status, raw)
	}
	if len(raw) == 0 {
		return nil
	}
	var j JSON
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&j); err != nil {
		w.t.Fatalf("%s %s: %v in %s", req.Method, req.URL.Path, err, raw)
	}
	return j
}

// Until waits for what comes by itself, such as a webhook's consequence; after half a minute without it the test fails.
func (w *World) Until(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}
