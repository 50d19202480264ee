// Command svidload measures how fast a SPIFFE server issues SVIDs, through the
// public SPIRE server API. It talks to any server that serves that API, so two
// servers can be measured side by side in one run with the same client.
//
// It creates a join token and workload entries over the server's admin socket,
// attests as an agent, and then asks for SVIDs over mutual TLS in phases:
// BatchNewX509SVID with each batch size given, and NewJWTSVID. Every phase
// prints one JSON line: SVIDs per second, latency percentiles, and, with -pid,
// the CPU time that the server's processes spent per SVID (children included).
//
// With -steps the phases come from standard input, a batch size or "jwt" a line,
// each run as it is read: so two servers can be loaded by turns, and what else the
// machine does in the meantime meets both.
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
)

var (
	addr     = flag.String("addr", "127.0.0.1:8081", "server TCP address")
	sock     = flag.String("admin", "/tmp/spire-server/private/api.sock", "server admin socket")
	entries  = flag.Int("entries", 1000, "workload entries to create and ask SVIDs for")
	batches  = flag.String("batches", "1,50,500", "batch sizes, one phase each")
	conns    = flag.Int("conns", 4, "connections")
	workers  = flag.Int("workers", 2, "requests in flight per connection")
	duration = flag.Duration("duration", 8*time.Second, "length of a phase")
	pids     = flag.String("pid", "", "server process ids, comma separated, whose CPU time (descendants included) is read from /proc")
	label    = flag.String("label", "server", "name printed in the results")
	steps    = flag.Bool("steps", false, "run the phases named on standard input instead of -batches and -jwt")
	jwt      = flag.Bool("jwt", true, "also run the NewJWTSVID phase")
	verify   = flag.Bool("verify", true, "verify every SVID of the first response of each worker")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx := context.Background()
	admin, err := grpc.NewClient("unix:"+*sock, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	bundle, err := bundlev1.NewBundleClient(admin).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	roots := x509.NewCertPool()
	for _, a := range bundle.X509Authorities {
		c, err := x509.ParseCertificates(a.Asn1)
		if err != nil {
			return err
		}
		for _, x := range c {
			roots.AddCert(x)
		}
	}
	token, err := agentv1.NewAgentClient(admin).CreateJoinToken(ctx, &agentv1.CreateJoinTokenRequest{Ttl: 600})
	if err != nil {
		return fmt.Errorf("join token: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	agentCert, agentID, err := attest(ctx, roots, token.Value, key)
	if err != nil {
		return fmt.Errorf("attest: %w", err)
	}
	t0 := time.Now()
	ids, err := createEntries(ctx, admin, bundle.TrustDomain, agentID)
	if err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	emit(map[string]any{"phase": "create-entries", "n": len(ids), "per_s": float64(len(ids)) / time.Since(t0).Seconds()})

	mtls := credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{*agentCert}, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, NextProtos: []string{"h2"},
		VerifyPeerCertificate: verifyServer(roots),
	})
	var clients []*grpc.ClientConn
	for i := 0; i < *conns; i++ {
		c, err := grpc.NewClient(*addr, grpc.WithTransportCredentials(mtls), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		if err != nil {
			return err
		}
		clients = append(clients, c)
	}
	if err := waitAuthorized(ctx, clients[0], len(ids)); err != nil {
		return err
	}
	csrs, err := makeCSRs(512)
	if err != nil {
		return err
	}
	phase := func(name string) error {
		if name == "jwt" {
			return phaseJWT(ctx, clients, ids)
		}
		n, err := strconv.Atoi(name)
		if err != nil {
			return err
		}
		return phaseX509(ctx, clients, roots, ids, csrs, n)
	}
	if *steps {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			if err := phase(in.Text()); err != nil {
				return err
			}
		}
		return in.Err()
	}
	names := strings.FieldsFunc(*batches, func(r rune) bool { return r == ',' || r == ' ' })
	if *jwt {
		names = append(names, "jwt")
	}
	for _, name := range names {
		if err := phase(name); err != nil {
			return err
		}
	}
	return nil
}

func verifyServer(roots *x509.CertPool) func([][]byte, [][]*x509.Certificate) error {
	return func(raw [][]byte, _ [][]*x509.Certificate) error {
		leaf, pool, err := split(raw)
		if err != nil {
			return err
		}
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err
	}
}

func split(raw [][]byte) (*x509.Certificate, *x509.CertPool, error) {
	pool := x509.NewCertPool()
	var leaf *x509.Certificate
	for i, r := range raw {
		c, err := x509.ParseCertificate(r)
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			leaf = c
		} else {
			pool.AddCert(c)
		}
	}
	if leaf == nil {
		return nil, nil, fmt.Errorf("empty chain")
	}
	return leaf, pool, nil
}

