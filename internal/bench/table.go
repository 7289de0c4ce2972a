package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// bulkBytes: from this much payload an operation on, a case is about bytes.
const bulkBytes = 256 << 10

// Print writes the report for people: one table for each client and version, a line for each case.
func (r *Report) Print(out io.Writer) error {
	fmt.Fprintf(out, "%d CPUs. The disk itself: 4 KiB write and fdatasync, one at a time: p50 %.2f ms, p99 %.2f ms.\n", r.CPUs, r.DiskSyncP50MS, r.DiskSyncP99MS)
	for _, s := range columns {
		if rss, ok := r.IdleRSS[s]; ok {
			fmt.Fprintf(out, "%s, idle: %.0f MiB resident in its largest process.\n", s, float64(rss)/(1<<20))
		}
	}
	for i := 0; i < len(r.Rows); {
		first := &r.Rows[i]
		n := i
		for n < len(r.Rows) && r.Rows[n].Client == first.Client && r.Rows[n].Version == first.Version {
			n++
		}
		fmt.Fprintf(out, "\nclient %s, NFS %s\n\n", first.Client, first.Version)
		if err := printRows(out, r.Rows[i:n]); err != nil {
			return err
		}
		i = n
	}
	_, err := fmt.Fprint(out, "\nLatency is p50/p99 of one operation. CPU is that of all the server's processes: a operation, or a GB where the case is about bytes.\n"+
		"The ratio is the rate of holdfast-3 to that of ganesha, which keeps one copy; more is better.\n")
	return err
}

// columns are the servers in the order of the table.
var columns = []string{ServerYardstick, ServerOne, ServerThree}

func printRows(out io.Writer, rows []Row) error {
	var servers []string
	for _, s := range columns {
		if _, ok := rows[0].Servers[s]; ok {
			servers = append(servers, s)
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "case")
	for _, s := range servers {
		fmt.Fprintf(w, "\t%s\tlatency ms\tCPU", s)
	}
	fmt.Fprintln(w, "\tratio")
	for i := range rows {
		fmt.Fprint(w, rows[i].Case)
		for _, s := range servers {
			f := rows[i].Servers[s]
			fmt.Fprintf(w, "\t%s\t%s\t%s", f.rate(), f.latency(), f.cpu())
		}
		if rows[i].Ratio > 0 {
			fmt.Fprintf(w, "\t%.2f", rows[i].Ratio)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func (f *Figure) bulk() bool { return f.Ops > 0 && f.Bytes/int64(f.Ops) >= bulkBytes }

func (f *Figure) rate() string {
	if f.bulk() {
		return fmt.Sprintf("%.0f MB/s", f.MBPerSec)
	}
	return fmt.Sprintf("%.0f/s", f.PerSec)
}

func (f *Figure) latency() string {
	if f.P50 == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f/%.2f", f.P50, f.P99)
}

func (f *Figure) cpu() string {
	if f.bulk() {
		return fmt.Sprintf("%.2f s/GB", f.CPUPerGB)
	}
	return fmt.Sprintf("%.0f us", f.CPUPerOp)
}
