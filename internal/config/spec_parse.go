package config

import (
	_ "embed"
	"fmt"
	"strconv"
)

//go:embed spec.example.yaml
var exampleSpec string

//go:embed local.example.yaml
var exampleLocal string

// ExampleSpec returns a file for "holdfast apply" with every key, and comments.
func ExampleSpec() string { return exampleSpec }

// ExampleLocal returns a node's own file with every key, and comments.
func ExampleLocal() string { return exampleLocal }

// ParseSpec checks the text of a specification, YAML or JSON, and fills in the defaults; file is its name in messages. What is wrong is
// returned as Errors. Whether the nodes that it names exist, CheckAgainst knows.
func ParseSpec(file string, text []byte) (*Spec, error) {
	s, err := parseSpec(newDecoder(file, text), text)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func parseSpec(d *decoder, text []byte) (*Spec, error) {
	s := new(Spec)
	d.parse(text, s)
	// A file that cannot be read as YAML, or holds nothing or too much, has no values to be checked.
	if len(d.places) > 0 && !d.bad[""] && d.values <= maxValues {
		d.checkSpec(s)
	}
	for i := range s.Volumes {
		s.Volumes[i].Complete()
	}
	return s, d.result()
}

// Validate returns what is wrong with a specification that is from no file, as Errors without lines, or nil. Volumes must be complete: see
// VolumeSpec.Complete.
func (s *Spec) Validate() error {
	text := s.YAML()
	d := newDecoder("", text)
	d.placeless = true
	parsed, err := parseSpec(d, text)
	if err != nil {
		return err
	}
	// Nothing that is valid gets here: it is the last defence against text that YAML bends.
	complete := s.Clone()
	for i := range complete.Volumes {
		complete.Volumes[i].Complete()
	}
	if changes := Diff(complete, parsed); len(changes) > 0 {
		return Errors{{Key: changes[0].Key, Message: strconv.Quote(changes[0].Old) + " cannot be written to a file"}}
	}
	return nil
}

// CheckAgainst returns as Errors without lines which of the nodes that s names have not joined, or nil. Locate adds the lines.
func (s *Spec) CheckAgainst(nodes []string) error {
	d := &decoder{places: map[string]place{}, bad: map[string]bool{}}
	known := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		known[n] = true
	}
	check := func(key, name string) {
		switch {
		case known[name]:
		case len(nodes) == 0:
			d.failAt(key, "no node is called %q; none has joined", name)
		default:
			d.unknownNode(key, name, nodes, "no node is called %q", "the nodes are")
		}
	}
	for i := range s.Nodes {
		check(fmt.Sprintf("nodes[%d].name", i), s.Nodes[i].Name)
	}
	for i := range s.Volumes {
		for j, name := range s.Volumes[i].Nodes {
			check(fmt.Sprintf("volumes[%d].nodes[%d]", i, j), name)
		}
		for j, name := range s.Volumes[i].Prefer {
			check(fmt.Sprintf("volumes[%d].prefer[%d]", i, j), name)
		}
	}
	return d.result()
}

// CheckCluster returns an error if s is for another cluster than the one of that name.
func (s *Spec) CheckCluster(name string) error {
	if s.Cluster == "" || s.Cluster == name {
		return nil
	}
	return Errors{{Key: "cluster", Message: fmt.Sprintf("this is for the cluster %q, not %q; to apply it all the same, change or leave out the key", s.Cluster, name)}}
}

// What people may look for here but belongs elsewhere, or has another name.

func (*Spec) hint(key string) string {
	switch key {
	case "data", "listen", "health", "log", "limits", "log_segment":
		return "it belongs to a node's own file, " + DefaultLocalPath
	case "timing":
		return "timing is chosen with `holdfast init`"
	case "node":
		return "the same file is for all nodes: leave it out"
	}
	return ""
}

func (*NodeSpec) hint(key string) string {
	switch key {
	case "id", "peer", "address", "admin", "role":
		return "a node says it itself when it joins: leave it out"
	}
	return ""
}

func (*VolumeSpec) hint(key string) string {
	switch key {
	case "id":
		return "the cluster numbers its volumes: leave it out"
	case "replicas":
		return `did you mean "copies"?`
	case "quota", "limit":
		return `did you mean "size"?`
	}
	return ""
}

func (*Address) hint(key string) string {
	if key == "interface" {
		return `did you mean "device"?`
	}
	return ""
}
