package lab

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// imageCache is the initramfs of a lab's guests, built when the first is booted.
type imageCache struct {
	once sync.Once
	path string
	err  error
}

// writeImage builds the initramfs of the guests: the agent as /init, and the modules it loads.
func writeImage(ctx context.Context, dir string) (path string, err error) {
	agent, err := build(ctx, dir, "holdfast/internal/lab/guest", "guest-init")
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(agent)
	if err != nil {
		return "", err
	}
	names, data, err := readModules()
	if err != nil {
		return "", fmt.Errorf("modules of the guest kernel: %w", err)
	}
	path = filepath.Join(dir, "initramfs.gz")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := bufio.NewWriterSize(f, 1<<20)
	zip, err := gzip.NewWriterLevel(buf, gzip.BestSpeed)
	if err != nil {
		return "", err
	}
	a := &archive{w: zip}
	for _, d := range []string{"dev", "proc", "sys", "tmp", "mnt", "modules"} {
		a.dir(d)
	}
	a.charDev("dev/console", 5, 1)
	a.charDev("dev/null", 1, 3)
	for i, name := range names {
		a.file("modules/"+name, modeFile, data[i])
	}
	a.file("modules/order", modeFile, []byte(strings.Join(names, "\n")+"\n"))
	a.file("init", modeProgram, program)
	if err := a.close(); err != nil {
		return "", fmt.Errorf("write initramfs: %w", err)
	}
	if err := zip.Close(); err != nil {
		return "", err
	}
	if err := buf.Flush(); err != nil {
		return "", err
	}
	return path, f.Close()
}
