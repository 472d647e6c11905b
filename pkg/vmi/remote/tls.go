package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Files are the PEM files by which one end proves who it is, and by which it
// knows the other.
type Files struct {
	Certificate string // with those between it and the authority behind it
	Key         string
	CA          string // authorities whose signature the other's certificate must have
}

// serverTLS makes a server's configuration: TLS 1.3, and only for clients whose
// certificates are signed and pass verify. The files are read anew for each
// connection, so that renewed certificates need no restart; they are read now
// too, to find mistakes.
func serverTLS(files Files, verify func(tls.ConnectionState) error) (*tls.Config, error) {
	if _, _, err := files.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			own, others, err := files.load()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion:             tls.VersionTLS13,
				NextProtos:             []string{"h2"},
				Certificates:           []tls.Certificate{own},
				ClientAuth:             tls.RequireAndVerifyClientCert,
				ClientCAs:              others,
				VerifyConnection:       verify,
				SessionTicketsDisabled: true, // each connection proves it anew
			}, nil
		},
	}, nil
}

// ClientTLS makes a client's configuration from files that it reads now.
func ClientTLS(files Files) (*tls.Config, error) {
	own, others, err := files.load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, RootCAs: others}, nil
}

func (f Files) load() (tls.Certificate, *x509.CertPool, error) {
	own, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("cannot use certificate %s with key %s: %w", f.Certificate, f.Key, err)
	}
	text, err := os.ReadFile(f.CA)
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(text) {
		err = errors.New("it holds no certificate")
	}
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("cannot use the authority %s: %w", f.CA, err)
	}
	return own, pool, nil
}
