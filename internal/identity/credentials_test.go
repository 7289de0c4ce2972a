package identity

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"
)

// now is when the tests' handshakes take place.
var now = birth.Add(365 * 24 * time.Hour)

func credentialsOf(t *testing.T, ca *CA, sign func(request []byte) ([]byte, error)) *Credentials {
	t.Helper()
	key := testKey(t)
	cert, err := sign(testRequest(t, key))
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCredentials(cert, key, ca.CertificatePEM())
	if err != nil {
		t.Fatal(err)
	}
	c.Now = func() time.Time { return now }
	return c
}

func nodeCredentials(t *testing.T, ca *CA, number uint64, made time.Time) *Credentials {
	t.Helper()
	return credentialsOf(t, ca, func(request []byte) ([]byte, error) {
		return ca.SignNode(request, NodeInfo{Number: number, Name: "n"}, made)
	})
}

func adminCredentials(t *testing.T, ca *CA, name string) *Credentials {
	t.Helper()
	return credentialsOf(t, ca, func(request []byte) ([]byte, error) { return ca.SignAdmin(request, name, time.Hour, now) })
}

// handshake returns what both sides of a connection make of each other.
func handshake(t *testing.T, client, server *tls.Config) (clientState, serverState tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer conn.Close()
		s := tls.Server(conn, server)
		if serverErr = s.Handshake(); serverErr == nil {
			_, serverErr = s.Write([]byte{1})
		}
		serverState = s.ConnectionState()
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, client)
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	clientState = c.ConnectionState()
	_ = conn.Close()
	<-done
	return clientState, serverState, clientErr, serverErr
}

func allow(a Access) func(string) Access {
	return func(proto string) Access {
		if proto != "p" {
			return Nobody
		}
		return a
	}
}

