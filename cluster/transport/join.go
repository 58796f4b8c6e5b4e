package transport

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twinlun/twinlun/cluster/identity"
)

// A message of the Join protocol is its length, u32 big endian, and so many bytes of
// JSON: an identity.JoinRequest one way, an identity.JoinAnswer the other.

func readMessage(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > identity.MaxJoinMessage {
		return nil, fmt.Errorf("a message of %d bytes, at most %d are taken", n, identity.MaxJoinMessage)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(r, data)
	return data, err
}

func writeMessage(w io.Writer, data []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}

// joinPace is how long a request keeps its place at least: with four places, strangers
// have 20 tokens looked up in a second.
const joinPace = 200 * time.Millisecond

// serveJoin answers the one request of somebody who has proven nothing yet.
func (p *Port) serveJoin(c *tls.Conn) error {
	if p.cfg.Join == nil {
		return decline(c, "this node does not take part in joining; ask another one")
	}
	select {
	case p.joins <- struct{}{}:
		defer func() {
			p.pause(joinPace)
			<-p.joins
		}()
		return p.answerJoin(c)
	default:
		return decline(c, "others are joining just now; try again")
	}
}

// decline tells somebody who wants to join that it is not possible. His request is
// passed over: closing with bytes unread would take the answer back.
func decline(c *tls.Conn, reason string) error {
	c.SetDeadline(time.Now().Add(closeTime))
	if err := writeMessage(c, identity.Refusal(reason)); err != nil {
		return err
	}
	c.CloseWrite()
	io.CopyN(io.Discard, c, identity.MaxJoinMessage)
	return fmt.Errorf("somebody wants to join: %s", reason)
}

func (p *Port) answerJoin(c *tls.Conn) error {
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.Limits.JoinTime)
	defer cancel()
	c.SetDeadline(time.Now().Add(p.cfg.Limits.JoinTime))
	stop := context.AfterFunc(ctx, func() { c.NetConn().Close() })
	defer stop()
	request, err := readMessage(c)
	if err != nil {
		return fmt.Errorf("request to join: %w", err)
	}
	answer, err := p.cfg.Join(ctx, request)
	return errors.Join(err, writeMessage(c, answer), c.Close())
}

// JoinCluster asks a cluster to take this node in. It asks the token's addresses in
// turn until one has decided.
func JoinCluster(ctx context.Context, token *identity.Token, a *identity.Applicant) (*identity.Node, error) {
	request, err := json.Marshal(a.Request)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	var errs []error
	for _, address := range token.Addresses {
		answer, err := ask(ctx, token, address, request)
		var n *identity.Node
		if err == nil {
			n, err = a.Accept(answer)
			if !errors.Is(err, identity.ErrElsewhere) {
				return n, err
			}
		}
		errs = append(errs, fmt.Errorf("join by %s: %w", address, err))
	}
	return nil, errors.Join(errs...)
}

// askTime is how long one address may take: somewhat longer than a node has for it.
const askTime = 20 * time.Second

func ask(ctx context.Context, token *identity.Token, address string, request []byte) (answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c := tls.Client(conn, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{string(Join)},
		// A new node knows neither a name nor a CA, only the CA's fingerprint.
		InsecureSkipVerify: true,
		VerifyConnection:   func(cs tls.ConnectionState) error { return token.Verify(cs.PeerCertificates, time.Now()) },
	})
	if err := c.Handshake(); err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	if err := writeMessage(c, request); err != nil {
		return nil, err
	}
	answer, err = readMessage(c)
	if errors.Is(err, io.EOF) {
		err = errors.New("it has closed the connection without an answer; its log may say why")
	}
	return answer, errors.Join(err, context.Cause(ctx))
}
