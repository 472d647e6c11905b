package snort

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// greetLimit bounds how long a TLS handshake may take.
const greetLimit = 5 * time.Second

// TLSConfig is a listener for the alerts of an engine on another machine. Both ends
// show a certificate; TLS 1.3 alone is spoken. The files are read again for every
// connection, so that renewed ones need no restart.
type TLSConfig struct {
	Listen      string   // host:port of the gateway's management network
	Certificate string   // path, PEM: the gateway's, with what is between it and its authority
	Key         string   // path, PEM
	Authority   string   // path, PEM: who has signed the certificates of senders
	Names       []string // of senders: a DNS name in the certificate, or its common name; empty: any that the authority has signed
}

// server reads the files.
func (c *TLSConfig) server() (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, fmt.Errorf("cannot use the gateway's certificate for alerts: %w", err)
	}
	pem, err := os.ReadFile(c.Authority)
	if err != nil {
		return nil, fmt.Errorf("cannot read the authority of alert senders: %w", err)
	}
	authority := x509.NewCertPool()
	if !authority.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("cannot read the authority of alert senders: no certificate in %s", c.Authority)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              authority,
		SessionTicketsDisabled: true, // a resumed session would outlive a change of the files
	}, nil
}

// sender names who has shown the certificate, or says that he is not expected.
func (c *TLSConfig) sender(cert *x509.Certificate) (string, error) {
	names := slices.Clone(cert.DNSNames)
	if cert.Subject.CommonName != "" {
		names = append(names, cert.Subject.CommonName)
	}
	if len(names) == 0 {
		return "", errors.New("its certificate has no name")
	}
	if len(c.Names) == 0 {
		return strings.ToLower(names[0]), nil
	}
	for _, name := range names {
		for _, expected := range c.Names {
			if strings.EqualFold(name, expected) {
				return strings.ToLower(expected), nil
			}
		}
	}
	return "", fmt.Errorf("its certificate is of %.200q, and not of %q", names, c.Names)
}

// listenTLS listens for senders.
func listenTLS(c *TLSConfig, s streams) (*listener, error) {
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for alerts: %w", err)
	}
	return &listener{streams: s, listener: l, greet: c.greet}, nil
}

func (c *TLSConfig) greet(ctx context.Context, raw net.Conn) (name string, conn net.Conn, err error) {
	config, err := c.server()
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, greetLimit)
	defer cancel()
	t := tls.Server(raw, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return "", nil, err
	}
	// The client's certificate was verified, so there is one.
	name, err = c.sender(t.ConnectionState().PeerCertificates[0])
	return name, t, err
}
