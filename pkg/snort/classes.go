package snort

import (
	"fmt"
	"strings"
)

// class is a classification of rules: what rules name as their classtype.
type class struct {
	Name     string
	Priority int // 1 is the gravest
}

// classes are those that the rule sets in use name (Snort 3's and Suricata's own,
// Emerging Threats'), with the priorities that both engines give them. Both engines
// are told these, with the name as the text too: so alerts of both name a class
// alike.
var classes = func() (all []class) {
	for i, names := range []string{
		"attempted-admin attempted-user client-side-exploit command-and-control credential-theft " +
			"domain-c2 exploit-kit file-format inappropriate-content malware-cnc " +
			"policy-violation shellcode-detect successful-admin successful-user targeted-activity " +
			"trojan-activity unsuccessful-user web-application-attack",
		"attempted-dos attempted-recon bad-unknown coin-mining default-login-attempt " +
			"denial-of-service external-ip-check misc-attack non-standard-protocol pup-activity " +
			"rpc-portmap-decode sdf social-engineering successful-dos successful-recon-largescale " +
			"successful-recon-limited suspicious-filename-detect suspicious-login system-call-detect unusual-client-port-connection " +
			"web-application-activity",
		"icmp-event misc-activity network-scan not-suspicious protocol-command-decode " +
			"string-detect unknown",
		"tcp-connection",
	} {
		for _, name := range strings.Fields(names) {
			all = append(all, class{name, i + 1})
		}
	}
	return all
}()

// suricataClasses is Suricata's classification file.
func suricataClasses() string {
	var b strings.Builder
	for _, c := range classes {
		fmt.Fprintf(&b, "config classification: %s,%s,%d\n", c.Name, c.Name, c.Priority)
	}
	return b.String()
}
