// Command gopeer is a workload that uses the unmodified go-spiffe library, so that the tests see
// what Go workloads see. Each subcommand prints one JSON object.
//
//	gopeer mtls -socket unix:///… -duration 30s   mutual TLS with itself over live sources
//	gopeer jwt  -socket unix:///… -audience a     fetch and validate JWT-SVIDs and bundles
//	gopeer streams -socket unix:///… -n 1000      that many connections with one FetchX509SVID each
//	gopeer cert FILE.pem                          what crypto/x509 reads in each certificate
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: gopeer mtls|jwt|streams|cert"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	socket := flags.String("socket", "", "Workload API address")
	duration := flags.Duration("duration", 10*time.Second, "how long to keep the traffic up")
	audience := flags.String("audience", "test", "audience of the JWT-SVIDs")
	count := flags.Int("n", 1000, "connections")
	_ = flags.Parse(os.Args[2:])
	ctx := context.Background()
	var out any
	var err error
	switch os.Args[1] {
	case "mtls":
		out, err = mtls(ctx, *socket, *duration)
	case "jwt":
		out, err = jwt(ctx, *socket, *audience)
	case "streams":
		out, err = streams(ctx, *socket, *count, *duration)
	case "cert":
		out, err = certs(flags.Arg(0))
	default:
		err = fmt.Errorf("unknown subcommand %q", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
	_ = json.NewEncoder(os.Stdout).Encode(out)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

type mtlsReport struct {
	Handshakes    int      `json:"handshakes"`
	Failures      []string `json:"failures"`
	Serials       []string `json:"serials"`
	Intermediates []string `json:"intermediates"`
	IDs           []string `json:"ids"`
}

// mtls serves and dials with the same source until the time is over, a new connection every 50 ms.
func mtls(ctx context.Context, socket string, duration time.Duration) (*mtlsReport, error) {
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(socket)))
	if err != nil {
		return nil, err
	}
	defer source.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny()))
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	go serve(listener)

	report := &mtlsReport{Failures: []string{}}
	serials, intermediates, ids := set{}, set{}, set{}
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeAny())
	for end := time.Now().Add(duration); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		report.Handshakes++
		state, err := ping(listener.Addr().String(), config)
		if err != nil {
			report.Failures = append(report.Failures, err.Error())
			continue
		}
		serials.add(state.PeerCertificates[0].SerialNumber.String())
		if len(state.PeerCertificates) > 1 {
			intermediates.add(hex.EncodeToString(state.PeerCertificates[1].SubjectKeyId))
		}
		ids.add(state.PeerCertificates[0].URIs[0].String())
	}
	report.Serials, report.Intermediates, report.IDs = serials.list, intermediates.list, ids.list
	return report, nil
}

func serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

func ping(addr string, config *tls.Config) (*tls.ConnectionState, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: config}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("ping")); err != nil {
		return nil, err
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	state := conn.(*tls.Conn).ConnectionState()
	return &state, nil
}

type jwtReport struct {
	Tokens []jwtToken `json:"tokens"`
	Keys   []string   `json:"keys"`
}

type jwtToken struct {
	ID       string         `json:"id"`
	Token    string         `json:"token"`
	Hint     string         `json:"hint"`
	Audience []string       `json:"audience"`
	Expiry   int64          `json:"expiry"`
	Claims   map[string]any `json:"claims"`
}

func jwt(ctx context.Context, socket, audience string) (*jwtReport, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(socket))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	svids, err := client.FetchJWTSVIDs(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return nil, err
	}
	bundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return nil, err
	}
	report := &jwtReport{}
	for _, svid := range svids {
		parsed, err := jwtsvid.ParseAndValidate(svid.Marshal(), jwtbundle.Source(bundles), []string{audience})
		if err != nil {
			return nil, err
		}
		if _, err := client.ValidateJWTSVID(ctx, svid.Marshal(), audience); err != nil {
			return nil, fmt.Errorf("agent refused it: %w", err)
		}
		report.Tokens = append(report.Tokens, jwtToken{
			ID: parsed.ID.String(), Token: svid.Marshal(), Hint: svid.Hint, Audience: parsed.Audience,
			Expiry: parsed.Expiry.Unix(), Claims: parsed.Claims,
		})
	}
	for _, bundle := range bundles.Bundles() {
		for id := range bundle.JWTAuthorities() {
			report.Keys = append(report.Keys, id)
		}
	}
	return report, nil
}

