package browsertest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// recorder is a test that is told what is wrong, and goes on; Fatalf ends the goroutine, as a test's does.
type recorder struct {
	testing.TB
	mu   sync.Mutex
	said []string
}

func (r *recorder) Helper()      {}
func (r *recorder) Failed() bool { return false }
func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}
func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	panic(r)
}

// site is a world that is nothing but pages, each the body of a document, with a policy like the gateway's.
func site(t testing.TB, pages map[string]string) *World {
	t.Helper()
	requireBrowser(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := pages[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if strings.HasSuffix(r.URL.Path, ".js") {
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprint(w, body)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src * data:; form-action 'self'")
		http.SetCookie(w, &http.Cookie{Name: "seen", Value: "1", HttpOnly: true, SameSite: http.SameSiteStrictMode})
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, `<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><title>%s</title><main><h1>Page</h1>%s<p id="form">%s</p></main>`,
			r.URL.Path, body, r.PostForm.Encode())
	}))
	t.Cleanup(server.Close)
	return &World{&gateway{URL: server.URL, log: &output{}}, t}
}

// What a page must never do fails the test that opens it, and nothing else does.
func TestTabFailsTheTest(t *testing.T) {
	t.Parallel()
	w := site(t, map[string]string{
		"/good":      `<p>Good.</p><script src="/good.js"></script>`,
		"/console":   `<script src="/console.js"></script>`,
		"/exception": `<script src="/exception.js"></script>`,
		"/inline":    `<script>document.title = "x"</script>`,
		"/style":     `<p style="color: red">Red</p>`,
		"/missing":   `<img alt="" src="/none.png">`,
		"/elsewhere": `<img alt="" src="http://example.com/x.png">`,
		"/wide":      `<pre>` + strings.Repeat("wide", 200) + `</pre>`,
		"/axe":       `<img src="data:,">`,
		"/good.js":   `console.log("fine")`, "/console.js": `console.error("bad", 7)`, "/exception.js": `null.x`,
	})
	for page, want := range map[string]string{
		"/good": "", "/console": "console.error: bad 7", "/exception": "TypeError", "/inline": "Content Security Policy", "/style": "Content Security Policy",
		"/missing": "/none.png was answered with 404", "/elsewhere": "a request to another host: http://example.com/x.png", "/wide": "scrolled sideways",
		"/axe": "axe-core: image-alt", "/none": "/none was answered with 404",
	} {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			r := &recorder{TB: t}
			tab := w.With(r).Tab()
			tab.Open(page)
			tab.Axe()
			if said := strings.Join(r.said, "\n"); want == "" && said != "" || !strings.Contains(said, want) {
				t.Errorf("%s: it says %q, not %q", page, said, want)
			}
		})
	}
}

// A person's acts are real ones: by mouse, by keyboard, with scripts and without.
func TestTabActs(t *testing.T) {
	t.Parallel()
	w := site(t, map[string]string{
		"/": `<a href="/form">To the form</a>`,
		"/form": `<form method="post" action="/sent"><label>Amount <input name="amount" value="5"></label><label for="d">Until</label><input id="d" name="until" type="date">
			<label>Unit <select name="unit"><option value="m">Minutes</option><option value="h">Hours</option></select></label><label><input type="checkbox" name="sure">Sure</label>
			<button name="do" value="save">Save</button> <button name="do" value="drop">Drop</button></form><script src="/form.js"></script>`,
		"/sent": `<p>Sent.</p>`, "/form.js": `document.querySelector("form").insertAdjacentHTML("beforeend", "<p>Scripted</p>")`,
	})
	tab := w.Tab()
	tab.Open("/")
	tab.Click("To the form")
	tab.WaitFor("Scripted")
	tab.Fill("Amount", "7.50")
	tab.Fill("Until", "2030-02-01")
	tab.Select("Unit", "Hours")
	tab.Click("Sure")
	tab.Click("Save")
	if got := tab.Text("#form"); tab.Path() != "/sent" || got != "amount=7.50&do=save&sure=on&unit=h&until=2030-02-01" {
		t.Errorf("%s got %s", tab.Path(), got)
	}
	if c := tab.Cookie("seen"); c == nil || !c.HTTPOnly || tab.Title() != "/sent" || tab.Status() != 200 {
		t.Errorf("cookie %+v, title %s, status %d", c, tab.Title(), tab.Status())
	}

	tab.JavaScript(false)
	tab.Open("/form")
	if tab.Has("Scripted") {
		t.Error("a script ran")
	}
	tab.Axe()
	tab.Press("Tab")
	if got := tab.Focused(); got != "input Amount" {
		t.Errorf("%q has the focus", got)
	}
	tab.Press("Control+a")
	tab.Type("9")
	var walk []string
	for range 7 {
		tab.Press("Tab")
		walk = append(walk, tab.Focused())
	}
	if !slices.ContainsFunc(walk, func(s string) bool { return strings.HasPrefix(s, "select Unit") }) || !slices.Contains(walk, "input Sure") || !slices.Contains(walk, "button Save") {
		t.Errorf("Tab goes through %q", walk)
	}
	for tab.Focused() != "button Save" {
		tab.Press("Shift+Tab")
	}
	tab.Press("Enter")
	if got := tab.Text("#form"); !strings.HasPrefix(got, "amount=9&do=save") {
		t.Errorf("got %s", got)
	}
}

// What is not there, is meant by two, is covered or can't be used, ends the test.
func TestTabRefuses(t *testing.T) {
	t.Parallel()
	const form = `<form><button type="button">Twice</button><button type="button">Twice</button><button disabled>Off</button></form>`
	w := site(t, map[string]string{"/": form})
	for what, want := range map[string]string{"Nothing": "there is no", "Twice": "2 things are meant", "Off": "disabled"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := &recorder{TB: t}
			tab := w.With(r).Tab()
			tab.Open("/")
			is, err := tab.try("point", what, "")
			if err != nil || !strings.Contains(is.Error, want) {
				t.Errorf("%+v %v", is, err)
			}
		})
	}
}
