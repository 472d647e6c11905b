package main

import (
	"context"
	"flag"

	"github.com/vmgate/vmgate/internal/lab/truth"
)

// tellTruth prints what this machine says of itself.
func tellTruth(_ context.Context, args []string) error {
	if _, err := parse(flag.NewFlagSet("truth", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	all, err := truth.Read("/proc")
	if err != nil {
		return err
	}
	print(all)
	return nil
}