func attest(ctx context.Context, roots *x509.CertPool, token string, key *ecdsa.PrivateKey) (*tls.Certificate, *types.SPIFFEID, error) {
	c, err := grpc.NewClient(*addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, VerifyPeerCertificate: verifyServer(roots)})))
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, err
	}
	st, err := agentv1.NewAgentClient(c).AttestAgent(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := st.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data:   &types.AttestationData{Type: "join_token", Payload: []byte(token)},
		Params: &agentv1.AgentX509SVIDParams{Csr: csr},
	}}}); err != nil {
		return nil, nil, err
	}
	resp, err := st.Recv()
	if err != nil {
		return nil, nil, err
	}
	svid := resp.GetResult().GetSvid()
	if svid == nil {
		return nil, nil, fmt.Errorf("no agent SVID in %v", resp)
	}
	return &tls.Certificate{Certificate: svid.CertChain, PrivateKey: key}, svid.Id, nil
}

func createEntries(ctx context.Context, admin *grpc.ClientConn, td string, parent *types.SPIFFEID) ([]string, error) {
	client := entryv1.NewEntryClient(admin)
	var ids []string
	for done := 0; done < *entries; {
		n := min(500, *entries-done)
		req := &entryv1.BatchCreateEntryRequest{OutputMask: &types.EntryMask{}}
		for i := 0; i < n; i++ {
			k := done + i
			req.Entries = append(req.Entries, &types.Entry{
				ParentId:    parent,
				SpiffeId:    &types.SPIFFEID{TrustDomain: td, Path: fmt.Sprintf("/ns/load/%s/sa/workload-%d", token8(parent.Path), k)},
				Selectors:   []*types.Selector{{Type: "k8s", Value: fmt.Sprintf("ns:load-%d", k%100)}, {Type: "k8s", Value: fmt.Sprintf("sa:workload-%d", k)}},
				X509SvidTtl: 3600,
				JwtSvidTtl:  300,
			})
		}
		resp, err := client.BatchCreateEntry(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, r := range resp.Results {
			if r.Status.Code != int32(codes.OK) {
				return nil, fmt.Errorf("create entry: %v", r.Status)
			}
			ids = append(ids, r.Entry.Id)
		}
		done += n
	}
	return ids, nil
}

func token8(p string) string { return p[len(p)-8:] }

func waitAuthorized(ctx context.Context, c *grpc.ClientConn, n int) error {
	t0 := time.Now()
	for time.Since(t0) < 60*time.Second {
		r, err := entryv1.NewEntryClient(c).GetAuthorizedEntries(ctx, &entryv1.GetAuthorizedEntriesRequest{OutputMask: &types.EntryMask{}})
		if err != nil {
			return fmt.Errorf("authorized entries: %w", err)
		}
		if len(r.Entries) >= n {
			emit(map[string]any{"phase": "authorized-entries", "n": len(r.Entries), "visible_after_s": time.Since(t0).Seconds()})
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	return fmt.Errorf("the agent never saw its %d entries", n)
}

func makeCSRs(n int) ([][]byte, error) {
	out := make([][]byte, n)
	for i := range out {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		if out[i], err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// load runs call from every worker until the phase ends and reports the results.
func load(name string, perCall int, call func(w, i int) error) error {
	var (
		wg    sync.WaitGroup
		done  atomic.Int64
		mu    sync.Mutex
		lat   []float64
		first error
	)
	cpu0, t0 := cpuSeconds(), time.Now()
	total := *conns * *workers
	for w := 0; w < total; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var mine []float64
			for i := 0; time.Since(t0) < *duration; i++ {
				s := time.Now()
				if err := call(w, i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
					return
				}
				mine = append(mine, time.Since(s).Seconds()*1e3)
				done.Add(int64(perCall))
			}
			mu.Lock()
			lat = append(lat, mine...)
			mu.Unlock()
		}()
	}
	wg.Wait()
	if first != nil {
		return fmt.Errorf("%s: %w", name, first)
	}
	wall, cpu := time.Since(t0).Seconds(), cpuSeconds()-cpu0
	sort.Float64s(lat)
	res := map[string]any{"phase": name, "svids": done.Load(), "per_s": float64(done.Load()) / wall, "p50_ms": pct(lat, .5), "p99_ms": pct(lat, .99)}
	if *pids != "" {
		res["server_cpu_us_per_svid"] = cpu * 1e6 / float64(done.Load())
	}
	emit(res)
	return nil
}

func phaseX509(ctx context.Context, clients []*grpc.ClientConn, roots *x509.CertPool, ids []string, csrs [][]byte, batch int) error {
	return load(fmt.Sprintf("x509 batch=%d", batch), batch, func(w, i int) error {
		req := &svidv1.BatchNewX509SVIDRequest{}
		for k := 0; k < batch; k++ {
			n := (w*7919 + i*batch + k)
			req.Params = append(req.Params, &svidv1.NewX509SVIDParams{EntryId: ids[n%len(ids)], Csr: csrs[n%len(csrs)]})
		}
		resp, err := svidv1.NewSVIDClient(clients[w%len(clients)]).BatchNewX509SVID(ctx, req)
		if err != nil {
			return err
		}
		if len(resp.Results) != batch {
			return fmt.Errorf("%d results for %d requests", len(resp.Results), batch)
		}
		for k, r := range resp.Results {
			if r.Status.Code != int32(codes.OK) {
				return fmt.Errorf("svid: %v", r.Status)
			}
			if i == 0 && *verify {
				leaf, pool, err := split(r.Svid.CertChain)
				if err != nil {
					return err
				}
				if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
					return fmt.Errorf("issued SVID does not verify: %w", err)
				}
				want := (&url.URL{Scheme: "spiffe", Host: r.Svid.Id.TrustDomain, Path: r.Svid.Id.Path}).String()
				if len(leaf.URIs) != 1 || leaf.URIs[0].String() != want {
					return fmt.Errorf("issued SVID has URIs %v, not %s", leaf.URIs, want)
				}
				csr, _ := x509.ParseCertificateRequest(req.Params[k].Csr)
				if !leaf.PublicKey.(*ecdsa.PublicKey).Equal(csr.PublicKey) {
					return fmt.Errorf("issued SVID has another public key")
				}
			}
		}
		return nil
	})
}

func phaseJWT(ctx context.Context, clients []*grpc.ClientConn, ids []string) error {
	return load("jwt", 1, func(w, i int) error {
		r, err := svidv1.NewSVIDClient(clients[w%len(clients)]).NewJWTSVID(ctx, &svidv1.NewJWTSVIDRequest{EntryId: ids[(w*7919+i)%len(ids)], Audience: []string{"load"}})
		if err == nil && strings.Count(r.Svid.Token, ".") != 2 {
			err = fmt.Errorf("not a JWT: %q", r.Svid.Token)
		}
		return err
	})
}

// cpuSeconds sums user and system time of the given processes, all their living descendants (a
// database's backends among them) and what these have reaped.
func cpuSeconds() float64 {
	var ticks float64
	for _, p := range withDescendants(strings.Split(*pids, ",")) {
		f := statFields(p)
		if len(f) < 15 {
			continue
		}
		for _, i := range []int{11, 12, 13, 14} {
			v, _ := strconv.ParseFloat(f[i], 64)
			ticks += v
		}
	}
	return ticks / 100
}

// statFields are the fields of /proc/PID/stat from the third, the state, on.
func statFields(pid string) []string {
	raw, err := os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/stat")
	if err != nil {
		return nil
	}
	s := string(raw)
	return strings.Fields(s[strings.LastIndex(s, ")")+2:])
}

func withDescendants(roots []string) []string {
	dirs, _ := os.ReadDir("/proc")
	children := map[string][]string{}
	for _, d := range dirs {
		if _, err := strconv.Atoi(d.Name()); err != nil {
			continue
		}
		if f := statFields(d.Name()); len(f) > 1 {
			children[f[1]] = append(children[f[1]], d.Name())
		}
	}
	var out []string
	for queue := roots; len(queue) > 0; queue = queue[1:] {
		pid := strings.TrimSpace(queue[0])
		if pid == "" {
			continue
		}
		out = append(out, pid)
		queue = append(queue, children[pid]...)
	}
	return out
}

func pct(v []float64, p float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return v[min(len(v)-1, int(float64(len(v))*p))]
}

func emit(m map[string]any) {
	m["label"] = *label
	b, _ := json.Marshal(m)
	fmt.Println(string(b))
}
