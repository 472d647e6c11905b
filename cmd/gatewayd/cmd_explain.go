package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/pkg/verdict"
)

func cmdExplain() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say what would happen to a packet of a flow, by which rule, owned by whom, on what evidence",
		ArgsUsage: "PROTO SRC[:PORT] DST[:PORT]",
		Description: "Nothing is sent and nothing is changed. For example:\n\n" +
			"    gatewayd explain tcp 10.0.0.11:40000 10.0.0.21:80\n" +
			"    gatewayd explain udp [2001:db8::11]:5353 [2001:db8::21]:53",
		Action: explain,
	}
}

func explain(c *cli.Context) error {
	if err := wantArgs(c, 3); err != nil {
		return err
	}
	tuple, err := parseFlow(strings.Join(c.Args().Slice(), " "))
	if err != nil {
		return err
	}
	answer, err := daemonOf(c).Explain(c.Context, tuple)
	if err != nil {
		return err
	}
	return show(c, answer, func(t *table) { printExplanation(t, answer) })
}

// parseFlow reads "PROTO SRC[:PORT] DST[:PORT]".
func parseFlow(s string) (api.Tuple, error) {
	fields := strings.Fields(s)
	if len(fields) != 3 {
		return api.Tuple{}, usageErrorf("%q is no flow: want PROTO SRC[:PORT] DST[:PORT]", s)
	}
	proto, err := api.ParseProto(fields[0])
	if err != nil {
		return api.Tuple{}, usageError{err}
	}
	src, err := parseEnd(fields[1])
	if err != nil {
		return api.Tuple{}, err
	}
	dst, err := parseEnd(fields[2])
	if err != nil {
		return api.Tuple{}, err
	}
	return api.Tuple{
		Proto: api.ProtoName(proto),
		Src:   src.Addr().String(), SrcPort: src.Port(),
		Dst: dst.Addr().String(), DstPort: dst.Port(),
	}, nil
}

// parseEnd reads 10.0.0.1, 10.0.0.1:80, 2001:db8::1, [2001:db8::1] or
// [2001:db8::1]:80; without a port it is 0.
func parseEnd(s string) (netip.AddrPort, error) {
	if end, err := netip.ParseAddrPort(s); err == nil {
		return end, nil
	}
	bare := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		bare = s[1 : len(s)-1]
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		return netip.AddrPort{}, usageErrorf("%q is no address: write 10.0.0.1:80, or [2001:db8::1]:80, or either without a port", s)
	}
	return netip.AddrPortFrom(addr, 0), nil
}

func printExplanation(t *table, x api.Explanation) {
	t.row("flow", fmt.Sprintf("%s %s -> %s", api.ProtoName(x.Flow.Proto), endLine(x.Flow.Src), endLine(x.Flow.Dst)))
	standing := "would be decided"
	if x.InMap {
		standing = "stands: the flow is decided already"
	}
	t.row("verdict", fmt.Sprintf("%s (%s), %s", x.Verdict, x.Cause, standing))
	rule := x.Rule
	if x.Location != "" {
		rule += ", " + x.Location
	}
	t.row("rule", rule)
	printOwner(t, "source", x.SrcOwner)
	printOwner(t, "destination", x.DstOwner)
	for _, e := range x.Decision.Evidence {
		t.row("evidence", fmt.Sprintf("%s: %s (%s), seen %s", e.Kind, e.Detail, e.Verdict, clock(e.Observed)))
	}
	for _, note := range x.Notes {
		t.row("note", note)
	}
}

func endLine(e verdict.Endpoint) string {
	line := hostPort(e.Addr.String(), e.Port)
	switch {
	case e.VM != "":
		line += " (vm " + e.VM + ")"
	case e.Router != "":
		line += " (behind router " + e.Router + ")"
	case e.WAN:
		line += " (outside)"
	}
	return line
}

func printOwner(t *table, name string, o verdict.Owner) {
	if len(o.Processes) == 0 {
		line := "owner " + o.State.String()
		if o.Detail != "" {
			line += ": " + o.Detail
		}
		t.row(name, line)
	}
	for _, p := range o.Processes {
		line := fmt.Sprintf("pid %d %s %s, uid %d", p.PID, p.Name, p.Path, p.UID)
		if p.Hidden {
			line += ", HIDDEN"
		}
		t.row(name, line)
	}
}
