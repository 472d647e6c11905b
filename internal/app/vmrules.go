package app

import (
	"errors"
	"time"

	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// sign counts a sign against a VM, and takes the measures that the rules about VMs
// ask for.
func (e *effects) sign(sign verdict.VMSign, vm, what string) error {
	s := e.now()
	n := s.inv.byName[vm]
	if n == nil || n.vm == nil || s.spared(n, verdict.Endpoint{}, nil) {
		return nil
	}
	var errs []error
	for _, evidence := range e.tally.Note(sign, vm, what, time.Now()) {
		errs = append(errs, e.observe(evidence))
	}
	return errors.Join(errs...)
}

// spoofed counts a forged address against the VM whose frame it was in: only if the
// frame came by the VM's own port. Who forges another's MAC elsewhere does not make
// that one guilty.
func (e *effects) spoofed(ev loader.Event) error {
	n := e.now().inv.byID[ev.VM]
	if n == nil || n.vm == nil || n.segment.number != ev.Port {
		return nil
	}
	return e.sign(verdict.SignSpoofing, n.name, "")
}

// found counts what introspection found in a VM. Sockets without a holder may be on
// their way between two processes, and traced functions look like hooked ones.
func (e *effects) found(vm string, findings []vmi.Finding) error {
	var errs []error
	for _, f := range findings {
		switch f.Kind {
		case vmi.HiddenProcess, vmi.UnlinkedProcess, vmi.HiddenModule, vmi.HookedTable:
			errs = append(errs, e.sign(verdict.SignFinding, vm, string(f.Kind)+" "+f.Subject))
		}
	}
	return errors.Join(errs...)
}
