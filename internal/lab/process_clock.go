package lab

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// A namespace gives a process other monotonic clocks, but the wall clock is the machine's (time_namespaces(7)), and must stay right for whatever else runs. What
// a Go program does to know the time, however, is to call clock_gettime of the vDSO, through a pointer that its runtime keeps. So a process gets another wall clock by a function
// that adds to what the kernel's returns, and by that pointer. Nothing is stopped meanwhile: whoever is in the kernel's function returns from it. All that asks for the
// wall clock sees the change, libraries too. Written through /proc, a page of the program becomes the process's own.

const (
	// clockPointer is the runtime's pointer (runtime/vdso_linux_amd64.go).
	clockPointer = "runtime.vdsoClockgettimeSym"
	// clockPlace is where the function goes: one of the runtime's that no program without cgo ever calls.
	clockPlace = "runtime.cgoSigtramp.abi0"
)

// What is written to clockPlace begins with two words; the code follows.
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

// errNoClockYet: the process's runtime does not know of the vDSO yet, or the process is about to become another program.
var errNoClockYet = errors.New("the process does not ask for the time (yet)")

// setProcessClock makes the wall clock of a Go process, built without cgo and with its symbols, run so much ahead of the machine's. What is less than a second is left out.
func setProcessClock(pid int, ahead time.Duration) error {
	pointer, place, err := clockSymbols(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	word := make([]byte, 8)
	if _, err := mem.ReadAt(word, pointer); errors.Is(err, io.EOF) || errors.Is(err, syscall.EIO) {
		return errNoClockYet // its memory is gone, or not there yet
	} else if err != nil {
		return fmt.Errorf("read %s: %w", clockPointer, err)
	}
	offset := binary.LittleEndian.AppendUint64(nil, uint64(int64(ahead/time.Second)))
	code := binary.LittleEndian.AppendUint64(nil, uint64(place+shimCode))
	switch binary.LittleEndian.Uint64(word) {
	case 0:
		return errNoClockYet
	case uint64(place + shimCode): // it was set before
		_, err = mem.WriteAt(offset, place+shimOffset)
	default:
		if _, err = mem.WriteAt(append(append(word, offset...), clockShim...), place); err == nil {
			_, err = mem.WriteAt(code, pointer)
		}
	}
	if err != nil {
		return fmt.Errorf("change the process's memory: %w", err)
	}
	return nil
}

// clockSymbols are the addresses of clockPointer and clockPlace in a program that is not relocated.
func clockSymbols(program string) (pointer, place int64, err error) {
	f, err := elf.Open(program)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC {
		return 0, 0, fmt.Errorf("%s is of type %v for %v; its clock cannot be set", program, f.Type, f.Machine)
	}
	symbols, err := f.Symbols()
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", program, err)
	}
	for i := range symbols {
		switch s := &symbols[i]; {
		case s.Name == clockPointer:
			pointer = int64(s.Value)
		case s.Name == clockPlace && s.Size >= shimCode+uint64(len(clockShim)):
			place = int64(s.Value)
		}
	}
	if pointer == 0 || place == 0 {
		return 0, 0, fmt.Errorf("%s lacks %s, or room at %s: another release of Go has other names for them", program, clockPointer, clockPlace)
	}
	return pointer, place, nil
}
