package lab

// Export is where a client finds what a server exports.
type Export struct {
	Addr string // IPv4 address
	Path string // exported path
	Port int    // of NFS
	// MountPort is the port of the MOUNT protocol, for version 3.
	MountPort int
}

// Server is something that exports one file system.
type Server interface {
	// Export is where it can be mounted.
	Export() Export
	// Processes are what it runs as.
	Processes() []*Process
}

// Processes implements Server.
func (g *Ganesha) Processes() []*Process { return []*Process{g.Process} }

// Processes implements Server.
func (c *Cluster) Processes() []*Process {
	var all []*Process
	for _, n := range c.Nodes {
		all = append(all, n.Process)
	}
	return all
}
