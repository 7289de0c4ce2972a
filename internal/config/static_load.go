package config

import (
	_ "embed"
	"fmt"
	"os"
)

//go:embed static.yaml
var example string

// Example returns a complete file of a cluster of three nodes, with comments.
func Example() string { return example }

// Load reads and checks a file. node, unless empty, overrides which node this is. What is wrong with the content is returned as Errors.
func Load(path, node string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, text, node)
}

// Parse checks the text of a file; file is its name in messages, and node, unless empty, overrides which node this is. What is wrong is returned as Errors.
func Parse(file string, text []byte, node string) (*Config, error) {
	d := newDecoder(file, text)
	c := new(Config)
	d.parse(text, c)
	// A file that cannot be read as YAML, or holds nothing, has no values to be checked.
	if len(d.places) > 0 {
		if node != "" {
			c.Node = node
			d.places["node"], d.bad["node"] = place{}, false
		}
		d.number(c)
		v := &validator{decoder: d, c: c}
		v.check()
	}
	if err := d.result(); err != nil {
		return nil, err
	}
	return c, nil
}

// number gives nodes and volumes without an id their places in the lists.
func (d *decoder) number(c *Config) {
	for i := range c.Nodes {
		if !d.has(fmt.Sprintf("nodes[%d].id", i)) {
			c.Nodes[i].ID = uint64(i + 1)
		}
	}
	for i := range c.Volumes {
		if !d.has(fmt.Sprintf("volumes[%d].id", i)) {
			c.Volumes[i].ID = uint32(i + 1)
		}
	}
}
