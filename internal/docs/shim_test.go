package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"holdfast/internal/nfsclient"
)

// Environment of commands on machines.
const (
	controlEnv = "HOLDFAST_DOCS_CONTROL"
	nameEnv    = "HOLDFAST_DOCS_NAME"
)

// shims are programs that the machines do not have: this binary, under their names.
var shims = map[string]func(args []string) error{
	"systemctl": systemctl,
	"reboot":    func([]string) error { return control("restart") },
	"apt":       apt,
	"mount":     mount,
	"scp":       func(args []string) error { return control("scp " + strings.Join(args, " ")) },
	"ssh":       func(args []string) error { return control("ssh " + strings.Join(args, " ")) },
}

// control asks for something to happen to the machine.
func control(verb string) error {
	c, err := net.Dial("unix", os.Getenv(controlEnv))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, os.Getenv(nameEnv), verb); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && string(answer) != "done" {
		err = errors.New(string(answer))
	}
	return err
}

// systemctl knows one unit on each machine, see (*machine).unit.
func systemctl(args []string) error {
	if len(args) < 2 || !slices.Contains([]string{"holdfast", balancer}, strings.TrimSuffix(args[len(args)-1], ".service")) {
		return fmt.Errorf("systemctl %q: not known", args)
	}
	switch args[0] {
	case "show":
		fmt.Println("loaded")
		return nil
	case "enable", "disable":
		if slices.Contains(args, "--now") {
			return control(map[string]string{"enable": "start", "disable": "stop"}[args[0]])
		}
		return nil
	case "start", "stop", "restart":
		return control(args[0])
	}
	return fmt.Errorf("systemctl %q: not known", args)
}

// apt does to the service what the package does, see packaging/scripts.
func apt(args []string) error {
	if len(args) != 2 || args[0] != "install" || !strings.HasPrefix(args[1], "./holdfast_") {
		return fmt.Errorf("apt %q: not known", args)
	}
	return control("upgrade")
}

// mount mounts an export, named or from fstab(5), with a client in user space, and writes and reads a file.
func mount(args []string) error {
	var source, options string
	switch {
	case len(args) == 6 && args[0] == "-t" && args[1] == "nfs" && args[2] == "-o":
		options, source = args[3], args[4]
	case len(args) == 1:
		table, err := os.ReadFile("/etc/fstab")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(table)) {
			if f := strings.Fields(line); len(f) == 6 && f[1] == args[0] && f[2] == "nfs" {
				source, options = f[0], f[3]
			}
		}
	}
	if source == "" {
		return fmt.Errorf("mount %q: not known", args)
	}
	host, export, ok := strings.Cut(source, ":")
	if !ok {
		return fmt.Errorf("%q is not HOST:/EXPORT", source)
	}
	set := map[string]string{}
	for o := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		set[name] = value
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cfg := nfsclient.Config{Address: net.JoinHostPort(host, "2049"), Export: export}
	if set["port"] != "" {
		cfg.Address = net.JoinHostPort(host, set["port"])
	}
	switch set["vers"] {
	case "4.2", "4.1":
		cfg.Version = "4.1"
	case "3":
		cfg.Version = "3"
		if _, nolock := set["nolock"]; !nolock {
			return errors.New("version 3 without nolock: the Linux client would look for NLM")
		}
		if set["port"] == "" {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, "111"))
			if err != nil {
				return fmt.Errorf("nobody tells the ports: %w", err)
			}
			c.Close()
		}
	default:
		return fmt.Errorf("version %q", set["vers"])
	}
	cl, err := nfsclient.Mount(ctx, cfg)
	if err != nil {
		return fmt.Errorf("mount %s: %w", source, err)
	}
	return errors.Join(try(ctx, cl), cl.Close(ctx))
}

// try writes a file and reads it.
func try(ctx context.Context, cl nfsclient.Client) error {
	f, err := cl.Open(ctx, cl.Root(), "greeting", nfsclient.OpenOptions{Create: nfsclient.Unchecked, Mode: 0o644})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	want := []byte("hello")
	if err := f.Write(ctx, want, 0, nfsclient.FileSync); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	got := make([]byte, len(want))
	if _, _, err := f.Read(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("read %q, %w", got, err)
	}
	return f.Close(ctx)
}