func TestHandshakes(t *testing.T) {
	ca, foreign := testCA(t), testCA(t)
	// A cluster that took this one's identity, but has not its key.
	impostor, err := NewCA("test", ca.ClusterID(), birth)
	if err != nil {
		t.Fatal(err)
	}
	one := nodeCredentials(t, ca, 1, now)
	revoking := func(node uint64, name string) *Credentials {
		c := nodeCredentials(t, ca, 1, now)
		c.Revoked = func(p Peer) bool { return p.Node == node && p.Name == name }
		return c
	}
	tests := map[string]struct {
		client *Credentials
		server *Credentials
		node   uint64 // that the client expects
		proto  string
		access Access
		// Who refuses, and why. nil: nobody does.
		clientErr, serverErr error
	}{
		"nodes":                     {nodeCredentials(t, ca, 2, now), one, 1, "p", Nodes, nil, nil},
		"any node":                  {nodeCredentials(t, ca, 2, now), one, 0, "p", Nodes, nil, nil},
		"node among members":        {nodeCredentials(t, ca, 2, now), one, 1, "p", Members, nil, nil},
		"administrator":             {adminCredentials(t, ca, "ada"), one, 1, "p", Members, nil, nil},
		"administrator as node":     {adminCredentials(t, ca, "ada"), one, 1, "p", Nodes, nil, ErrNotNode},
		"administrator as server":   {nodeCredentials(t, ca, 2, now), adminCredentials(t, ca, "ada"), 0, "p", Nodes, ErrForeign, nil},
		"wrong node":                {nodeCredentials(t, ca, 2, now), one, 3, "p", Nodes, ErrWrongNode, nil},
		"foreign server":            {nodeCredentials(t, foreign, 2, now), one, 1, "p", Nodes, ErrForeign, nil},
		"impostor of a client":      {trusting(t, impostor, ca), one, 1, "p", Nodes, nil, ErrForeign},
		"impostor of a server":      {nodeCredentials(t, ca, 2, now), nodeCredentials(t, impostor, 1, now), 1, "p", Nodes, ErrForeign, nil},
		"expired client":            {nodeCredentials(t, ca, 2, now.Add(-NodeValidity-time.Hour)), one, 1, "p", Nodes, nil, ErrExpired},
		"expired server":            {nodeCredentials(t, ca, 2, now), nodeCredentials(t, ca, 1, now.Add(-NodeValidity-time.Hour)), 1, "p", Nodes, ErrExpired, nil},
		"client from the future":    {nodeCredentials(t, ca, 2, now.AddDate(10, 0, 0)), one, 1, "p", Nodes, nil, nil},
		"server from the future":    {nodeCredentials(t, ca, 2, now), nodeCredentials(t, ca, 1, now.AddDate(10, 0, 0)), 1, "p", Nodes, nil, nil},
		"revoked client":            {nodeCredentials(t, ca, 2, now), revoking(2, "n"), 1, "p", Nodes, nil, ErrRevoked},
		"revoked administrator":     {adminCredentials(t, ca, "ada"), revoking(0, "ada"), 1, "p", Members, nil, ErrRevoked},
		"revoked server":            {revoking(2, "n"), nodeCredentials(t, ca, 2, now), 2, "p", Nodes, ErrRevoked, nil},
		"someone else is revoked":   {nodeCredentials(t, ca, 2, now), revoking(3, "n"), 1, "p", Nodes, nil, nil},
		"protocol that nobody uses": {nodeCredentials(t, ca, 2, now), one, 1, "p", Nobody, errAny, errAny},
		"another protocol":          {nodeCredentials(t, ca, 2, now), one, 1, "q", Nodes, errAny, errAny},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cs, ss, clientErr, serverErr := handshake(t, test.client.Client(test.node, test.proto), test.server.Server(allow(test.access)))
			if test.clientErr == nil && test.serverErr == nil {
				if clientErr != nil || serverErr != nil {
					t.Fatalf("client: %v; server: %v", clientErr, serverErr)
				}
				if p, err := PeerOf(cs); err != nil || p != test.server.Self() {
					t.Errorf("the client sees %+v, %v", p, err)
				}
				if p, err := PeerOf(ss); err != nil || p != test.client.Self() {
					t.Errorf("the server sees %+v, %v", p, err)
				}
				if cs.Version != tls.VersionTLS13 || cs.DidResume {
					t.Errorf("version %x, resumed %v", cs.Version, cs.DidResume)
				}
				return
			}
			if clientErr == nil || serverErr == nil && test.serverErr != nil {
				t.Errorf("client: %v; server: %v", clientErr, serverErr)
			}
			for _, side := range []struct{ got, want error }{{clientErr, test.clientErr}, {serverErr, test.serverErr}} {
				if side.want != nil && side.want != errAny && !errors.Is(side.got, side.want) {
					t.Errorf("refused with %v, not %v", side.got, side.want)
				}
			}
		})
	}
}

// errAny stands for any error.
var errAny = errors.New("any error")

// trusting returns the credentials of a node 1 that ca certified and that trusts another CA as well.
func trusting(t *testing.T, ca, trusted *CA) *Credentials {
	t.Helper()
	c := nodeCredentials(t, ca, 1, now)
	c.state.Load().roots.AddCert(trusted.Certificate)
	return c
}

// A client of another cluster that verifies nobody is still refused.
func TestForeignClient(t *testing.T) {
	cfg := nodeCredentials(t, testCA(t), 2, now).Client(1, "p")
	cfg.VerifyConnection = nil
	server := nodeCredentials(t, testCA(t), 1, now)
	for _, access := range []Access{Nodes, Members} {
		if _, _, clientErr, serverErr := handshake(t, cfg, server.Server(allow(access))); clientErr == nil || !errors.Is(serverErr, ErrForeign) {
			t.Errorf("client: %v; server: %v", clientErr, serverErr)
		}
	}
}

