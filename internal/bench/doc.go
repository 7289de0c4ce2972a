// Package bench measures NFS servers side by side on one machine: Holdfast as one node, Holdfast as three nodes on one disk, and, where it is
// installed and we are root, NFS-Ganesha on one node without replication as the yardstick. All servers are up during the whole run and take turns
// case by case, so that what else happens on the machine hits them alike and the ratios mean something.
//
// Two clients drive them: the load generator of package loadgen, in a process of its own, and the Linux kernel's client in user-mode Linux (package lab).
package bench

import (
	"context"
	"fmt"
	"io"
	"time"
)

// The clients that can drive the servers.
const (
	ClientLoadgen = "loadgen"
	ClientLinux   = "linux"
)

// The servers that can be measured. Yardstick is left out where it cannot run.
const (
	ServerOne       = "holdfast-1"
	ServerThree     = "holdfast-3"
	ServerYardstick = "ganesha"
)

// Options say what to measure. Defaults and Quick return usable ones.
type Options struct {
	// Holdfast is the binary to measure.
	Holdfast string
	// Clients, Servers and Versions are what to combine. LinuxVersions are those that the Linux client mounts with.
	Clients, Servers, Versions, LinuxVersions []string
	// Cases are names out of loadgen.Cases; nil: all.
	Cases []string
	Size  Size
	// Log receives what is going on, for people. nil: nothing.
	Log io.Writer
}

// Size says how much work the cases are.
type Size struct {
	Bytes    int64         // of the file that is written and read in sequence
	Warm     int64         // bytes written and removed before anything is measured, as servers are not new most of the time
	Duration time.Duration // of the cases without a natural end
	Files    int           // small ones
	Entries  int           // of the large directory
	// What the Linux client does instead of Duration, and how many entries it lists: its file system calls are slower.
	LinuxSyncWrites, LinuxEntries int
}

// Defaults are the options of a full run, which takes some five minutes.
func Defaults() Options {
	return Options{
		Clients: []string{ClientLoadgen, ClientLinux}, Servers: []string{ServerYardstick, ServerOne, ServerThree},
		Versions: []string{"4.1", "3"}, LinuxVersions: []string{"4.2"},
		Size: Size{Bytes: 256 << 20, Warm: 384 << 20, Duration: 1500 * time.Millisecond, Files: 1500, Entries: 100_000, LinuxSyncWrites: 500, LinuxEntries: 5000},
	}
}

// Quick are the options of a run of less than a minute: version 4.1, no Linux client.
func Quick() Options {
	o := Defaults()
	o.Clients, o.Versions = []string{ClientLoadgen}, []string{"4.1"}
	o.Size = Size{Bytes: 64 << 20, Warm: 64 << 20, Duration: time.Second, Files: 600, Entries: 3000}
	return o
}

// Report is the outcome of a run.
type Report struct {
	// Disk is what the disk itself takes for a write of 4 KiB and an fdatasync, into an allocated file, one at a time.
	DiskSyncP50MS float64 `json:"disk_sync_p50_ms"`
	DiskSyncP99MS float64 `json:"disk_sync_p99_ms"`
	CPUs          int     `json:"cpus"`
	// IdleRSS is the memory in bytes of the largest process of each server before any load.
	IdleRSS map[string]int64 `json:"idle_rss_bytes"`
	Rows    []Row            `json:"rows"`
}

// Row is one case under one client and version, for all servers that ran.
type Row struct {
	Client  string            `json:"client"`
	Version string            `json:"version"` // of NFS
	Case    string            `json:"case"`
	Servers map[string]Figure `json:"servers"`
	// Ratio is the rate of holdfast-3 divided by that of the yardstick; more is better. 0: one of them did not run.
	Ratio float64 `json:"holdfast_3_to_ganesha,omitempty"`
}

// Figure is what one server gave.
type Figure struct {
	Ops        int     `json:"ops"`
	Bytes      int64   `json:"bytes,omitempty"`
	Seconds    float64 `json:"seconds"`
	PerSec     float64 `json:"ops_per_second"`
	MBPerSec   float64 `json:"mb_per_second,omitempty"` // 10^6 bytes
	P50        float64 `json:"p50_ms,omitempty"`
	P99        float64 `json:"p99_ms,omitempty"`
	CPUSeconds float64 `json:"cpu_seconds"` // of all the server's processes
	CPUPerOp   float64 `json:"cpu_us_per_op"`
	CPUPerGB   float64 `json:"cpu_seconds_per_gb,omitempty"`
}

func (f *Figure) finish() {
	if f.Seconds > 0 {
		f.PerSec, f.MBPerSec = float64(f.Ops)/f.Seconds, float64(f.Bytes)/1e6/f.Seconds
	}
	if f.Ops > 0 {
		f.CPUPerOp = f.CPUSeconds * 1e6 / float64(f.Ops)
	}
	if f.Bytes > 0 {
		f.CPUPerGB = f.CPUSeconds / (float64(f.Bytes) / 1e9)
	}
}

// Run measures. What was measured before an error is in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	r := &Report{IdleRSS: make(map[string]int64)}
	if err := r.machine(); err != nil {
		return r, err
	}
	for _, client := range o.Clients {
		var err error
		switch client {
		case ClientLoadgen:
			err = runLoadgen(ctx, o, r)
		case ClientLinux:
			err = runLinux(ctx, o, r)
		default:
			err = fmt.Errorf("there is no client %q: there are %s and %s", client, ClientLoadgen, ClientLinux)
		}
		if err != nil {
			return r, fmt.Errorf("bench: %s: %w", client, err)
		}
	}
	return r, nil
}

// add puts a figure into its row.
func (r *Report) add(client, version, name, server string, f Figure) {
	f.finish()
	row := r.row(client, version, name)
	row.Servers[server] = f
	if three, yard := row.Servers[ServerThree], row.Servers[ServerYardstick]; three.PerSec > 0 && yard.PerSec > 0 {
		row.Ratio = three.PerSec / yard.PerSec
	}
}

func (r *Report) row(client, version, name string) *Row {
	for i := range r.Rows {
		if row := &r.Rows[i]; row.Client == client && row.Version == version && row.Case == name {
			return row
		}
	}
	r.Rows = append(r.Rows, Row{Client: client, Version: version, Case: name, Servers: make(map[string]Figure)})
	return &r.Rows[len(r.Rows)-1]
}
