package cli

import (
	"slices"
	"strings"
	"testing"

	"holdfast/internal/api"
)

func TestWrongCopies(t *testing.T) {
	copies := func(digests ...string) api.CheckResult {
		res := api.CheckResult{Volume: "v"}
		for i, d := range digests {
			res.Replicas = append(res.Replicas, api.ReplicaDigest{Node: string(rune('a' + i)), Digest: d})
		}
		return res
	}
	damaged := func(digests ...string) api.CheckResult { // those without a digest are
		res := copies(digests...)
		for i := range res.Replicas {
			res.Replicas[i].Damaged = res.Replicas[i].Digest == ""
		}
		return res
	}
	missing := copies("1", "2", "")
	missing.Missing = []string{"c"}
	for _, tt := range []struct {
		name  string
		res   api.CheckResult
		named string
		want  []string
		err   string
	}{
		{"one of three", copies("1", "2", "1"), "", []string{"b"}, ""},
		{"two of five", copies("1", "2", "1", "3", "1"), "", []string{"b", "d"}, ""},
		{"two copies", copies("1", "2"), "", nil, "look at the disks"},
		{"all of three", copies("1", "2", "3"), "", nil, "look at the disks"},
		{"one of three damaged", damaged("1", "", "1"), "", []string{"b"}, ""},
		{"one of two damaged", damaged("", "1"), "", []string{"a"}, ""},
		{"one of three damaged, and the others differ", damaged("1", "", "2"), "", nil, "look at the disks"},
		{"one of five damaged, and one differs", damaged("1", "", "2", "1", "1"), "", []string{"b", "c"}, ""},
		{"two copies, one named", copies("1", "2"), "a", []string{"a"}, ""},
		{"a stranger is named", copies("1", "2"), "z", nil, "node z keeps no copy"},
		{"one is missing", missing, "", nil, "no digest from c"},
		{"one is missing, and named", missing, "c", []string{"c"}, ""},
		{"one is missing, another is named", missing, "a", nil, "no digest from c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := wrongCopies(tt.res, tt.named)
			if !slices.Equal(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}
