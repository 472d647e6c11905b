// Command genschema writes the configuration's JSON Schema to the file it is given.
package main

import (
	"fmt"
	"os"

	"github.com/vmgate/vmgate/internal/config"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: genschema FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], config.Schema(), 0o644); err != nil {
		fmt.Fprintf(os.Stderr, "genschema: cannot write the schema: %v\n", err)
		os.Exit(1)
	}
}
