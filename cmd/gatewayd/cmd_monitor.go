package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
)

func cmdMonitor() *cli.Command {
	return &cli.Command{
		Name:  "monitor",
		Usage: "follow decisions, verdicts, alerts and drops as they happen, a line each, until interrupted",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "type", Usage: "only events of `TYPE`: decision, verdict, alert, drop, spoof, vm, ids, config, operator; can be repeated"},
			&cli.StringFlag{Name: "vm", Usage: "only events from or to `VM`"},
		},
		Action: monitor,
	}
}

// lost is the type of the event that counts those which this reader was too
// slow for; no filter hides it.
const lost = "lost"

func monitor(c *cli.Context) error {
	if err := wantArgs(c, 0); err != nil {
		return err
	}
	events, err := daemonOf(c).Monitor(c.Context)
	if err != nil {
		return err
	}
	types, vm := c.StringSlice("type"), c.String("vm")
	print := printEvent
	if wantsJSON(c) {
		print = func(w io.Writer, e event.Event) error { return json.NewEncoder(w).Encode(e) }
	}
	for e := range events {
		if e.Type != lost && (len(types) > 0 && !slices.Contains(types, e.Type) || vm != "" && vm != e.SrcVM && vm != e.DestVM) {
			continue
		}
		if err := print(c.App.Writer, e); err != nil {
			return fmt.Errorf("cannot print events: %w", err)
		}
	}
	if c.Context.Err() != nil {
		return nil // interrupted, as meant
	}
	return fmt.Errorf("%w: it has ended the stream: it stops, or this terminal was too slow", api.ErrUnreachable)
}

// printEvent writes one line; it is no table, because a stream has no widest cell.
func printEvent(w io.Writer, e event.Event) error {
	words := []string{e.Timestamp.Local().Format(time.StampMilli), e.Type}
	if e.Verdict != "" {
		words = append(words, e.Verdict)
	}
	if e.SrcIP != "" {
		words = append(words, strings.ToLower(e.Proto), end(e.SrcIP, e.SrcPort, owner(e.SrcVM, e.SrcProcess)),
			"->", end(e.DestIP, e.DestPort, owner(e.DestVM, e.DestProcess)))
	} else if who := owner(e.SrcVM, e.SrcProcess); who != "" {
		words = append(words, who)
	}
	for _, named := range []struct{ name, value string }{{"cause", e.Cause}, {"rule", e.Rule}, {"reason", e.Reason}} {
		if named.value != "" {
			words = append(words, named.name+"="+named.value)
		}
	}
	if e.Alert != nil {
		words = append(words, fmt.Sprintf("[%d:%d:%d] %s", e.Alert.GID, e.Alert.SID, e.Alert.Rev, e.Alert.Signature))
	}
	if e.Message != "" {
		words = append(words, e.Message)
	}
	_, err := fmt.Fprintln(w, printable(strings.Join(words, " ")))
	return err
}

func end(addr string, port uint16, who string) string {
	if who == "" {
		return hostPort(addr, port)
	}
	return hostPort(addr, port) + " (" + who + ")"
}
