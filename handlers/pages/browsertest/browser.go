package browsertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// install is what brings the browser where there is none.
const install = "install Chromium: apt-get install -y --no-install-recommends chromium fonts-dejavu-core (Debian), brew install --cask chromium (macOS)"

// chromium finds a browser.
var chromium = sync.OnceValues(func() (string, error) {
	for _, name := range []string{"/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no Chromium: %s", install)
})

// requireBrowser fails the test in CI, and as root, who can install what is missing, when there is no browser. It skips
// only a developer's own run, and says so.
func requireBrowser(t testing.TB) {
	t.Helper()
	_, err := chromium()
	switch {
	case err == nil:
	case os.Getenv("CI") != "" || os.Getuid() == 0:
		t.Fatal(err)
	default:
		t.Skipf("the pages are NOT tested: %v", err)
	}
}

// closeBrowser ends the browser, if one was started.
var closeBrowser = func() {}

// browser starts the one browser of the test process, with an empty profile and no way to any other machine.
var browser = sync.OnceValues(func() (context.Context, error) {
	path, err := chromium()
	if err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
		chromedp.Flag("disable-features", "Translate,BlinkGenPropertyTrees,OptimizationHints,MediaRouter,AutofillServerCommunication"),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
		chromedp.Flag("lang", "en-US"))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	alloc, endAlloc := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, endBrowser := chromedp.NewContext(alloc, chromedp.WithErrorf(quiet))
	if err := chromedp.Do(ctx); err != nil {
		endBrowser()
		endAlloc()
		return nil, fmt.Errorf("%s does not start: %w", path, err)
	}
	closeBrowser = func() {
		end, cancel := context.WithTimeout(ctx, 10*time.Second)
		_ = chromedp.Cancel(end)
		cancel()
		endBrowser()
		endAlloc()
	}
	return ctx, nil
})

// quiet keeps what the client can't read of a newer browser's events out of the tests' output.
func quiet(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !strings.Contains(s, "unmarshal") && !strings.Contains(s, "unhandled") {
		fmt.Fprintln(os.Stderr, "chromium:", s)
	}
}
