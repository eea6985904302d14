package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// benchProgress shows how far the benchmark is: a bar on a terminal, elsewhere a line for each step.
type benchProgress struct {
	out io.Writer
	bar *progressbar.ProgressBar // nil where there is no terminal
}

// newBenchProgress shows on out the progress of something that takes so many seconds.
func newBenchProgress(out io.Writer, seconds int) *benchProgress {
	p := &benchProgress{out: out}
	if onTerminal(out) {
		p.bar = progressbar.NewOptions(seconds, progressbar.OptionSetWriter(out), progressbar.OptionFullWidth(),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true))
	}
	return p
}

// step shows that something with a name takes so many seconds; done ends it, with what came out.
func (p *benchProgress) step(name string, seconds int) (done func(result string)) {
	if p.bar == nil {
		return func(result string) { fmt.Fprintf(p.out, "%s: %s\n", name, result) }
	}
	p.bar.Describe(name)
	shown := 0
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(time.Second); ; shown++ {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				if shown < seconds {
					_ = p.bar.Add(1) // a bar that can't be drawn is no reason to stop
				}
			}
		}
	}()
	return func(string) {
		close(stop)
		<-stopped
		_ = p.bar.Add(max(0, seconds-shown))
	}
}

// end takes the bar away.
func (p *benchProgress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
