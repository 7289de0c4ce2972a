package work

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

func init() { registry["verify"] = with(verify) }

// VerifyArgs says what loads have done in a folder.
type VerifyArgs struct {
	Dir     string
	Results []LoadResult
}

// verify compares a folder with what the loads of all guests, which have ended, must have left there. It returns what is
// wrong.
func verify(_ context.Context, args VerifyArgs, _ func(any)) ([]string, error) {
	var wrong []string
	check := func(what string, err error) {
		if err != nil && len(wrong) < maxErrors {
			wrong = append(wrong, what+": "+err.Error())
		}
	}
	increments := 0
	for _, r := range args.Results {
		own := func(name string) string { return filepath.Join(args.Dir, r.Name+"-"+name) }
		increments += r.Increments
		for i, acked := range r.Written {
			check(fmt.Sprintf("%s, writer %d", r.Name, i), verifyWriter(own(fmt.Sprintf("writer%d", i)), r.Name, i, acked))
		}
		check(r.Name+", append", verifyAppend(own("append"), r.Name, r.Appended))
		for i, want := range r.Fsx {
			check(fmt.Sprintf("%s, fsx %d", r.Name, i), verifyFsx(own(fmt.Sprintf("fsx%d", i)), want))
		}
		if r.ErrorCount == 0 {
			check(r.Name+", names", verifyNames(own("names"), r.Named))
		}
	}
	check("counter", verifyCounter(filepath.Join(args.Dir, "counter"), increments))
	check("claims", verifyClaims(filepath.Join(args.Dir, "claims"), args.Results))
	return wrong, nil
}

// verifyWriter checks that each place of the file holds the last acknowledged record that belongs there.
func verifyWriter(path, name string, writer, acked int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if want := min(acked, writerRecords) * recordSize; len(data) != want {
		return fmt.Errorf("%d bytes, want %d", len(data), want)
	}
	for seq := max(0, acked-writerRecords); seq < acked; seq++ {
		place := seq % writerRecords * recordSize
		if err := compare(fmt.Sprintf("record %d", seq), data[place:place+recordSize], record(name, writer, seq, recordSize)); err != nil {
			return err
		}
	}
	return nil
}

// verifyAppend checks that the file has each record once, in order.
func verifyAppend(path, name string, appended int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(data) != appended*appendSize {
		return fmt.Errorf("%d bytes, want %d", len(data), appended*appendSize)
	}
	for seq := range appended {
		if err := compare(fmt.Sprintf("record %d", seq), data[seq*appendSize:(seq+1)*appendSize], record(name, writers, seq, appendSize)); err != nil {
			return err
		}
	}
	return nil
}

func verifyCounter(path string, want int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(data) != 8 || binary.BigEndian.Uint64(data) != uint64(want) {
		return fmt.Errorf("is %x, want %d", data, want)
	}
	return nil
}

// verifyNames checks that the last rounds' names are there and no others.
func verifyNames(dir string, rounds int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	have := make(map[string]bool)
	for _, e := range entries {
		have[e.Name()] = true
	}
	want := 0
	for n := max(0, rounds-keepNames); n < rounds; n++ {
		for _, kind := range []string{"link", "folder", "symlink"} {
			want++
			if name := fmt.Sprintf("%s%d", kind, n); !have[name] {
				return fmt.Errorf("%s is missing", name)
			}
		}
	}
	if len(entries) != want {
		return fmt.Errorf("%d entries, want %d", len(entries), want)
	}
	return nil
}

// verifyClaims checks that every claim was won once and exists.
func verifyClaims(dir string, results []LoadResult) error {
	winner := make(map[int]string)
	tried := 0
	for _, r := range results {
		tried = max(tried, r.Tried)
		for _, n := range r.Won {
			if other, ok := winner[n]; ok {
				return fmt.Errorf("%d was won by %s and %s", n, other, r.Name)
			}
			winner[n] = r.Name
		}
	}
	for n := range tried {
		if _, ok := winner[n]; !ok {
			return fmt.Errorf("%d was won by nobody", n)
		}
		if _, err := os.Stat(fmt.Sprintf("%s/%d", dir, n)); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%d is gone", n)
		} else if err != nil {
			return err
		}
	}
	return nil
}
