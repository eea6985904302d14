package browsertest

import (
	"context"
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Tab is a tab with cookies of its own. It fails its test for what a page must never do, whichever the test is about:
// errors in the console, exceptions, what its Content-Security-Policy forbids, requests that fail or are answered with
// 400 or more (but see Allow), requests to another host than the gateway and its simulated Stripe, and a page that is
// wider than its window.
//
// Where a method takes what, that is a CSS selector when it looks like one (#id, .class, [attr], a > b, tag.class), and
// otherwise text: a button's or link's name, a field's label. It must mean one visible thing; In narrows down where.
// Methods wait for what they need, and for the page that a click leads to. What can't be done ends the test.
type Tab struct {
	*tab
	scope string
}

type tab struct {
	t     testing.TB
	w     *World
	ctx   context.Context
	watch *watch
	media map[string]string

	scriptless bool
}

// patience is how long a tab waits for what it needs.
const patience = 15 * time.Second

// Tab opens a tab of 1280 by 800, light, with scripts on.
func (w *World) Tab() *Tab {
	w.t.Helper()
	parent, err := browser()
	if err != nil {
		w.t.Fatal(err)
	}
	watch := newWatch(w.gateway)
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext(), chromedp.WithListener(watch.event))
	t := &Tab{tab: &tab{t: w.t, w: w, ctx: ctx, watch: watch, media: map[string]string{}}}
	w.t.Cleanup(func() {
		t.report()
		if w.t.Failed() {
			t.leaveEvidence()
		}
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil {
		w.t.Fatal(err)
	}
	watch.setMain(string(chromedp.FromContext(ctx).Target.TargetID))
	call(t, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	t.Viewport(1280, 800, false)
	t.ColorScheme("light")
	return t
}

// In is the tab with its view narrowed to the first element at selector.
func (t *Tab) In(selector string) *Tab {
	return &Tab{t.tab, strings.TrimSpace(t.scope + " " + selector)}
}

// Open goes to a path of the gateway, or to a whole URL.
func (t *Tab) Open(path string) {
	t.t.Helper()
	url := path
	if strings.HasPrefix(path, "/") {
		url = t.w.URL + path
	}
	before := t.watch.started()
	if res := call(t, page.Navigate, page.NavigateParams{URL: url}); res.ErrorText != "" {
		t.report()
		t.t.Fatalf("%s: %s", url, res.ErrorText)
	}
	t.settle(before, true)
}

// Reload loads the page again.
func (t *Tab) Reload() {
	t.t.Helper()
	before := t.watch.started()
	call(t, page.Reload, page.ReloadParams{})
	t.settle(before, true)
}

// Back goes back to the page before, as the browser's button does.
func (t *Tab) Back() {
	t.t.Helper()
	history := call(t, page.GetNavigationHistory, cdp.Empty{})
	if history.CurrentIndex < 1 {
		t.t.Fatal("there is no page before this one")
	}
	before := t.watch.started()
	call(t, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: history.Entries[history.CurrentIndex-1].ID})
	t.settle(before, true)
}

// Allow says which answers of 400 or more the pages opened from now on may have: what a test of a refusal expects.
func (t *Tab) Allow(status ...int) { t.watch.allow(status) }

// AllowHost lets pages ask another host, given as host:port.
func (t *Tab) AllowHost(host string) { t.watch.allowHost(host) }

// Status is the status that the page was answered with.
func (t *Tab) Status() int { return t.watch.documentStatus() }

// Path is where the tab is: the path and query on the gateway, the whole URL elsewhere.
func (t *Tab) Path() string {
	t.t.Helper()
	url := do(t, chromedp.Location())
	if path, ok := strings.CutPrefix(url, t.w.URL); ok {
		return path
	}
	return url
}

// Title is the page's title.
func (t *Tab) Title() string { t.t.Helper(); return do(t, chromedp.Title()) }

// Click clicks with the mouse; what is covered or disabled can't be clicked.
func (t *Tab) Click(what string) {
	t.t.Helper()
	at := t.find("point", what, "")
	before := t.watch.started()
	do(t, chromedp.MouseClickXY(at.X, at.Y))
	t.settle(before, at.Goes)
}

// Fill types over what a field holds.
func (t *Tab) Fill(what, value string) {
	t.t.Helper()
	if at := t.find("focus", what, value); at.Typed {
		do(t, chromedp.KeyEvent(kb.Delete))
		if value != "" {
			call(t, input.InsertText, input.InsertTextParams{Text: value})
		}
	}
	if got := t.find("value", what, "").Text; got != value {
		t.t.Fatalf("%s took %q for %q", what, got, value)
	}
}

// Value is what a field holds.
func (t *Tab) Value(what string) string { t.t.Helper(); return t.find("value", what, "").Text }

// Select chooses an option by its text or its value.
func (t *Tab) Select(what, option string) {
	t.t.Helper()
	before := t.watch.started()
	t.find("select", what, option)
	t.settle(before, false)
}

// Submit sends the form at, or around, selector.
func (t *Tab) Submit(selector string) {
	t.t.Helper()
	before := t.watch.started()
	t.settle(before, t.find("submit", selector, "").Goes)
}

// Press presses keys one after the other, by their names as in KeyboardEvent.key, with Shift+, Control+ or Alt+ before
// them: Press("Tab", "Shift+Tab", "Enter", "Space", "ArrowDown", "Escape", "a").
func (t *Tab) Press(keys ...string) {
	t.t.Helper()
	names := map[string]string{"Tab": kb.Tab, "Enter": kb.Enter, "Space": " ", "Escape": kb.Escape, "Backspace": kb.Backspace, "Delete": kb.Delete,
		"ArrowUp": kb.ArrowUp, "ArrowDown": kb.ArrowDown, "ArrowLeft": kb.ArrowLeft, "ArrowRight": kb.ArrowRight, "Home": kb.Home, "End": kb.End,
		"PageUp": kb.PageUp, "PageDown": kb.PageDown}
	for _, key := range keys {
		var modifiers []chromedp.Modifier
		for name, m := range map[string]chromedp.Modifier{"Shift+": chromedp.ModifierShift, "Control+": chromedp.ModifierCtrl, "Alt+": chromedp.ModifierAlt} {
			if rest, ok := strings.CutPrefix(key, name); ok {
				key, modifiers = rest, append(modifiers, m)
			}
		}
		if code, ok := names[key]; ok {
			key = code
		}
		before := t.watch.started()
		do(t, chromedp.KeyEvent(key, chromedp.KeyModifiers(modifiers...)))
		t.settle(before, false)
	}
}

// Type types text into what has the focus.
func (t *Tab) Type(text string) {
	t.t.Helper()
	call(t, input.InsertText, input.InsertTextParams{Text: text})
}

// Focused is what has the focus: its tag and its name, such as "button Save"; empty when nothing has.
func (t *Tab) Focused() string { t.t.Helper(); return t.ask("focused", "", "").Text }

// Text is the visible text at selector, its white space made single spaces.
func (t *Tab) Text(selector string) string { t.t.Helper(); return t.find("text", selector, "").Text }

// Count is how many elements are at selector.
func (t *Tab) Count(selector string) int { t.t.Helper(); return t.ask("count", selector, "").N }

// Visible tells whether anything at selector can be seen.
func (t *Tab) Visible(selector string) bool { t.t.Helper(); return t.ask("visible", selector, "").Yes }

// Has tells whether the page shows the text now.
func (t *Tab) Has(text string) bool { t.t.Helper(); return t.ask("has", text, "").Yes }

// WaitFor waits until the page shows the text.
func (t *Tab) WaitFor(text string) {
	t.t.Helper()
	t.waitFor(text, func() {})
}

// ReloadUntil loads the page again until it shows the text: what comes by itself, on a page without scripts.
func (t *Tab) ReloadUntil(text string) {
	t.t.Helper()
	t.waitFor(text, t.Reload)
}

func (t *Tab) waitFor(text string, again func()) {
	t.t.Helper()
	for end := time.Now().Add(patience); !t.Has(text); again() {
		if time.Now().After(end) {
			t.t.Fatalf("%s never showed %q; it shows: %s", t.Path(), text, t.Text("body"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Viewport sets the size of the window in CSS pixels; mobile is a phone's, with touch.
func (t *Tab) Viewport(width, height int, mobile bool) {
	t.t.Helper()
	options := []chromedp.EmulateViewportOption{chromedp.EmulatePortrait}
	if mobile {
		options = append(options, chromedp.EmulateMobile, chromedp.EmulateTouch)
	}
	do(t, chromedp.EmulateViewport(int64(width), int64(height), options...))
	t.narrow()
}

// ColorScheme is what the person prefers: dark or light.
func (t *Tab) ColorScheme(scheme string) { t.t.Helper(); t.Media("prefers-color-scheme", scheme) }

// Media sets any other preference that a style sheet may ask for, such as prefers-reduced-motion to reduce.
func (t *Tab) Media(feature, value string) {
	t.t.Helper()
	t.media[feature] = value
	var all []*emulation.MediaFeature
	for name, value := range t.media {
		all = append(all, &emulation.MediaFeature{Name: name, Value: value})
	}
	call(t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: all})
}

// JavaScript turns the scripts of the pages opened from now on on or off.
func (t *Tab) JavaScript(on bool) {
	t.t.Helper()
	t.scriptless = !on
	call(t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
}

// Language is what the browser asks for pages in, such as de-AT.
func (t *Tab) Language(tag string) {
	t.t.Helper()
	agent := do(t, chromedp.Evaluate[string]("navigator.userAgent"))
	call(t, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: agent, AcceptLanguage: tag})
	call(t, emulation.SetLocaleOverride, emulation.SetLocaleOverrideParams{Locale: strings.ReplaceAll(tag, "-", "_")})
}

// Cookies are the cookies that the page is sent with, those out of scripts' reach too.
func (t *Tab) Cookies() []*network.Cookie {
	t.t.Helper()
	return call(t, network.GetCookies, network.GetCookiesParams{}).Cookies
}

// Cookie is the cookie of that name, or nil.
func (t *Tab) Cookie(name string) *network.Cookie {
	t.t.Helper()
	all := t.Cookies()
	if i := slices.IndexFunc(all, func(c *network.Cookie) bool { return c.Name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// HTML is the document as it is now.
func (t *Tab) HTML() string { t.t.Helper(); return t.ask("html", "", "").Text }

// tallest is what a picture shows of a page; a browser can't draw one without an end.
const tallest = 8000

// Screenshot takes a picture of the page, of all that is in its first 8,000 pixels, as name.png in the folder $SCREENSHOTS
// (an absolute path). Where none is set nobody looks, and none is taken: to draw one takes longer than most of the rest.
func (t *Tab) Screenshot(name string) {
	t.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), t.picture(), 0o644); err != nil {
		t.t.Fatal(err)
	}
}

func (t *Tab) picture() []byte {
	t.t.Helper()
	size := call(t, page.GetLayoutMetrics, cdp.Empty{}).CSSContentSize
	beyond := true
	return call(t, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng, CaptureBeyondViewport: &beyond,
		Clip: &page.Viewport{Width: size.Width, Height: min(size.Height, tallest), Scale: 1}}).Data
}

//go:embed page.js
var pageJS string

// said is what page.js answers.
type said struct {
	Error string  `json:"error"`
	X     float64 `json:"x"`
	Y     float64 `json:"y"`
	Goes  bool    `json:"goes"`
	Typed bool    `json:"typed"`
	Text  string  `json:"text"`
	N     int     `json:"n"`
	Yes   bool    `json:"yes"`
}

func (t *Tab) try(op, what, value string) (said, error) {
	args, err := json.Marshal([]string{op, t.scope, what, value})
	if err != nil {
		return said{}, err
	}
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[said]("("+pageJS+")(..."+string(args)+")"))
}

// find asks until there is an answer.
func (t *Tab) find(op, what, value string) said {
	t.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(25 * time.Millisecond) {
		is, err := t.try(op, what, value)
		if err == nil && is.Error == "" {
			return is
		}
		if time.Now().After(end) {
			t.report()
			t.t.Fatalf("%s: %s %q: %s %v", t.Path(), op, what, is.Error, err)
		}
	}
}

// ask asks once; a document that was replaced in that moment is asked again.
func (t *Tab) ask(op, what, value string) said {
	t.t.Helper()
	var is said
	var err error
	for range 40 {
		if is, err = t.try(op, what, value); err == nil {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	if err != nil || is.Error != "" && is.Error != "nothing is at "+t.scope {
		t.t.Fatalf("%s: %s %q: %s %v", t.Path(), op, what, is.Error, err)
	}
	return is
}

// do runs an action, within bounds.
func do[T any](t *Tab, a chromedp.Action[T]) T {
	t.t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, 2*patience)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		t.t.Fatal(err)
	}
	return v
}
