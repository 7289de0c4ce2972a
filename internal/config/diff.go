package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Op is what a change does to its key.
type Op string

// What a change does.
const (
	OpAdd    Op = "add"
	OpRemove Op = "remove"
	OpChange Op = "change"
)

// Change is one difference between two specifications.
type Change struct {
	Op Op `json:"op"`
	// Key says what is changed; members of lists go by their names, as in volumes[main].exports[/data].clients.
	Key string `json:"key"`
	// Old and New are the values, or what there is to say of a whole volume or export.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// Danger says what the change hurts, if it does.
	Danger string `json:"danger,omitempty"`
}

// String returns the change for people, on one line: "+ key: new", "- key: old" or "~ key: old -> new", and the danger behind it.
func (c Change) String() string {
	var b strings.Builder
	switch c.Op {
	case OpAdd:
		b.WriteString("+ " + c.Key)
	case OpRemove:
		b.WriteString("- " + c.Key)
	default:
		b.WriteString("~ " + c.Key)
	}
	switch {
	case c.Old != "" && c.New != "":
		b.WriteString(": " + c.Old + " -> " + c.New)
	case c.Old+c.New != "":
		b.WriteString(": " + c.Old + c.New)
	}
	if c.Danger != "" {
		b.WriteString(" (" + c.Danger + ")")
	}
	return b.String()
}

// Diff returns what makes next of old, volumes, exports and nodes by their names: first the cluster, then nodes, volumes that go, are changed and come,
// each in the order of their names. The order in which a file has volumes and exports does not matter. Nodes that next does not name keep what they
// have, and so does a cluster without a name.
func Diff(old, next *Spec) []Change {
	d := new(differ)
	if next.Cluster != "" {
		d.value("cluster", old.Cluster, next.Cluster, "")
	}
	d.nodes(old.Nodes, next.Nodes)
	volumes := byName(old.Volumes, next.Volumes, func(v *VolumeSpec) string { return v.Name })
	for _, p := range volumes {
		if p.next == nil {
			d.add(Change{Op: OpRemove, Key: volumeKey(p.name), Old: p.old.summary(), Danger: "its data is deleted"})
		}
	}
	for _, p := range volumes {
		if p.old != nil && p.next != nil {
			d.volume(p.old, p.next)
		}
	}
	for _, p := range volumes {
		if p.old == nil {
			d.add(Change{Op: OpAdd, Key: volumeKey(p.name), New: p.next.summary()})
			d.exports(p.name, nil, p.next.Exports)
		}
	}
	return d.changes
}

// Render returns changes for people, a line for each; the danger is on a line of its own below.
func Render(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		danger := c.Danger
		c.Danger = ""
		fmt.Fprintln(&b, c)
		if danger != "" {
			fmt.Fprintln(&b, "  ! "+danger)
		}
	}
	return b.String()
}

type differ struct{ changes []Change }

func (d *differ) add(c Change) { d.changes = append(d.changes, c) }

// value adds a change if the values differ. An empty one is none.
func (d *differ) value(key, old, next, danger string) {
	if old == next {
		return
	}
	c := Change{Op: OpChange, Key: key, Old: old, New: next, Danger: danger}
	switch {
	case old == "":
		c.Op = OpAdd
	case next == "":
		c.Op = OpRemove
	}
	d.add(c)
}

// pair is a member of two lists; one of them is nil if only the other list has it.
type pair[T any] struct {
	name      string
	old, next *T
}

// byName returns the members of two lists in the order of their names.
func byName[T any](old, next []T, name func(*T) string) []pair[T] {
	var pairs []pair[T]
	for i := range old {
		pairs = append(pairs, pair[T]{name(&old[i]), &old[i], nil})
	}
	for i := range next {
		n := name(&next[i])
		if at := slices.IndexFunc(pairs, func(p pair[T]) bool { return p.name == n }); at >= 0 {
			pairs[at].next = &next[i]
		} else {
			pairs = append(pairs, pair[T]{n, nil, &next[i]})
		}
	}
	slices.SortStableFunc(pairs, func(a, b pair[T]) int { return cmp.Compare(a.name, b.name) })
	return pairs
}

func (d *differ) nodes(old, next []NodeSpec) {
	for _, p := range byName(old, next, func(n *NodeSpec) string { return n.Name }) {
		if p.next == nil {
			continue
		}
		zone := ""
		if p.old != nil {
			zone = p.old.Zone
		}
		d.value("nodes["+p.name+"].zone", zone, p.next.Zone, "")
	}
}

func volumeKey(name string) string { return "volumes[" + name + "]" }

