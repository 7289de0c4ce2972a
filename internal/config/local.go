package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
)

// Local is a node's own file: what differs from machine to machine and has no place in the cluster's state. All of it has defaults.
type Local struct {
	// Data is the folder that holds everything the node stores.
	Data string `yaml:"data" json:"data"`
	// Listen is the host and port of the node's one port; without a host, it is every address of the node.
	Listen string `yaml:"listen" json:"listen"`
	// Health is the host and port of the plain HTTP endpoint for load balancers and monitoring; empty, there is none.
	Health string `yaml:"health" json:"health,omitempty"`
	// Balancers are TCP balancers that begin each connection to a volume's node port with a PROXY header, which says who the client is. Nobody else's is believed.
	Balancers []Network `yaml:"balancers" json:"balancers,omitempty"`
	Log       Logging   `yaml:"log" json:"log"`
	Limits    Limits    `yaml:"limits" json:"limits"`
	// LogSegment is the size of a segment of the replicated logs on disk.
	LogSegment Size `yaml:"log_segment" json:"log_segment"`
}

// Logging is the format and level of the messages that the daemon prints.
type Logging struct {
	Format string `yaml:"format" json:"format"` // text or json
	Level  string `yaml:"level" json:"level"`   // debug, info, warn or error
}

// Limits keep a flood of clients from taking a node down.
type Limits struct {
	// Connections is how many clients may be connected to one volume.
	Connections int `yaml:"connections" json:"connections"`
	// InflightBytes is how much memory requests under way may take.
	InflightBytes Size `yaml:"inflight_bytes" json:"inflight_bytes"`
}

const (
	// DefaultLocalPath is where a node's own file is looked for; there need not be one.
	DefaultLocalPath = "/etc/holdfast/holdfast.yaml"
	// DefaultData is where a node stores everything unless told otherwise.
	DefaultData = "/var/lib/holdfast"
	// DefaultPort is the nodes' one port.
	DefaultPort = 7420

	defaultConnections   = 4096
	defaultInflightBytes = 256 << 20
	defaultSegmentBytes  = 64 << 20

	minSegmentBytes = 4 << 20 // an entry holds up to a little more than 1 MiB
	minInflight     = 8 << 20
)

func (l *Local) setDefaults() {
	l.Data, l.Listen, l.LogSegment = DefaultData, fmt.Sprintf(":%d", DefaultPort), defaultSegmentBytes
	l.Log.setDefaults()
	l.Limits.setDefaults()
}

func (l *Logging) setDefaults() { l.Format, l.Level = "text", "info" }

func (l *Limits) setDefaults() {
	l.Connections, l.InflightBytes = defaultConnections, defaultInflightBytes
}

func (*Local) hint(key string) string {
	switch key {
	case "volumes", "nodes", "cluster":
		return "it belongs to the cluster's configuration, which `holdfast apply` takes"
	case "timing":
		return "timing belongs to the cluster and is chosen with `holdfast init`"
	case "balancer", "proxy", "send_proxy", "proxy_protocol", "trusted_proxies":
		return "the balancers whose PROXY headers are believed are listed under balancers"
	case "node":
		return "a node gets its name from `holdfast init` or `holdfast join`"
	}
	return ""
}

func (*Logging) hint(key string) string {
	if key == "segment" {
		return "the size of a segment is log_segment, outside of log"
	}
	return ""
}

// LoadLocal reads and checks a node's own file. With an empty path it is DefaultLocalPath. That file need not exist; another that is named must.
// What is wrong with the content is returned as Errors.
func LoadLocal(path string) (*Local, error) {
	optional := path == "" || path == DefaultLocalPath
	if optional {
		path = DefaultLocalPath
	}
	text, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		text, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the node's own configuration: %w", err)
	}
	return ParseLocal(path, text)
}

// ParseLocal checks the text of a node's own file and fills in the defaults; file is its name in messages. What is wrong is returned as Errors.
func ParseLocal(file string, text []byte) (*Local, error) {
	d := newDecoder(file, text)
	d.optional = true
	l := new(Local)
	d.parse(text, l)
	d.local(l)
	if err := d.result(); err != nil {
		return nil, err
	}
	return l, nil
}

func (d *decoder) local(l *Local) {
	if d.usable("data") && !filepath.IsAbs(l.Data) {
		d.failAt("data", "%q must be an absolute path", l.Data)
	}
	d.bind("listen", l.Listen, ":7420")
	d.bind("health", l.Health, ":7421")
	if d.usable("health") && !d.bad["listen"] && portOf(l.Health) == portOf(l.Listen) {
		d.failAt("health", "port %s is the node's own, of %s; use another", portOf(l.Health), d.where("listen"))
	}
	d.balancers(l.Balancers)
	d.oneOf("log.format", l.Log.Format, "text", "json")
	d.oneOf("log.level", l.Log.Level, "debug", "info", "warn", "error")
	d.limits(&l.Limits)
	if d.usable("log_segment") && l.LogSegment < minSegmentBytes {
		d.failAt("log_segment", "a segment has at least %v", Size(minSegmentBytes))
	}
}

// bind checks an address to listen at, whose host may be empty.
func (d *decoder) bind(key, s, such string) {
	if !d.usable(key) {
		return
	}
	host, port, err := net.SplitHostPort(s)
	switch {
	case err != nil:
		d.failAt(key, "%q is not an address with a port, such as %s", s, such)
	case !validPort(port):
		d.failAt(key, "%q is not a port from 1 to 65535", port)
	case host != "" && !validHost(host):
		d.failAt(key, "%q is neither an IP address nor a host name", host)
	}
}

// balancers checks whose word is taken for who a client is.
func (d *decoder) balancers(networks []Network) {
	seen := make(map[Network]string)
	for i, n := range networks {
		key := fmt.Sprintf("balancers[%d]", i)
		if !d.usable(key) {
			continue
		}
		if netip.Prefix(n).Bits() == 0 {
			d.failAt(key, "%v is everybody, so that every client could claim any address; name the balancers only", n)
			continue
		}
		unique(d, seen, key, n, "the network")
	}
}

func portOf(s string) string {
	_, port, _ := net.SplitHostPort(s) // bind has checked it
	return port
}

func (d *decoder) limits(l *Limits) {
	if d.usable("limits.connections") && l.Connections < 1 {
		d.failAt("limits.connections", "at least one client must be able to connect")
	}
	if d.usable("limits.inflight_bytes") && l.InflightBytes < minInflight {
		d.failAt("limits.inflight_bytes", "at least %v are needed", Size(minInflight))
	}
}