func TestJoinHandshake(t *testing.T) {
	ca, other := testCA(t), testCA(t)
	server := nodeCredentials(t, ca, 1, now)
	at := func() time.Time { return now }
	cs, ss, clientErr, serverErr := handshake(t, JoinClient(Pin(ca.Certificate), "p", at), server.Server(allow(Anyone)))
	if clientErr != nil || serverErr != nil {
		t.Fatalf("client: %v; server: %v", clientErr, serverErr)
	}
	if p, err := PeerOf(cs); err != nil || p != server.Self() {
		t.Errorf("who joins sees %+v, %v", p, err)
	}
	if p, err := PeerOf(ss); err != nil || p.Kind != KindStranger {
		t.Errorf("the server sees %+v, %v", p, err)
	}
	leaf := server.Certificate()
	for name, cfg := range map[string]*tls.Config{
		"another CA":        JoinClient(Pin(other.Certificate), "p", at),
		"pinned to a node":  JoinClient(Pin(leaf), "p", at),
		"expired":           JoinClient(Pin(ca.Certificate), "p", func() time.Time { return now.Add(NodeValidity + time.Hour) }),
		"protocol of nodes": JoinClient(Pin(ca.Certificate), "q", at),
	} {
		if _, _, clientErr, _ := handshake(t, cfg, server.Server(allow(Anyone))); clientErr == nil {
			t.Errorf("%s: joined", name)
		}
	}
	// Without a certificate only what is open to anyone is open.
	if _, _, _, serverErr := handshake(t, JoinClient(Pin(ca.Certificate), "p", at), server.Server(allow(Members))); serverErr == nil {
		t.Error("a stranger counts as a member")
	}
	// A server that presents the pinned CA but was not certified by it.
	liar := nodeCredentials(t, other, 1, now)
	s := liar.state.Load()
	s.chain.Certificate = append(s.chain.Certificate, ca.Certificate.Raw)
	if _, _, clientErr, _ := handshake(t, JoinClient(Pin(ca.Certificate), "p", at), liar.Server(allow(Anyone))); !errors.Is(clientErr, ErrForeign) {
		t.Errorf("a server with a borrowed CA: %v", clientErr)
	}
}

func TestUpdate(t *testing.T) {
	ca := testCA(t)
	c := nodeCredentials(t, ca, 1, now)
	before := c.Certificate()
	sign := func(ca *CA, number uint64) []byte {
		t.Helper()
		cert, err := ca.SignNode(testRequest(t, c.Key()), NodeInfo{Number: number, Name: "n"}, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	if err := c.Update(sign(ca, 2), ca.CertificatePEM()); !errors.Is(err, ErrWrongNode) {
		t.Errorf("another number: %v", err)
	}
	if err := c.Update(sign(testCA(t), 1), ca.CertificatePEM()); !errors.Is(err, ErrForeign) {
		t.Errorf("another cluster: %v", err)
	}
	if !c.Certificate().Equal(before) {
		t.Error("a failed update changes something")
	}
	// The cluster gets a second CA. A server with a certificate of the first accepts one of the second.
	second, err := NewCA("test", ca.ClusterID(), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Update(sign(ca, 1), append(ca.CertificatePEM(), second.CertificatePEM()...)); err != nil {
		t.Fatal(err)
	}
	if c.Certificate().Equal(before) {
		t.Error("the certificate is the old one")
	}
	client := trusting(t, second, ca)
	if _, _, clientErr, serverErr := handshake(t, client.Client(1, "p"), c.Server(allow(Nodes))); clientErr != nil || serverErr != nil {
		t.Errorf("client: %v; server: %v", clientErr, serverErr)
	}
}

func TestCredentialsMustBelongTogether(t *testing.T) {
	ca := testCA(t)
	key := testKey(t)
	cert, err := ca.SignNode(testRequest(t, key), NodeInfo{Number: 1, Name: "n"}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewCredentials(cert, testKey(t), ca.CertificatePEM()); err == nil {
		t.Error("a key that is not the certificate's is taken")
	}
	if _, err := NewCredentials(ca.CertificatePEM(), ca.key, ca.CertificatePEM()); err == nil {
		t.Error("a CA's certificate is taken for a node's")
	}
	if _, err := NewCredentials(cert, key, testCA(t).CertificatePEM()); !errors.Is(err, ErrForeign) {
		t.Errorf("another cluster's CA: %v", err)
	}
}