// summary says of a volume what tells it from others.
func (v *VolumeSpec) summary() string {
	at, copies, exports := "no address", "copies", "exports"
	if addr := v.MountAddr(); addr.IsValid() {
		at = addr.String()
	}
	if v.Copies == 1 {
		copies = "copy"
	}
	if len(v.Exports) == 1 {
		exports = "export"
	}
	return fmt.Sprintf("%s, %d %s, %d %s", at, v.Copies, copies, len(v.Exports), exports)
}

func (d *differ) volume(old, next *VolumeSpec) {
	key := volumeKey(old.Name)
	d.value(key+".copies", fmt.Sprint(old.Copies), fmt.Sprint(next.Copies), copiesDanger(old.Copies, next.Copies))
	d.value(key+".nodes", join(old.Nodes), join(next.Nodes), "")
	moved := ""
	if old.MountAddr() != next.MountAddr() {
		moved = "clients must mount the new address"
	}
	d.value(key+".address.kind", old.Address.Kind, next.Address.Kind, moved)
	d.value(key+".address.ip", old.Address.IP.String(), next.Address.IP.String(), moved)
	d.value(key+".address.device", old.Address.Device, next.Address.Device, "")
	d.value(key+".address.lifetime", durationText(old.Address.Lifetime), durationText(next.Address.Lifetime), "")
	d.value(key+".listen", old.Listen, next.Listen, moved)
	danger := ""
	if old.NodePort != 0 {
		danger = "clients that mounted a node's own address lose it"
	}
	d.value(key+".node_port", portText(old.NodePort), portText(next.NodePort), danger)
	danger = ""
	if next.Size != 0 && (old.Size == 0 || next.Size < old.Size) {
		danger = "writes fail if more than that is stored"
	}
	d.value(key+".size", sizeText(old.Size), sizeText(next.Size), danger)
	danger = ""
	if next.Reserve > old.Reserve {
		danger = "writes fail while a node has less than that free"
	}
	d.value(key+".reserve", old.Reserve.String(), next.Reserve.String(), danger)
	d.value(key+".prefer", join(old.Prefer), join(next.Prefer), "")
	d.value(key+".failback.policy", old.Failback.Policy, next.Failback.Policy, "")
	d.value(key+".failback.after", old.Failback.After.String(), next.Failback.After.String(), "")
	d.exports(old.Name, old.Exports, next.Exports)
}

func copiesDanger(old, next int) string {
	switch {
	case next >= old:
		return ""
	case next == 1:
		return "the failure of one node makes the volume unavailable, that of its disk loses the data"
	}
	return "the volume survives fewer failures"
}

// join writes a list of words; an empty one is nothing.
func join(words []string) string { return strings.Join(words, ", ") }

func portText(port uint16) string {
	if port == 0 {
		return ""
	}
	return fmt.Sprint(port)
}

// durationText writes a time; none is nothing.
func durationText(d Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// sizeText writes a limit; none is nothing.
func sizeText(s Size) string {
	if s == 0 {
		return ""
	}
	return s.String()
}

func (d *differ) exports(volume string, old, next []Export) {
	for _, p := range byName(old, next, func(e *Export) string { return e.Path }) {
		key := volumeKey(volume) + ".exports[" + p.name + "]"
		switch {
		case p.next == nil:
			d.add(Change{Op: OpRemove, Key: key, Old: join(p.old.entries()), Danger: "clients lose access; the files stay in the volume"})
		case p.old == nil:
			d.add(Change{Op: OpAdd, Key: key, New: join(p.next.entries())})
		default:
			d.export(key, p.old, p.next)
		}
	}
}

func (d *differ) export(key string, old, next *Export) {
	was, is := old.entries(), next.entries()
	var lost []string
	for _, e := range was {
		if !slices.Contains(is, e) {
			lost = append(lost, e)
		}
	}
	danger := ""
	if len(lost) > 0 {
		danger = "clients lose what " + join(lost) + " gave them"
	}
	d.value(key+".clients", join(was), join(is), danger)
	d.value(key+".owner", fmt.Sprint(old.Owner), fmt.Sprint(next.Owner), "")
	d.value(key+".group", fmt.Sprint(old.Group), fmt.Sprint(next.Group), "")
	d.value(key+".mode", old.Mode.String(), next.Mode.String(), "")
}

// entries returns the client list as exports(5) writes its entries.
func (e *Export) entries() []string {
	var out []string
	for _, c := range e.Clients {
		text := c.Match
		if len(c.Options) > 0 {
			text += "(" + strings.Join(c.Options, ",") + ")"
		}
		out = append(out, text)
	}
	return out
}
