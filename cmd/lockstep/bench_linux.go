package main

import "syscall"

// benchChildAttr keeps a child out of the terminal's reach, since ^C is for the benchmark to handle in
// order, and has the kernel end it when the benchmark is killed.
func benchChildAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
