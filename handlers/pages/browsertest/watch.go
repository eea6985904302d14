package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// watch sees all that happens in a tab, in its order.
type watch struct {
	g *gateway

	mu       sync.Mutex
	main     string // the frame of the page itself
	starts   int    // navigations begun
	loading  bool
	status   int
	statuses []int    // of 400 and more, that are allowed
	hosts    []string // allowed beside the gateway's
	urls     map[network.RequestID]string
	findings []string
}

func newWatch(g *gateway) *watch { return &watch{g: g, urls: map[network.RequestID]string{}} }

func (w *watch) setMain(frame string) { w.mu.Lock(); w.main = frame; w.mu.Unlock() }
func (w *watch) allow(status []int)   { w.mu.Lock(); w.statuses = status; w.mu.Unlock() }
func (w *watch) allowHost(h string)   { w.mu.Lock(); w.hosts = append(w.hosts, h); w.mu.Unlock() }
func (w *watch) started() int         { w.mu.Lock(); defer w.mu.Unlock(); return w.starts }
func (w *watch) documentStatus() int  { w.mu.Lock(); defer w.mu.Unlock(); return w.status }

func (w *watch) found(format string, args ...any) {
	w.findings = append(w.findings, fmt.Sprintf(format, args...))
}

// event is called by the client for each event, and must not ask the browser anything.
func (w *watch) event(ev any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch ev := ev.(type) {
	case *page.EventFrameRequestedNavigation:
		w.begins(string(ev.FrameID))
	case *page.EventFrameStartedNavigating:
		w.begins(string(ev.FrameID))
	case *page.EventNavigatedWithinDocument:
		if string(ev.FrameID) == w.main {
			w.starts++
			w.loading = false
		}
	case *page.EventFrameStoppedLoading:
		if string(ev.FrameID) == w.main {
			w.loading = false
		}
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeAssert {
			var said []string
			for _, arg := range ev.Args {
				text := arg.Description // of an object
				if json.Unmarshal(arg.Value, &text) != nil && text == "" {
					text = string(arg.Value)
				}
				said = append(said, text)
			}
			w.found("console.%s: %s", ev.Type, strings.Join(said, " "))
		}
	case *runtime.EventExceptionThrown:
		text := ev.ExceptionDetails.Text
		if e := ev.ExceptionDetails.Exception; e != nil {
			text += " " + e.Description
		}
		w.found("exception: %s (%s:%d)", text, ev.ExceptionDetails.URL, ev.ExceptionDetails.LineNumber+1)
	case *log.EventEntryAdded:
		// What it says of requests, their own events say with more.
		if e := ev.Entry; e.Level == log.EntryLevelError && e.Source != log.EntrySourceNetwork {
			w.found("console: %s %s", e.Text, e.URL)
		}
	default:
		w.request(ev)
	}
}

func (w *watch) begins(frame string) {
	if frame == w.main {
		w.starts++
		w.loading = true
	}
}

// request looks at what pages ask for, and what they get.
func (w *watch) request(ev any) {
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		w.urls[ev.RequestID] = ev.Request.URL
		u, err := url.Parse(ev.Request.URL)
		if err != nil || (u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "ws" || u.Scheme == "wss") && !w.g.allowed(u.Host, w.hosts) {
			w.found("a request to another host: %s, of %s", ev.Request.URL, ev.DocumentURL)
		}
	case *network.EventResponseReceived:
		document := ev.Type == network.ResourceTypeDocument && string(ev.FrameID) == w.main
		status := int(ev.Response.Status)
		if document {
			w.status = status
		}
		if status >= 400 && !(document && slices.Contains(w.statuses, status)) {
			w.found("%s was answered with %d", ev.Response.URL, status)
		}
	case *network.EventLoadingFailed:
		if !ev.Canceled || ev.BlockedReason != "" {
			w.found("%s failed: %s %s", w.urls[ev.RequestID], ev.ErrorText, ev.BlockedReason)
		}
	}
}

// idle tells whether no page is on its way, and whether one has been since starts was before.
func (w *watch) idle(before int) (idle, began bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.loading, w.starts > before
}

// take empties the findings.
func (w *watch) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.findings
	w.findings = nil
	return all
}

// settle waits for the page that an act leads to, and looks at it. goes says that it must lead to one; of any other act
// it is known only by waiting a moment.
func (t *Tab) settle(before int, goes bool) {
	t.t.Helper()
	begin := 60 * time.Millisecond
	if goes {
		begin = patience
	}
	from := time.Now()
	for {
		idle, began := t.watch.idle(before)
		if idle && (began || time.Since(from) > begin) {
			if goes && !began {
				t.report()
				t.t.Fatalf("%s: nothing came of it", t.Path())
			}
			break
		}
		if time.Since(from) > 2*patience {
			t.report()
			t.t.Fatalf("%s did not load within %s", t.Path(), 2*patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.narrow()
	t.report()
}

// narrow looks whether the page is wider than its window.
func (t *Tab) narrow() {
	t.t.Helper()
	if wide := (&Tab{tab: t.tab}).ask("wide", "", "").Text; wide != "" {
		t.t.Errorf("%s has to be scrolled sideways: %s", t.Path(), wide)
	}
}

// report fails the test for what the pages did since it was last called.
func (t *Tab) report() {
	t.t.Helper()
	for _, finding := range t.watch.take() {
		t.t.Errorf("the browser: %s", finding)
	}
}

// leaveEvidence keeps what a failed test last saw, where $SCREENSHOTS says to keep pictures.
func (t *Tab) leaveEvidence() {
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" || t.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	name := filepath.Join(dir, "failed-"+strings.ReplaceAll(t.t.Name(), "/", "-"))
	if png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100)); err == nil {
		_ = os.WriteFile(name+".png", png, 0o644)
	}
	if is, err := t.try("html", "", ""); err == nil {
		_ = os.WriteFile(name+".html", []byte(is.Text), 0o644)
	}
}

// call sends a command to the tab.
func call[P, R any](t *Tab, cmd cdp.Command[P, R], params P) R {
	t.t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, 2*patience)
	defer cancel()
	r, err := chromedp.Call(ctx, cmd, params)
	if err != nil {
		t.report()
		raw, _ := json.Marshal(params)
		t.t.Fatalf("%s %s: %v", cmd.Method, raw, err)
	}
	return r
}
