// Workload is the program that lab hosts run. In a QEMU guest it is also
// process 1: it boots the guest, then runs commands for the test over a serial
// port. Everywhere else its first argument chooses a kind of traffic. Results
// are one JSON object a line on standard output.
//
// It is built static, and is small on purpose: under emulation its size and
// start-up time are what a guest's boot consists of.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// commands are the kinds of traffic, by their first argument.
func commands() map[string]func(context.Context, []string) error {
	return map[string]func(context.Context, []string) error{
		"serve":    serve,
		"connect":  connect,
		"transfer": transfer,
		"flood":    flood,
		"udp":      udp,
		"sleep":    sleep,
		"truth":    tellTruth,
		"reset":    reset,
		"crowd":    crowd,
		"churn":    churn,
		"forge":    forge,
	}
}

func main() {
	if os.Getpid() == 1 {
		boot() // never returns
	}
	os.Exit(run(os.Args[1:]))
}

// run is main with an exit status: 0 done, 1 something failed, 2 wrong usage.
func run(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: workload serve|connect|transfer|flood|udp|sleep|truth|reset|crowd|churn|forge …")
		return 2
	}
	command := commands()[args[0]]
	if command == nil {
		fmt.Fprintf(os.Stderr, "workload: there is no %q; it can serve, connect, transfer, flood, udp, sleep, truth, reset, crowd, churn, forge\n", args[0])
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch err := command(ctx, args[1:]); {
	case err == nil, errors.Is(err, context.Canceled):
		return 0
	case errors.Is(err, flag.ErrHelp), errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "workload %s: %v\n", args[0], err)
		return 2
	default:
		fmt.Fprintf(os.Stderr, "workload %s: %v\n", args[0], err)
		return 1
	}
}

var errUsage = errors.New("wrong usage")

// parse reads flags that may stand before and after the positional arguments,
// of which there must be exactly want.
func parse(flags *flag.FlagSet, args []string, want int) ([]string, error) {
	var positional []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		if flags.NArg() == 0 {
			break
		}
		positional = append(positional, flags.Arg(0))
		args = flags.Args()[1:]
	}
	if len(positional) != want {
		return nil, fmt.Errorf("%w: %d arguments where %d are needed: %q", errUsage, len(positional), want, positional)
	}
	return positional, nil
}

// sleep does nothing for a duration, or until it is ended.
func sleep(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("sleep", flag.ContinueOnError)
	length := flags.Duration("for", 0, "how long; 0 is for ever")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	if *length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *length)
		defer cancel()
	}
	print(map[string]any{"pid": os.Getpid()})
	<-ctx.Done()
	return nil
}

// pause waits and tells whether the context still lives.
func pause(ctx context.Context, length time.Duration) bool {
	if length <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
