// Package lab makes what the tests and the demonstration run on: network
// namespaces with virtual switches and hosts in them, and small QEMU guests
// whose memory can be read. Everything it makes bears the pid of its process
// in its name, is removed by Close, and is invisible to the rest of the
// machine. It needs root.
package lab

import (
	"fmt"
	"os"
)

// prefix begins the name of everything that this process makes outside of a
// namespace, so that two test packages never meet and leftovers can be told.
func prefix() string { return fmt.Sprintf("vg%d-", os.Getpid()) }
