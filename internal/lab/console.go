package lab

import (
	"io"
	"sync"
)

// consoleLimit bounds what is kept of a guest's console.
const consoleLimit = 256 << 10

// console keeps the end of what is written to it and passes everything on.
type console struct {
	copy io.Writer

	mu   sync.Mutex
	text []byte
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p...)
	if excess := len(c.text) - consoleLimit; excess > 0 {
		c.text = append(c.text[:0], c.text[excess:]...)
	}
	_, _ = c.copy.Write(p) // a copy that fails must not stop the guest
	return len(p), nil
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}
