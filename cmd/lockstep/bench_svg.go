package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
)

// The picture has a row for each case: how many times the yardstick's rate it had, with a line where the target is, and
// on a logarithmic scale how long half and 99 of 100 of its requests took. It follows the reader's light or dark mode.
const (
	svgWidth  = 960
	svgNames  = 110 // where the bars begin
	svgBars   = 330 // how long the longest is
	svgTimes  = 600 // where the latencies begin
	svgSpan   = 300 // how wide their scale is
	svgTop    = 84
	svgRow    = 30
	svgBottom = 58
)

const svgStyle = `
svg { --back: #ffffff; --text: #1f2328; --faint: #656d76; --line: #d8dee4; --bar: #2f6fde; --none: #8c959f; --good: #1a7f37; --bad: #cf222e; --half: #2f6fde; --most: #d97706 }
@media (prefers-color-scheme: dark) {
  svg { --back: #0d1117; --text: #e6edf3; --faint: #9198a1; --line: #30363d; --bar: #4c8dff; --none: #6e7681; --good: #3fb950; --bad: #f85149; --half: #4c8dff; --most: #f0a03c }
}
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--text) }
.title { font-size: 16px; font-weight: 600 }
.faint { fill: var(--faint); font-size: 12px }
.bad { fill: var(--bad) }
.end { text-anchor: end }
.middle { text-anchor: middle }
.line { stroke: var(--line); stroke-width: 1 }
.met { stroke: var(--good); stroke-width: 2.5 }
.missed { stroke: var(--bad); stroke-width: 2.5 }
.span { stroke: var(--none); stroke-width: 2 }
`

// svgPicture is a picture while it is drawn.
type svgPicture struct{ bytes.Buffer }

func (p *svgPicture) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(p, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

func (p *svgPicture) text(class string, x, y float64, format string, args ...any) {
	fmt.Fprintf(p, `<text class="%s" x="%.1f" y="%.1f">`, class, x, y)
	_ = xml.EscapeText(p, fmt.Appendf(nil, format, args...)) // a buffer takes all
	p.WriteString("</text>\n")
}

func (p *svgPicture) dot(variable string, x, y float64) {
	fmt.Fprintf(p, `<circle cx="%.1f" cy="%.1f" r="4.5" fill="var(--%s)"/>`+"\n", x, y, variable)
}

// svgScale maps latencies to the picture: whole decades, so that two pictures look alike.
type svgScale struct{ from, to float64 } // powers of ten

func newSVGScale(cases []benchFigures) svgScale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, f := range cases {
		for _, ms := range []float64{f.P50, f.P99, f.Within} {
			if ms > 0 {
				low, high = min(low, ms), max(high, ms)
			}
		}
	}
	if high < low {
		return svgScale{0, 2}
	}
	s := svgScale{math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))}
	s.to = max(s.to, s.from+1)
	return s
}

func (s svgScale) x(ms float64) float64 {
	return svgTimes + svgSpan*(math.Log10(ms)-s.from)/(s.to-s.from)
}

// svg draws the report.
func (r *benchReport) svg() []byte {
	p := &svgPicture{}
	height := svgTop + svgRow*len(r.Cases) + svgBottom
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="Rates and latencies of lockstep beside pgbench">`+"\n<style>%s</style>\n",
		svgWidth, height, svgStyle)
	fmt.Fprintf(p, `<rect width="%d" height="%d" fill="var(--back)"/>`+"\n", svgWidth, height)
	p.text("title", 16, 28, "Rate, as a multiple of pgbench (%.0f transactions a second)", r.Yardstick.Rate)
	p.text("title", svgTimes, 28, "Latency, ms")
	p.legend()
	end := float64(height - svgBottom)
	longest, times := 1.0, newSVGScale(r.Cases)
	for _, f := range r.Cases {
		longest = max(longest, f.Ratio, f.Target)
	}
	ratioX := func(ratio float64) float64 { return svgNames + svgBars*ratio/longest }
	p.line("line", ratioX(1), svgTop-8, ratioX(1), end)
	p.text("faint middle", ratioX(1), end+18, "pgbench = 1")
	for decade := times.from; decade <= times.to; decade++ {
		ms := math.Pow(10, decade)
		p.line("line", times.x(ms), svgTop-8, times.x(ms), end)
		p.text("faint middle", times.x(ms), end+18, "%.4g", ms)
	}
	for i, f := range r.Cases {
		p.figures(&f, svgTop+svgRow*float64(i), ratioX, times)
	}
	p.text("faint", 16, float64(height)-14, "%s · medians of %d × %d s · %d customers · PostgreSQL %s · %d cores for load, gateway and database together",
		r.At.Format("2006-01-02"), r.Rounds, r.Seconds, r.Customers, r.Machine.Postgres, r.Machine.Cores)
	p.WriteString("</svg>\n")
	return p.Bytes()
}

func (p *svgPicture) legend() {
	const y = 52
	p.line("met", 20, y-10, 20, y+2)
	p.text("faint", 28, y, "target, met")
	p.line("missed", 110, y-10, 110, y+2)
	p.text("faint", 118, y, "target, missed")
	p.dot("half", svgTimes+5, y-4)
	p.text("faint", svgTimes+14, y, "p50")
	p.dot("most", svgTimes+55, y-4)
	p.text("faint", svgTimes+64, y, "p99")
}

// figures draws a case's row, whose upper end is y.
func (p *svgPicture) figures(f *benchFigures, y float64, ratioX func(float64) float64, times svgScale) {
	middle := y + svgRow/2 - 4
	p.text("end", svgNames-8, middle+4, "%s", f.Case)
	label := max(ratioX(f.Ratio), ratioX(f.Target)) + 8
	switch {
	case f.Ratio > 0:
		fmt.Fprintf(p, `<rect x="%d" y="%.1f" width="%.1f" height="%d" rx="2" fill="var(--bar)"/>`+"\n", svgNames, middle-8, max(1, ratioX(f.Ratio)-svgNames), 16)
		p.text("", label, middle+4, "%.2f×  %.0f/s", f.Ratio, f.Rate)
	case f.Commits > 0:
		p.text("faint", svgNames+4, middle+4, "one at a time: %.2f × as long as a lone transaction of pgbench", f.Commits)
	default:
		p.text("faint", svgNames+4, middle+4, "at a fixed rate: %.0f/s", f.Rate)
	}
	if f.Target > 0 {
		p.line(svgVerdict(f.Ratio >= f.Target), ratioX(f.Target), middle-11, ratioX(f.Target), middle+11)
	}
	if f.Within > 0 {
		p.line(svgVerdict(f.P99 < f.Within), times.x(f.Within), middle-11, times.x(f.Within), middle+11)
	}
	if f.P50 > 0 && f.P99 > 0 {
		p.line("span", times.x(f.P50), middle, times.x(f.P99), middle)
		p.dot("most", times.x(f.P99), middle)
		p.dot("half", times.x(f.P50), middle)
		p.text("faint", times.x(f.P99)+8, middle+4, "%.3g / %.3g", f.P50, f.P99)
	}
}

func svgVerdict(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}
