package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
)

// validator checks what the values mean. Its methods record errors with the decoder.
type validator struct {
	*decoder
	c *Config
}

func (v *validator) check() {
	v.required("data")
	if v.usable("data") && !filepath.IsAbs(v.c.Data) {
		v.failAt("data", "%q must be an absolute path", v.c.Data)
	}
	v.nodes()
	v.volumes()
	v.timing(&v.c.Timing)
	v.limits(&v.c.Limits)
	v.segment("log.segment", v.c.Log.Segment)
	v.messages(v.c.Log.Format, v.c.Log.Level)
	v.name("cluster.name", v.c.Cluster.Name)
	if v.usable("cluster.secret_file") && !filepath.IsAbs(v.c.Cluster.SecretFile) {
		v.failAt("cluster.secret_file", "%q must be an absolute path", v.c.Cluster.SecretFile)
	}
}

func (v *validator) nodes() {
	if !v.required("nodes") || v.bad["nodes"] {
		return
	}
	if len(v.c.Nodes) == 0 {
		v.failAt("nodes", "a cluster has at least one node")
		return
	}
	names, ids, peers := map[string]string{}, map[uint64]string{}, map[string]string{}
	var known []string
	for i := range v.c.Nodes {
		n, key := &v.c.Nodes[i], fmt.Sprintf("nodes[%d]", i)
		if v.required(key + ".name") {
			v.name(key+".name", n.Name)
			unique(v.decoder, names, key+".name", n.Name, "the name")
			known = append(known, n.Name)
		}
		v.nodeID(key+".id", n, ids)
		if v.required(key + ".peer") {
			v.hostPort(key+".peer", n.Peer)
			unique(v.decoder, peers, key+".peer", n.Peer, "the address")
		}
		if v.has(key + ".admin") {
			v.hostPort(key+".admin", n.Admin)
			unique(v.decoder, peers, key+".admin", n.Admin, "the address")
		}
		v.role(key+".role", n.Role)
	}
	if v.required("node") {
		v.self(known)
	}
}

// nodeID checks a node's id. Its upper bits make proposals unique, so that 16 bits must do.
func (v *validator) nodeID(key string, n *Node, ids map[uint64]string) {
	if v.usable(key) && (n.ID == 0 || n.ID > 1<<16-1) {
		v.failAt(key, "an id is a number from 1 to 65535")
	}
	unique(v.decoder, ids, key, n.ID, "the id")
}

func (v *validator) role(key, role string) {
	if v.usable(key) && role == "witness" {
		v.failAt(key, "witness nodes are not available in this release; use three data nodes")
		return
	}
	v.oneOf(key, role, RoleData)
}

func (v *validator) self(known []string) {
	if v.bad["node"] || v.c.NodeByName(v.c.Node) != nil {
		return
	}
	if meant := nearest(v.c.Node, known); meant != "" {
		v.failAt("node", "no node is called %q; did you mean %q?", v.c.Node, meant)
		return
	}
	v.failAt("node", "no node is called %q; the nodes are %s", v.c.Node, strings.Join(known, ", "))
}

// hostPort checks an address that other machines reach this one at.
func (v *validator) hostPort(key, s string) {
	if !v.usable(key) {
		return
	}
	host, port, err := net.SplitHostPort(s)
	switch {
	case err != nil:
		v.failAt(key, "%q is not an address with a port, such as 10.94.0.11:7400", s)
	case !validPort(port):
		v.failAt(key, "%q is not a port from 1 to 65535", port)
	case host == "":
		v.failAt(key, "%q lacks the host in front of the port", s)
	default:
		if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
			v.failAt(key, "%s is no address that another node can reach", host)
			return
		}
		if !validHost(host) {
			v.failAt(key, "%q is neither an IP address nor a host name", host)
		}
	}
}
