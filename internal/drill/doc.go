// Package drill rehearses a failover: it mounts an export of a volume as a client does, writes to it without a pause while the volume is moved to another node, and says
// how long the client waited and whether anything was lost. The package speaks NFS to the volume and knows nothing else of the cluster; who moves the volume is given to it.
package drill
