package browsertest

import (
	_ "embed"
	"strings"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

//go:embed testdata/axe-core/axe.min.js
var axeJS string

// axeRun runs every rule of WCAG 2.2 A and AA, and those beyond it that axe-core calls best practice.
const axeRun = `axe.run(document, {resultTypes: ["violations"], runOnly: {type: "tag",
  values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}}).then(r => ({rules: r.passes.length + r.violations.length,
  violations: r.violations.flatMap(v => v.nodes.map(n => [v.id, v.impact, v.help, n.target.join(" "), n.failureSummary, n.html.slice(0, 200)]))}))`

// Axe fails the test for every violation that axe-core finds on the page as it stands.
func (t *Tab) Axe() {
	t.t.Helper()
	if t.scriptless { // what the page has done without them is done
		call(t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})
		defer t.JavaScript(false)
	}
	do(t, chromedp.Evaluate[chromedp.Void](axeJS+"\n;0"))
	found := do(t, chromedp.Evaluate[struct {
		Rules      int        `json:"rules"`
		Violations [][]string `json:"violations"`
	}](axeRun, chromedp.EvalAwaitPromise))
	if found.Rules < 10 {
		t.t.Errorf("%s: axe-core had only %d rules to look at", t.Path(), found.Rules)
	}
	for _, v := range found.Violations {
		t.t.Errorf("%s: axe-core: %s (%s): %s\n  at %s\n  %s\n  %s", t.Path(), v[0], v[1], v[2], v[3], strings.ReplaceAll(v[4], "\n", "\n  "), v[5])
	}
	t.report()
}
