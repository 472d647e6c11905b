package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// ownerFlags narrow down which socket is meant, for all commands that ask for owners.
func ownerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "remote", Usage: "the socket that is connected to `ADDR:PORT`"},
		&cli.UintFlag{Name: "netns", Usage: "in one network namespace of the guest, by the `NUMBER` that /proc/PID/ns/net shows there"},
		&cli.BoolFlag{Name: "fingerprint", Usage: "identify the owners' programs too, by their text in memory"},
	}
}

func cmdOwner() *cli.Command {
	return &cli.Command{
		Name:         "owner",
		Usage:        "say which process of a VM holds a port, read from its memory; if none does, which could send from it nevertheless",
		ArgsUsage:    "VM PROTO [ADDR:]PORT",
		Flags:        ownerFlags(),
		BashComplete: completeVM,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 3); err != nil {
				return err
			}
			q, err := ownerQuery(c, c.Args().Get(1), c.Args().Get(2))
			if err != nil {
				return err
			}
			q.VM = c.Args().First()
			answer, err := daemonOf(c).Owner(c.Context, q)
			if err != nil {
				return err
			}
			return showOwner(c, q, answer, func(ctx context.Context, p vmi.Process) (vmi.Fingerprint, error) {
				return daemonOf(c).Fingerprint(ctx, q.VM, p.PID)
			})
		},
	}
}

// ownerQuery reads which socket the command line means. That the protocol is one
// is left to who answers.
func ownerQuery(c *cli.Context, proto, local string) (q api.OwnerQuery, err error) {
	at, err := parseLocal(local)
	if err != nil {
		return q, err
	}
	q = api.OwnerQuery{Port: api.Port{Proto: proto, Port: at.Port()}, Addr: at.Addr(), NetNS: uint32(c.Uint("netns"))}
	if text := c.String("remote"); text != "" {
		if q.Remote, err = netip.ParseAddrPort(text); err != nil {
			return q, usageErrorf("--remote: %q is no address with a port: write 10.0.0.1:80 or [2001:db8::1]:80", text)
		}
	}
	return q, nil
}

// ownerAnswer is what is shown of an answer.
type ownerAnswer struct {
	vmi.Answer
	Fingerprints []vmi.Fingerprint `json:"fingerprints,omitempty"` // of the owners, in their order
}

// showOwner shows an answer. That there is no owner is an error after it.
func showOwner(c *cli.Context, q api.OwnerQuery, answer vmi.Answer, identify func(context.Context, vmi.Process) (vmi.Fingerprint, error)) error {
	shown := ownerAnswer{Answer: answer}
	if c.Bool("fingerprint") {
		for _, p := range answer.Owners {
			f, err := identify(c.Context, p)
			if err != nil {
				return err
			}
			shown.Fingerprints = append(shown.Fingerprints, f)
		}
	}
	if err := show(c, shown, shown.print); err != nil {
		return err
	}
	if len(answer.Owners) == 0 {
		of := "the guest"
		if q.VM != "" {
			of = q.VM
		}
		return fmt.Errorf("%w: no process of %s holds %s port %d: %s", api.ErrNotFound, of, q.Proto, q.Port.Port, answer.Note)
	}
	return nil
}

func (a ownerAnswer) print(t *table) {
	state := string(a.State)
	if a.Note != "" {
		state += ": " + a.Note
	}
	t.field("state", state)
	if a.Untraced > 0 {
		t.field("others", fmt.Sprintf("%d sockets could have sent it too, and nobody was found to hold them", a.Untraced))
	}
	if len(a.Owners)+len(a.Candidates)+len(a.Past) == 0 {
		return
	}
	t.blank()
	t.row("ROLE", "PID", "PPID", "UID", "HIDDEN", "NETNS", "CONTAINER", "VIA", "NAME", "COMMAND")
	row := func(role string, p vmi.Process) {
		t.row(role, p.PID, p.PPID, p.UID, yes(p.Hidden), number(p.NetNS), p.Container[:min(len(p.Container), 12)], p.Via, p.Name, command(p))
	}
	for _, p := range a.Owners {
		row("owner", p)
	}
	for _, p := range a.Past {
		p.Via = "had it at " + clock(p.Seen)
		row("past", p.Process)
	}
	for _, p := range a.Candidates {
		row("candidate", p)
	}
	for i, p := range a.Owners {
		if p.HiddenWhy != "" {
			t.blank()
			t.field(fmt.Sprintf("hidden %d", p.PID), p.HiddenWhy)
		}
		if i < len(a.Fingerprints) {
			t.blank()
			printFingerprint(t, a.Fingerprints[i])
		}
	}
}

func printFingerprint(t *table, f vmi.Fingerprint) {
	t.field("path", f.Path)
	t.field("build id", f.BuildID)
	t.field("sha256", f.SHA256)
	t.row("text", fmt.Sprintf("%d pages, resident %s", f.Pages, pageRuns(f.Resident)))
	if len(f.Altered) > 0 {
		t.row("altered", pageRuns(f.Altered))
	}
}

// pageRuns writes page numbers for people: "1-7 9".
func pageRuns(runs []vmi.PageRun) string {
	var out []string
	for _, r := range runs {
		if r.Count == 1 {
			out = append(out, fmt.Sprint(r.First))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", r.First, r.First+r.Count-1))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, " ")
}
