package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// benchMachine is what figures from different machines differ by.
type benchMachine struct {
	OS       string            `json:"os"`
	Arch     string            `json:"arch"`
	CPU      string            `json:"cpu,omitzero"`
	Cores    int               `json:"cores"`
	Go       string            `json:"go"`
	Postgres string            `json:"postgres"`
	Pgbench  string            `json:"pgbench"`
	Embedded bool              `json:"embedded"` // the database is the benchmark's own server
	Sync     float64           `json:"sync_ms,omitzero"`
	Settings map[string]string `json:"settings"`
}

// benchSettings are the server's settings that a rate of commits hangs on.
var benchSettings = []string{"fsync", "synchronous_commit", "full_page_writes", "wal_compression", "shared_buffers",
	"max_wal_size", "checkpoint_timeout", "max_connections", "data_checksums"}

// describeMachine asks the machine and the database what they are.
func describeMachine(ctx context.Context, b *benchBed) (benchMachine, error) {
	m := benchMachine{OS: runtime.GOOS, Arch: runtime.GOARCH, CPU: cpuModel(), Cores: runtime.NumCPU(), Go: runtime.Version(),
		Pgbench: b.yardstick.version(ctx), Embedded: b.embedded, Settings: make(map[string]string)}
	if err := b.ledger.DB().GetContext(ctx, &m.Postgres, `show server_version`); err != nil {
		return m, err
	}
	for _, name := range benchSettings {
		var value string
		if err := b.ledger.DB().GetContext(ctx, &value, `select current_setting($1, true)`, name); err != nil {
			return m, err
		}
		m.Settings[name] = value
	}
	if b.embedded { // of another server's disk we know nothing
		took, err := syncTime(b.dir)
		if err != nil {
			return m, err
		}
		m.Sync = float64(took) / float64(time.Millisecond)
	}
	return m, nil
}

// remarks says what makes figures of this machine worth less, and how long its disk takes.
func (m *benchMachine) remarks() string {
	var text string
	if m.Sync > 0 {
		text = fmt.Sprintf(", fsync %.2f ms", m.Sync)
	}
	for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if m.Settings[name] == "off" {
			text += "\nbeware: " + name + " is off, so a commit is less than it should be"
		}
	}
	if m.Sync > 0 && m.Sync < 0.02 {
		text += "\nbeware: the data is on a disk that does not wait for writes, in memory perhaps; see -dir"
	}
	return text
}

// syncTime is how long the disk takes for a small write to be safe: the median of some.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var took []time.Duration
	page := make([]byte, 8192)
	for range 50 {
		begun := time.Now()
		if _, err := f.WriteAt(page, 0); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// cpuModel is the processor's name where the kernel tells.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "model name"); ok {
			return strings.TrimLeft(name, " \t:")
		}
	}
	return ""
}
