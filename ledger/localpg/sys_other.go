//go:build unix && !linux

package localpg

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// serverAttr: no parent-death signal here. A server whose owner was killed
// lives on until the next Start stops it.
func serverAttr(u *osUser) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: credential(u)}
}

// runsOn tells whether the process is a server on the cluster, which is on
// its command line.
func runsOn(pid int, cluster string) bool {
	out, err := exec.Command("/bin/ps", "-ww", "-o", "stat=,args=", "-p", strconv.Itoa(pid)).Output()
	line := strings.TrimSpace(string(out))
	return err == nil && !strings.HasPrefix(line, "Z") && strings.Contains(line+" ", "-D "+cluster+" ")
}