type streamsReport struct {
	Streams int     `json:"streams"`
	OpenMs  float64 `json:"open_ms"`
	Updates int64   `json:"updates"`
}

// counter counts what a watcher is told; ready is called for its first update.
type counter struct {
	updates *atomic.Int64
	first   sync.Once
	ready   func()
}

func (c *counter) OnX509ContextUpdate(*workloadapi.X509Context) {
	c.updates.Add(1)
	c.first.Do(c.ready)
}

func (c *counter) OnX509ContextWatchError(error) {}

// streams opens n connections with a stream each, says "open" on standard error once all have their
// first answer, and holds them for the time given.
func streams(ctx context.Context, socket string, n int, duration time.Duration) (*streamsReport, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var updates atomic.Int64
	var ready sync.WaitGroup
	ready.Add(n)
	start := time.Now()
	for i := 0; i < n; i++ {
		client, err := workloadapi.New(ctx, workloadapi.WithAddr(socket))
		if err != nil {
			return nil, err
		}
		defer client.Close()
		watcher := &counter{updates: &updates, ready: ready.Done}
		go func() { _ = client.WatchX509Context(ctx, watcher) }()
	}
	ready.Wait()
	report := &streamsReport{Streams: n, OpenMs: float64(time.Since(start).Microseconds()) / 1000}
	fmt.Fprintln(os.Stderr, "open")
	time.Sleep(duration)
	report.Updates = updates.Load()
	return report, nil
}

type certReport struct {
	Subject      string   `json:"subject"`
	Issuer       string   `json:"issuer"`
	SerialNumber string   `json:"serial_number"`
	NotBefore    int64    `json:"not_before"`
	NotAfter     int64    `json:"not_after"`
	URIs         []string `json:"uris"`
	DNSNames     []string `json:"dns_names"`
	IsCA         bool     `json:"is_ca"`
	MaxPathLen   int      `json:"max_path_len"`
	KeyUsage     int      `json:"key_usage"`
	ExtKeyUsage  []int    `json:"ext_key_usage"`
	SubjectKeyID string   `json:"subject_key_id"`
	AuthorityKey string   `json:"authority_key_id"`
	Algorithm    string   `json:"algorithm"`
	Critical     []string `json:"unhandled_critical"`
}

func certs(path string) ([]certReport, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []certReport
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		report := certReport{
			Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), SerialNumber: cert.SerialNumber.String(),
			NotBefore: cert.NotBefore.Unix(), NotAfter: cert.NotAfter.Unix(), DNSNames: cert.DNSNames,
			IsCA: cert.IsCA, MaxPathLen: cert.MaxPathLen, KeyUsage: int(cert.KeyUsage),
			SubjectKeyID: hex.EncodeToString(cert.SubjectKeyId), AuthorityKey: hex.EncodeToString(cert.AuthorityKeyId),
			Algorithm: cert.SignatureAlgorithm.String(),
		}
		for _, usage := range cert.ExtKeyUsage {
			report.ExtKeyUsage = append(report.ExtKeyUsage, int(usage))
		}
		for _, uri := range cert.URIs {
			report.URIs = append(report.URIs, uri.String())
		}
		for _, oid := range cert.UnhandledCriticalExtensions {
			report.Critical = append(report.Critical, oid.String())
		}
		out = append(out, report)
	}
	return out, nil
}

// set keeps what it has seen, in order.
type set struct {
	list []string
}

func (s *set) add(value string) {
	for _, have := range s.list {
		if have == value {
			return
		}
	}
	s.list = append(s.list, value)
}
