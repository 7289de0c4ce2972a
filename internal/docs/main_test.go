// Package docs runs the commands of the README and of the administrator's book, docs/operations.md, in the order in which they stand there, on machines made of
// network, mount and host name namespaces: as root, or without where users may make namespaces of their own. The commands run as they are printed, with the addresses,
// folders and host names that are printed.
//
// A fenced block with the info string console holds commands; a line of it that begins with MACHINE# is one, typed by root on that machine. One that shall fail ends with the
// comment "# exit code N". Other lines are output, shown to the reader and not compared. What happens to machines otherwise is told by comments that are not
// rendered, see (*book).direct.
package docs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// hubEnv is set in the process that runs in namespaces of its own, machineEnv, to the name, in one that is a machine.
const (
	hubEnv     = "HOLDFAST_DOCS_HUB"
	machineEnv = "HOLDFAST_DOCS_MACHINE"
)

// noNamespaces is why the commands cannot be run here; nil if they can.
var noNamespaces error

func TestMain(m *testing.M) {
	if shim := shims[filepath.Base(os.Args[0])]; shim != nil {
		exitWith(shim(os.Args[1:]))
	}
	if os.Getenv(machineEnv) != "" {
		exitWith(beMachine())
	}
	if os.Getenv(hubEnv) == "" {
		code, err := runInNamespaces()
		if err == nil {
			os.Exit(code)
		}
		noNamespaces = err
	}
	os.Exit(m.Run())
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runInNamespaces runs this program again, as root of namespaces of its own. It returns an error if it cannot.
func runInNamespaces() (int, error) {
	for _, tool := range []string{"nsenter", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			return 0, err
		}
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), hubEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("this machine gives us no namespaces of our own (%w): run the tests as root", err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}
