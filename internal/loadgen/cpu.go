package loadgen

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// userHZ is the unit of /proc/PID/stat: USER_HZ, 100 on all Linux platforms that Go runs on (proc_pid_stat(5)).
const userHZ = 100

// cpuMeter sums the CPU time of processes. nil reads 0.
type cpuMeter struct{ pids []int }

// newCPUMeter checks that the processes are there.
func newCPUMeter(pids []int) (*cpuMeter, error) {
	for _, pid := range pids {
		if _, err := processCPU(pid); err != nil {
			return nil, fmt.Errorf("loadgen: reading the CPU time of process %d: %w", pid, err)
		}
	}
	return &cpuMeter{pids: pids}, nil
}

// read returns the CPU seconds used so far; a process that is gone counts as nothing.
func (m *cpuMeter) read() float64 {
	sum := 0.0
	if m != nil {
		for _, pid := range m.pids {
			if s, err := processCPU(pid); err == nil {
				sum += s
			}
		}
	}
	return sum
}

func processCPU(pid int) (seconds float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// parseStat returns user and system time of all threads from a /proc/PID/stat line.
func parseStat(b []byte) (seconds float64, err error) {
	// The second field is the command in parentheses and may hold anything, parentheses too.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const utime, stime = 14 - 3, 15 - 3 // numbered from 1; the first field here is number 3
	if len(fields) <= stime {
		return 0, errors.New("too few fields")
	}
	for _, f := range [][]byte{fields[utime], fields[stime]} {
		ticks, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return 0, err
		}
		seconds += float64(ticks) / userHZ
	}
	return seconds, nil
}
