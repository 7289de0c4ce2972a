package lab

import "testing"

// startGanesha starts the yardstick, or skips the test where it is not installed.
func startGanesha(t *testing.T, l *Lab) *Ganesha {
	t.Helper()
	if reason := GaneshaMissing(); reason != "" {
		t.Skip(reason)
	}
	g, err := l.StartGanesha(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of ganesha:\n%s", g.Process.tail(20))
		}
	})
	return g
}

func TestGaneshaMounts(t *testing.T) {
	l := newLab(t)
	s := startGanesha(t, l)
	g := bootGuests(t, l, 1)[0]
	for _, version := range []string{"4.2", "4.1", "3"} {
		if err := g.Mount(t.Context(), s.Export(), version, "/mnt"); err != nil {
			t.Fatal(err)
		}
		if err := g.Unmount(t.Context(), "/mnt"); err != nil {
			t.Fatal(err)
		}
	}
}

// ganeshaFails lists the checks that Ganesha is known to fail.
var ganeshaFails = map[string]string{
	"setid-cleared-by-truncate": "it sets the size without privileges to clear",
}
