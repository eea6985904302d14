package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far something is that can count its steps: a bar on a terminal, elsewhere a line every few seconds.
type progress struct {
	out  io.Writer
	what string
	bar  *progressbar.ProgressBar // nil where there is no terminal
	told time.Time                // the last line
}

// progressLine is how long there is silence where there is no terminal.
const progressLine = 5 * time.Second

func newProgress(out io.Writer, what string) *progress {
	p := &progress{out: out, what: what, told: time.Now()}
	if onTerminal(out) {
		p.bar = progressbar.NewOptions64(-1, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(what), progressbar.OptionFullWidth(),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond))
	}
	return p
}

// onTerminal reports whether what is written to out is seen by somebody as it is written.
func onTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// at tells how much is done, of how much.
func (p *progress) at(done, of int64) {
	if p.bar != nil {
		p.bar.ChangeMax64(of)
		_ = p.bar.Set64(done) // a bar that can't be drawn is no reason to stop
		return
	}
	if now := time.Now(); now.Sub(p.told) >= progressLine {
		p.told = now
		fmt.Fprintf(p.out, "%s: %d of %d\n", p.what, done, of)
	}
}

// end takes the bar away.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
