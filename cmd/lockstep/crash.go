package main

import (
	"os"
	"syscall"
)

// crashAt names the point at which the process kills itself, as kill -9 would: how tests prove what a
// crash between two steps leaves behind. Empty in production.
var crashAt = os.Getenv("LOCKSTEP_CRASH_AT")

// crash ends the process here if it was told to.
func crash(point string) {
	if crashAt == "" || crashAt != point {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
