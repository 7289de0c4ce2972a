package lab

import (
	"bufio"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"holdfast/internal/lab/work"
)

// A namespace gives a process other monotonic clocks, but the wall clock is the machine's (time_namespaces(7)), and must stay right for whatever else runs. What
// a Go program does to know the time, however, is to call clock_gettime of the vDSO, through a pointer that its runtime keeps. So a process gets another wall clock by a function
// that adds to what the kernel's returns, in the room after the vDSO's end (which each process has a copy of its own of when it is written to), and by that pointer. Nothing is
// stopped meanwhile: whoever is in the kernel's function returns from it. All that the process asks for the wall clock sees the change, its libraries too.

// clockPointer is the runtime's pointer, of runtime/vdso_linux_amd64.go.
const clockPointer = "runtime.vdsoClockgettimeSym"

// The layout of what is added to the vDSO.
const (
	shimOriginal = 0 // the kernel's function
	shimOffset   = 8 // in seconds, what is added to the wall clock
	shimCode     = 16
)

// clockShim is clock_gettime(edi: the clock, rsi: its result, a struct timespec), for amd64.
var clockShim = []byte{
	0x85, 0xff, // test edi, edi; CLOCK_REALTIME is 0
	0x75, 0x13, // jne other
	0x56,                               // push rsi; it aligns the stack, too
	0xff, 0x15, 0xe5, 0xff, 0xff, 0xff, // call [original]
	0x5e,                                     // pop rsi
	0x48, 0x8b, 0x0d, 0xe5, 0xff, 0xff, 0xff, // mov rcx, [offset]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3,                               // ret
	0xff, 0x25, 0xd3, 0xff, 0xff, 0xff, // other: jmp [original]
}

// setProcessClock makes the wall clock of a Go process, built without -s, run so much ahead of the machine's. What is less than a second is left out.
func setProcessClock(pid int, ahead time.Duration) error {
	pointer, err := symbolAddress(fmt.Sprintf("/proc/%d/exe", pid), clockPointer)
	if err != nil {
		return err
	}
	vdso, size, err := findMapping(pid, "[vdso]")
	if err != nil {
		return err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	image := make([]byte, size)
	if _, err := mem.ReadAt(image, vdso); errors.Is(err, io.EOF) { // it was replaced by exec meanwhile
		return errNoClockYet
	} else if err != nil {
		return fmt.Errorf("read the vDSO: %w", err)
	}
	shim, err := roomAfter(image)
	if err != nil {
		return err
	}
	var word [8]byte
	if _, err := mem.ReadAt(word[:], pointer); errors.Is(err, io.EOF) {
		return errNoClockYet
	} else if err != nil {
		return fmt.Errorf("read %s: %w", clockPointer, err)
	}
	current := int64(binary.LittleEndian.Uint64(word[:]))
	write := func(at int64, b []byte) error {
		if _, err := mem.WriteAt(b, at); err != nil {
			return fmt.Errorf("change the process's memory: %w", err)
		}
		return nil
	}
	offset := binary.LittleEndian.AppendUint64(nil, uint64(int64(ahead/time.Second)))
	switch {
	case current == vdso+shim+shimCode:
		return write(vdso+shim+shimOffset, offset)
	case current < vdso || current >= vdso+size:
		return errNoClockYet
	}
	added := append(append(word[:], offset...), clockShim...)
	if err := write(vdso+shim, added); err != nil {
		return err
	}
	return write(pointer, binary.LittleEndian.AppendUint64(nil, uint64(vdso+shim+shimCode)))
}

// errNoClockYet: the process's runtime does not run yet.
var errNoClockYet = errors.New("the process does not use the vDSO (yet)")

// symbolAddress is where a program that is not relocated has a symbol.
func symbolAddress(path, name string) (int64, error) {
	f, err := elf.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC {
		return 0, fmt.Errorf("%s is a program of type %v for %v; its clock cannot be set", path, f.Type, f.Machine)
	}
	symbols, err := f.Symbols()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	for i := range symbols {
		if symbols[i].Name == name {
			return int64(symbols[i].Value), nil
		}
	}
	return 0, fmt.Errorf("%s has no symbol %s", path, name)
}

// findMapping finds a part of a process's memory by its name.
func findMapping(pid int, name string) (start, size int64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if !strings.HasSuffix(lines.Text(), name) {
			continue
		}
		var end int64
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &start, &end); err != nil {
			return 0, 0, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		return start, end - start, nil
	}
	return 0, 0, errors.Join(fmt.Errorf("process %d has no %s", pid, name), lines.Err())
}

// roomAfter is where there is room for the shim after an ELF image that ends with its table of sections, as the vDSO does.
func roomAfter(image []byte) (int64, error) {
	if len(image) < 64 || string(image[:4]) != elf.ELFMAG {
		return 0, errors.New("the vDSO is no ELF image")
	}
	sections := int64(binary.LittleEndian.Uint64(image[40:]))
	size, count := int64(binary.LittleEndian.Uint16(image[58:])), int64(binary.LittleEndian.Uint16(image[60:]))
	room := (sections + size*count + 15) &^ 15
	if room+shimCode+int64(len(clockShim)) > int64(len(image)) {
		return 0, fmt.Errorf("the vDSO has %d bytes, and no room after the first %d", len(image), room)
	}
	return room, nil
}

// SetClock makes the wall clock of the node's machine run so much ahead of the true time, or behind it if that is negative, in whole seconds. It stays so when the node is started
// again, and may be set while the node does not run.
func (n *Node) SetClock(ctx context.Context, ahead time.Duration) error {
	n.ahead = ahead.Truncate(time.Second)
	return n.applyClock(ctx)
}

// applyClock gives the current process, if there is one, the machine's clock as soon as it can take it: it begins as ip, which enters the namespace.
func (n *Node) applyClock(ctx context.Context) error {
	binary, err := os.Stat(n.cluster.options.Binary)
	if err != nil {
		return err
	}
	for {
		err := errNoClockYet
		if program, statErr := os.Stat(fmt.Sprintf("/proc/%d/exe", n.Process.Pid())); statErr == nil && os.SameFile(program, binary) {
			err = setProcessClock(n.Process.Pid(), n.ahead)
		}
		if err == nil {
			return nil
		}
		wait := time.Millisecond // nobody tells when a process has become another program
		if !errors.Is(err, errNoClockYet) {
			wait = time.Second // it may be about to end
		}
		select {
		case <-n.Process.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("set the clock of node %s: %w: %w", n.Name, ctx.Err(), err)
		case <-time.After(wait):
			if wait == time.Second {
				return fmt.Errorf("set the clock of node %s: %w", n.Name, err)
			}
		}
	}
}

// SetClock makes the guest's wall clock run so much ahead of the true time, or behind it.
func (g *Guest) SetClock(ctx context.Context, ahead time.Duration) error {
	return g.Run(ctx, "clock", work.ClockArgs{Unix: time.Now().Add(ahead).Unix()}, nil)
}
