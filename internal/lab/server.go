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
	Export() Export
}
