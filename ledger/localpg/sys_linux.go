package localpg

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// serverAttr: the server gets a fast shutdown from the kernel when we die.
func serverAttr(u *osUser) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: credential(u), Pdeathsig: fastShutdown}
}

// runsOn tells whether the process is a server on the cluster: by its arguments
// if we started it, by its working folder if somebody else did (which root may
// not see in a container). The dead and the zombies have neither.
func runsOn(pid int, cluster string) bool {
	args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return cwd == cluster || bytes.Contains(args, []byte("\x00-D\x00"+cluster+"\x00"))
}
