package config

import (
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/vmgate/vmgate/pkg/verdict"
)

// checkAlertRules checks what alerts do, and whom they spare.
func (v *checker) checkAlertRules() {
	for i := range v.IDS.Convict {
		r, path := &v.IDS.Convict[i], fmt.Sprintf("ids.convict[%d]", i)
		if r.Action != "" {
			v.oneOf(path+".action", r.Action, "alert", "drop", "reject")
		}
		v.oneOf(path+".then", r.Then, "convict", "suspect", "ignore")
		if r.SIDs != nil && len(r.SIDs) == 0 {
			v.report(path+".sids", "%s.sids is empty: name rules, or leave the line out for all", path)
		}
		for j, sid := range r.SIDs {
			if sid < 1 || sid > math.MaxUint32 {
				v.report(fmt.Sprintf("%s.sids[%d]", path, j), "%s.sids: %d is no rule's number", path, sid)
			}
		}
		if r.Priority < 0 || r.Priority > math.MaxInt32 {
			v.report(path+".priority", "%s.priority: %d is no priority: 1 is the most urgent", path, r.Priority)
		}
	}
	for i := range v.IDS.Never {
		s, path := &v.IDS.Never[i], fmt.Sprintf("ids.never[%d]", i)
		v.checkVMRef(path+".vm", s.VM)
		v.checkPrefix(path+".subnet", s.Subnet)
		if s.Process != "" && !filepath.IsAbs(s.Process) {
			v.report(path+".process", "%s.process: %q is not absolute: name the executable's path, since a name is the process's to choose", path, s.Process)
		}
		if s.VM == "" && s.Process == "" && !s.Subnet.IsValid() {
			v.report(path, "%s: it would spare everybody: give vm, subnet or process", path)
		}
	}
}

func (v *checker) checkVMRules() {
	for i := range v.VMRules {
		r, path := &v.VMRules[i], fmt.Sprintf("vm-rules[%d]", i)
		v.oneOf(path+".when", r.When, "convictions", "spoofing", "findings", "reports")
		v.oneOf(path+".then", r.Then, "inspect", "isolate")
		v.between(path+".count", r.Count, 1, verdict.MaxVMRuleCount)
		v.betweenDurations(path+".within", r.Within, time.Second, 24*time.Hour)
		v.checkVMRef(path+".vm", r.VM)
	}
}

func (v *checker) checkClearAfter(path string, r *Rule) {
	c := r.Clear
	if c.Packets < 0 || c.Bytes < 0 || c.Seconds < 0 || c.Seconds > int64(24*time.Hour/time.Second) {
		v.report(path, "%s: a number is below 0, or seconds are more than a day", path)
	}
	if c != (ClearAfter{}) && r.Action == "deny" {
		v.report(path, "%s: what is denied is not inspected: leave it out", path)
	}
}
