package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// yamlWriter writes a specification with defaults left out.
type yamlWriter struct{ strings.Builder }

// YAML returns s as a file for ParseSpec that gives the same value again, as long as s is valid. Defaults are left out,
// and the order is that of s.
func (s *Spec) YAML() []byte {
	var w yamlWriter
	w.line(0, "# What the cluster serves. Change it, look at `holdfast diff -f FILE`, then `holdfast apply -f FILE`.")
	if s.Cluster != "" {
		w.line(0, "cluster: %s", quote(s.Cluster))
		w.WriteByte('\n')
	}
	if len(s.Nodes) > 0 {
		w.line(0, "nodes:")
		for i := range s.Nodes {
			n := &s.Nodes[i]
			w.line(1, "- name: %s", quote(n.Name))
			if n.Zone != "" {
				w.line(2, "zone: %s", quote(n.Zone))
			}
		}
		w.WriteByte('\n')
	}
	if len(s.Volumes) == 0 {
		w.line(0, "volumes: []")
	} else {
		w.line(0, "volumes:")
	}
	for i := range s.Volumes {
		if i > 0 {
			w.WriteByte('\n')
		}
		w.volume(&s.Volumes[i])
	}
	return []byte(w.String())
}

// line writes a line indented by so many levels.
func (w *yamlWriter) line(level int, format string, args ...any) {
	w.WriteString(strings.Repeat("  ", level))
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

// unless writes a line for a value that is not the default.
func unless[T comparable](w *yamlWriter, def, value T, level int, key, format string) {
	if value != def {
		w.line(level, key+": "+format, value)
	}
}

func (w *yamlWriter) volume(v *VolumeSpec) {
	implied := defaultCopies
	if len(v.Nodes) > 0 {
		implied = len(v.Nodes)
	}
	w.line(1, "- name: %s", quote(v.Name))
	unless(w, implied, v.Copies, 2, "copies", "%d")
	w.list(2, "nodes", v.Nodes)
	w.address(&v.Address)
	if v.Listen != v.defaultListen() {
		w.line(2, "listen: %s", quote(v.Listen))
	}
	unless(w, 0, v.NodePort, 2, "node_port", "%d")
	unless(w, 0, v.Size, 2, "size", "%v")
	unless(w, defaultReserve, v.Reserve, 2, "reserve", "%v")
	w.list(2, "prefer", v.Prefer)
	var failback Failback
	if failback.setDefaults(); v.Failback != failback {
		w.line(2, "failback:")
		if v.Failback.Policy != failback.Policy {
			w.line(3, "policy: %s", quote(v.Failback.Policy))
		}
		unless(w, failback.After, v.Failback.After, 3, "after", "%v")
	}
	if len(v.Exports) == 0 {
		w.line(2, "exports: []")
		return
	}
	w.line(2, "exports:")
	for i := range v.Exports {
		w.export(&v.Exports[i])
	}
}

func (w *yamlWriter) address(a *Address) {
	w.line(2, "address:")
	w.line(3, "kind: %s", quote(a.Kind))
	if a.IP != (Prefix{}) {
		w.line(3, "ip: %s", quote(a.IP.String()))
	}
	if a.Device != "" {
		w.line(3, "device: %s", quote(a.Device))
	}
	if a.Kind != AddressListen || a.Lifetime != 0 {
		unless(w, Duration(defaultLifetime), a.Lifetime, 3, "lifetime", "%v")
	}
}

func (w *yamlWriter) export(e *Export) {
	w.line(3, "- path: %s", quote(e.Path))
	if len(e.Clients) == 0 {
		w.line(4, "clients: []")
	} else {
		w.line(4, "clients:")
	}
	for _, c := range e.Clients {
		options := ""
		if len(c.Options) > 0 {
			options = ", options: " + flow(c.Options)
		}
		w.line(5, "- {match: %s%s}", quote(c.Match), options)
	}
	unless(w, 0, e.Owner, 4, "owner", "%d")
	unless(w, 0, e.Group, 4, "group", "%d")
	unless(w, defaultDirMode, e.Mode, 4, "mode", `"%v"`)
}

// list writes a list of words on one line, unless it is empty.
func (w *yamlWriter) list(level int, key string, words []string) {
	if len(words) > 0 {
		w.line(level, "%s: %s", key, flow(words))
	}
}

func flow(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = quote(word)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// reserved words mean something else than text to one YAML parser or another.
var reserved = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}

// quote returns s as a YAML scalar that is text to every parser.
func quote(s string) string {
	if _, err := netip.ParsePrefix(s); err == nil && !strings.ContainsRune(s, ':') {
		return s
	}
	if _, err := netip.ParseAddrPort(s); err == nil && s[0] != '[' {
		return s
	}
	plain := s != "" && !slices.Contains(reserved, strings.ToLower(s))
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || r == '/'
		plain = plain && (letter || i > 0 && (r >= '0' && r <= '9' || r == '-' || r == '.' || r == '='))
	}
	if plain {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
