//go:build race

package main

// raced says that the race detector is on, under which scenarios are only told as they happen: with every fault they
// would take minutes, and what runs in them at once runs in the other tests too.
func init() { raced = true }
