package config

// Limits keep a flood of clients from taking a node down.
type Limits struct {
	// Connections is how many clients may be connected to one volume.
	Connections int `yaml:"connections" json:"connections"`
	// InflightBytes is how much memory requests under way may take.
	InflightBytes Size `yaml:"inflight_bytes" json:"inflight_bytes"`
}

const (
	defaultConnections   = 4096
	defaultInflightBytes = 256 << 20
	defaultSegmentBytes  = 64 << 20
)

func (l *Limits) setDefaults() {
	l.Connections, l.InflightBytes = defaultConnections, defaultInflightBytes
}
