package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
)

func cmdStatus() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show the state of the daemon, its vNICs, the IDS, what happens on failure, and counters",
		Action: func(c *cli.Context) error {
			return showFrom(c, daemonOf(c).Status, printStatus)
		},
	}
}

func printStatus(t *table, s api.Status) {
	t.row("daemon", fmt.Sprintf("%s, pid %d, since %s", s.Version, s.PID, clock(s.Started)))
	t.row("config", fmt.Sprintf("%s, loaded %s", s.Config, clock(s.Loaded)))
	t.row("enforcement", s.Enforcement)
	t.row("vms", fmt.Sprint(s.VMs))
	t.row("flows", fmt.Sprintf("%d decided, %d held", s.Flows, s.Pending))
	t.row("ids", idsLine(s.IDS))
	if s.LastError != "" {
		t.blank()
		t.text("THE LAST RELOAD FAILED, the configuration before it is in force:\n" + s.LastError)
	}
	t.blank()
	t.row("SEGMENT", "VNIC", "STATE", "DATAPATH", "DETAIL")
	for _, seg := range s.Segments {
		t.row(seg.Name, seg.VNIC, seg.State, seg.Datapath, seg.Detail)
	}
	t.blank()
	t.row("WHEN THIS FAILS", "NEW FLOWS ARE")
	for _, condition := range slices.Sorted(maps.Keys(s.Failure)) {
		t.row(condition, s.Failure[condition])
	}
	if len(s.Counters) == 0 {
		return
	}
	t.blank()
	t.row("COUNTED AT", "REASON", "PACKETS", "BYTES")
	for _, n := range s.Counters {
		t.row(n.Segment, n.Reason, n.Packets, n.Bytes)
	}
}

func idsLine(ids api.IDSStatus) string {
	if ids.Engine == "" {
		return "none"
	}
	line := ids.Engine + " " + ids.State
	if ids.PID != 0 {
		line += fmt.Sprintf(", pid %d", ids.PID)
	}
	if !ids.Since.IsZero() {
		line += ", since " + clock(ids.Since)
	}
	if ids.Restarts != 0 {
		line += fmt.Sprintf(", restarts: %d", ids.Restarts)
	}
	if ids.Detail != "" {
		line += ": " + ids.Detail
	}
	return line
}
