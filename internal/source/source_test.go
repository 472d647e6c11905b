package source_test

import (
	"context"
	"errors"
	"testing"

	"github.com/vmgate/vmgate/internal/source"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// What a way to memory can do besides reading is of use to the discovery.
func TestDiscover_AsksMemoryForRegisters(t *testing.T) {
	mem := &empty{}
	_, err := source.Memory{Memory: mem}.Discover(t.Context(), vmi.Options{})
	if err == nil || !mem.asked || !mem.closed {
		t.Errorf("asked for registers: %v, closed: %v, error: %v", mem.asked, mem.closed, err)
	}
}

// empty is memory without any, which knows of registers.
type empty struct{ asked, closed bool }

func (*empty) ReadPhys([]byte, uint64) error { return errors.New("nothing there") }

func (*empty) Ranges() ([]vmi.Range, error) { return nil, nil }

func (e *empty) Close() error {
	e.closed = true
	return nil
}

func (e *empty) Registers(context.Context) (vmi.Registers, error) {
	e.asked = true
	return vmi.Registers{}, errors.New("none")
}
