package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// procStat is what /proc/PID/stat says of a process.
type procStat struct {
	name   string
	parent int
	cpu    time.Duration // of the process itself, user and system
	reaped time.Duration // of its children that have ended
}

// procTick is the unit of times in /proc: USER_HZ, 100 on every architecture that Go runs on.
const procTick = time.Second / 100

var errProcStat = errors.New("not the stat of a process as Linux writes it")

// parseProcStat reads the text of /proc/PID/stat. The name is in parentheses and may hold spaces and parentheses itself.
func parseProcStat(text []byte) (s procStat, err error) {
	from, to := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if from < 0 || to < from {
		return s, errProcStat
	}
	s.name = string(text[from+1 : to])
	fields := strings.Fields(string(text[to+1:])) // from the third of proc(5) on: state, parent, …
	if len(fields) < 15 {
		return s, errProcStat
	}
	if s.parent, err = strconv.Atoi(fields[1]); err != nil {
		return s, fmt.Errorf("%w: parent %q", errProcStat, fields[1])
	}
	var ticks [4]uint64 // utime, stime, cutime, cstime
	for i := range ticks {
		if ticks[i], err = strconv.ParseUint(fields[11+i], 10, 48); err != nil {
			return s, fmt.Errorf("%w: time %q", errProcStat, fields[11+i])
		}
	}
	s.cpu, s.reaped = time.Duration(ticks[0]+ticks[1])*procTick, time.Duration(ticks[2]+ticks[3])*procTick
	return s, nil
}

// readProcStat reads what proc, a folder like /proc, says of a process.
func readProcStat(proc string, pid int) (procStat, error) {
	text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return procStat{}, err
	}
	return parseProcStat(text)
}

// familyCPU is the processor time that a process and its children have taken, those that have ended included: a child's
// time passes to its parent when it ends, so nothing is lost between two readings.
func familyCPU(proc string, pid int) (time.Duration, error) {
	head, err := readProcStat(proc, pid)
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return 0, err
	}
	sum := head.cpu + head.reaped
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readProcStat(proc, child); err == nil && s.parent == pid { // one that has just ended is no error
			sum += s.cpu + s.reaped
		}
	}
	return sum, nil
}

// parsePeakMemory reads the most memory that a process had at once, in bytes, from the text of /proc/PID/status.
func parsePeakMemory(text []byte) (int64, error) {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 48)
			return kb << 10, err
		}
	}
	return 0, errors.New("the status of a process has no VmHWM")
}

func peakMemory(proc string, pid int) (int64, error) {
	text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	return parsePeakMemory(text)
}

// forgetPeakMemory has a process's peak begin anew. A kernel that can't do that leaves it as it was: too high, never
// too low.
func forgetPeakMemory(proc string, pid int) {
	_ = os.WriteFile(filepath.Join(proc, strconv.Itoa(pid), "clear_refs"), []byte("5"), 0)
}
