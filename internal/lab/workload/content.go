package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// content returns the first size bytes of the one endless stream that every
// transfer consists of, so that each end can check it without the other.
func content(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{'v', 'm', 'g', 'a', 't', 'e'}), size)
}

// copyPaced copies at most rate bytes a second (0: as fast as it goes) and
// returns the SHA-256 of what went through. progress hears the running total
// about once a second.
func copyPaced(dst io.Writer, src io.Reader, rate int64, progress func(int64)) (int64, string, error) {
	sum := sha256.New()
	chunk := int64(64 << 10)
	if rate > 0 {
		chunk = max(1, min(chunk, rate/20))
	}
	buffer := make([]byte, chunk)
	begin, told, total := time.Now(), time.Now(), int64(0)
	for {
		n, err := src.Read(buffer)
		if n > 0 {
			sum.Write(buffer[:n])
			if _, writeErr := dst.Write(buffer[:n]); writeErr != nil {
				return total, "", writeErr
			}
			total += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return total, hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return total, "", err
		}
		if rate > 0 {
			due := begin.Add(time.Duration(float64(total) / float64(rate) * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
		if time.Since(told) >= time.Second {
			told = time.Now()
			progress(total)
		}
	}
}

// checksum is the SHA-256 that content of a size must have.
func checksum(size int64) string {
	_, sum, _ := copyPaced(io.Discard, content(size), 0, func(int64) {})
	return sum
}

// tcpInfo is what the kernel tells of a connection.
type tcpInfo struct {
	Retrans    uint32 `json:"retrans"`    // segments sent again, since the SYN
	OutOfOrder uint32 `json:"outoforder"` // segments received out of their order
	SegsIn     uint32 `json:"segs_in"`    // segments received
	SegsOut    uint32 `json:"segs_out"`   // segments sent
}

func infoOf(conn net.Conn) (tcpInfo, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return tcpInfo{}, fmt.Errorf("not a TCP connection: %T", conn)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return tcpInfo{}, err
	}
	var info *unix.TCPInfo
	var infoErr error
	if err := raw.Control(func(fd uintptr) {
		info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); err != nil {
		return tcpInfo{}, err
	}
	if infoErr != nil {
		return tcpInfo{}, infoErr
	}
	return tcpInfo{Retrans: info.Total_retrans, OutOfOrder: info.Rcv_ooopack, SegsIn: info.Segs_in, SegsOut: info.Segs_out}, nil
}
