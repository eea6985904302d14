//go:build !linux

package main

import "syscall"

// benchChildAttr is nothing special where the kernel does not end children with their parents.
func benchChildAttr() *syscall.SysProcAttr { return nil }
