// Package config reads the gateway's configuration: one YAML file, strictly
// decoded, checked as a whole, with errors that name the line and what to do.
package config

import (
	"net/netip"
	"time"
)

// Config is the whole configuration file.
type Config struct {
	// Enforcement is "enforce" (default) or "monitor": decide and record
	// everything, forward all.
	Enforcement string    `yaml:"enforcement" enum:"enforce,monitor"`
	Gateway     Gateway   `yaml:"gateway"`
	Segments    []Segment `yaml:"segments"`
	VMs         []VM      `yaml:"vms"`
	Routers     []Router  `yaml:"routers"`
	Policy      Policy    `yaml:"policy"`
	Lists       Lists     `yaml:"lists"`
	VMRules     []VMRule  `yaml:"vm-rules"` // what makes a VM as a whole suspect or malicious; default nothing
	IDS         IDS       `yaml:"ids"`
	Failure     Failure   `yaml:"failure"`
	Decision    Decision  `yaml:"decision"`
	Metrics     Metrics   `yaml:"metrics"`
	Events      Events    `yaml:"events"`

	src *source // for the places of later problems
}

// Gateway says where the daemon keeps its things.
type Gateway struct {
	Pins  string `yaml:"pins"`  // directory in bpffs; default /sys/fs/bpf/vmgate
	State string `yaml:"state"` // directory of the embedded store; default /var/lib/vmgate
	Run   string `yaml:"run"`   // socket and run-time files; default /run/vmgate; the socket is gatewayd.sock in it
	Group string `yaml:"group"` // besides root, members of this group may use the socket; default none
}

// Segment is one protected vSwitch, in which the gateway has exactly one vNIC.
type Segment struct {
	Name      string         `yaml:"name" schema:"required"`
	VNIC      string         `yaml:"vnic" schema:"required"`
	Mode      string         `yaml:"mode" enum:"bridged"`      // bridged (default); routed is not supported yet and refused
	Kind      string         `yaml:"kind" enum:"internal,wan"` // internal (default) or wan
	Group     string         `yaml:"group"`                    // segments of one group share layer 2; default "default"
	Subnets   []netip.Prefix `yaml:"subnets"`
	Reflect   bool           `yaml:"reflect"`                     // VMs behind this vSwitch reach each other through the gateway
	Proxy     bool           `yaml:"proxy"`                       // the same, by the gateway's own MAC: for a vSwitch that isolates its ports
	Answer    bool           `yaml:"answer-neighbours"`           // ARP and neighbour solicitations for known addresses are answered by the gateway
	Multicast string         `yaml:"multicast" enum:"drop,flood"` // of the segment's stations, but for control traffic: drop (default) or flood
	// Datapath is the hook that decides: auto (default; xdp where driver and offloads
	// allow it, else tcx), xdp, tcx, or xdp-generic, which is slow and for tests.
	Datapath string `yaml:"datapath" enum:"auto,xdp,tcx,xdp-generic"`
	Line     int    `yaml:"-"`
}

// Addresses says which source addresses an inventory entry may use: exactly one
// of the three.
type Addresses struct {
	Static []netip.Addr `yaml:"static"`
	Prefix netip.Prefix `yaml:"prefix"` // any address in it, also temporary ones
	Learn  bool         `yaml:"learn"`  // the first to claim an address keeps it
}

// VM is an inventory entry.
type VM struct {
	ID        string    `yaml:"id" schema:"required"`
	Name      string    `yaml:"name"` // for people; default the id
	Host      string    `yaml:"host"`
	Segment   string    `yaml:"segment" schema:"required"`
	MACs      []MAC     `yaml:"macs" schema:"required"`
	VLANs     []VLAN    `yaml:"vlans"` // default: untagged only
	Addresses Addresses `yaml:"addresses" schema:"required"`
	Memory    *Memory   `yaml:"memory"` // nil: none; judged at VM level and by policy alone
	Line      int       `yaml:"-"`
}

// Router is an inventory entry whose MAC may carry any source address but the
// inventory's own.
type Router struct {
	ID        string       `yaml:"id" schema:"required"`
	Segment   string       `yaml:"segment" schema:"required"`
	MACs      []MAC        `yaml:"macs" schema:"required"`
	VLANs     []VLAN       `yaml:"vlans"`
	Addresses []netip.Addr `yaml:"addresses"` // its own
	DHCP      bool         `yaml:"dhcp"`      // may answer DHCP
	Line      int          `yaml:"-"`
}

// Policy is the ordered list of rules; the first match decides.
type Policy struct {
	Default string `yaml:"default" enum:"deny,allow,check"` // deny (default), allow or check
	Rules   []Rule `yaml:"rules"`
}

// Rule is one policy rule. Empty fields match everything.
type Rule struct {
	Name     string      `yaml:"name" schema:"required"`
	From     Selector    `yaml:"from"`
	To       Selector    `yaml:"to"`
	Protocol string      `yaml:"protocol"`                                         // tcp, udp, udplite, sctp, icmp, icmpv6, any (default) or a number
	Ports    []PortRange `yaml:"ports"`                                            // of the destination: 80 or "8000-8010"
	Action   string      `yaml:"action" schema:"required" enum:"allow,deny,check"` // allow, deny or check
	Alert    bool        `yaml:"alert"`
	Clear    ClearAfter  `yaml:"clear-after"` // when a flow that is checked leaves the IDS; default never
	Line     int         `yaml:"-"`
}

// ClearAfter says how much of a flow has to have passed the IDS without an alert
// about its ends until the flow is forwarded again: all that is given.
type ClearAfter struct {
	Packets int64 `yaml:"packets"`
	Bytes   int64 `yaml:"bytes"`
	Seconds int64 `yaml:"seconds"`
}

// Selector names one end; all given fields must match.
type Selector struct {
	Segment string       `yaml:"segment"`
	Subnet  netip.Prefix `yaml:"subnet"`
	VM      string       `yaml:"vm"`
	Router  string       `yaml:"router"`
	WAN     bool         `yaml:"wan"`
}

// Lists holds what is known of processes beforehand.
type Lists struct {
	Suspect   []ListEntry `yaml:"suspect"`
	Malicious []ListEntry `yaml:"malicious"`
}

// ListEntry matches processes; all given fields must match, at least one of
// name, path and fingerprint is given.
type ListEntry struct {
	Name        string `yaml:"name"`
	Path        string `yaml:"path"`
	Fingerprint string `yaml:"fingerprint"` // ELF build id in hex
	VM          string `yaml:"vm"`          // empty: in any VM
	Reason      string `yaml:"reason"`      // for people, for example a CVE
	Line        int    `yaml:"-"`
}

// EngineExternal is the IDS.Engine of an engine that others run, for example in a
// virtual machine of its own.
const EngineExternal = "external"

// IDS is the inline engine; Engine empty means none: check verdicts are then
// handled as if the engine were down.
type IDS struct {
	Engine    string      `yaml:"engine" enum:"suricata,snort,external"` // suricata or snort: run by the daemon; external: by others
	Binary    string      `yaml:"binary"`                                // default: found on PATH
	User      string      `yaml:"user"`                                  // who runs the engine; default vmgate-ids if there is such a user, else nobody
	Rules     []string    `yaml:"rules"`                                 // rule files, relative to the configuration file
	Variables []Variable  `yaml:"variables"`                             // of the rules, beside or instead of the usual ones
	MTU       int         `yaml:"mtu"`                                   // default: the largest of the vNICs'
	Instances int         `yaml:"instances"`                             // engines, each between ports of its own, that share the flows; default 1
	Threads   int         `yaml:"threads"`                               // that inspect, in each engine; default 1
	Ports     IDSPorts    `yaml:"ports"`                                 // of an external engine: the gateway's vNICs towards it
	Alerts    IDSAlerts   `yaml:"alerts"`                                // of an external engine: where its alerts come from
	Convict   []AlertRule `yaml:"convict"`                               // what an alert does: the first that matches; default drop and reject convict. An alert that none matches makes suspect
	Never     []Spared    `yaml:"never"`                                 // whom no alert, report or VM rule turns against
}

// Variable is one that rules name with a $: of addresses or of ports.
type Variable struct {
	Name      string        `yaml:"name" schema:"required"` // such as HTTP_SERVERS
	Addresses []RuleAddress `yaml:"addresses"`              // addresses, prefixes, $HOME_NET (the segments' subnets), or any alone; ! negates
	Ports     []RulePorts   `yaml:"ports"`                  // 80 or "8000-8010", or any alone; ! negates
}

// IDSPorts are two vNICs of the gateway with nothing behind them but an engine that
// forwards, inspected, from one to the other.
type IDSPorts struct {
	In  string `yaml:"in"`  // packets towards servers leave here
	Out string `yaml:"out"` // and come back here
}

// IDSAlerts says where the alerts of an external engine come from: one way or
// several.
type IDSAlerts struct {
	Format      string   `yaml:"format" enum:"eve,alert_json"` // of lines: Suricata's eve (default) or Snort 3's alert_json
	Listen      string   `yaml:"listen"`                       // host:port for lines over TLS 1.3, both ends with certificates
	Certificate string   `yaml:"certificate"`                  // PEM file of the gateway's own, relative to the configuration file
	Key         string   `yaml:"key"`                          // PEM file
	Authority   string   `yaml:"authority"`                    // PEM file: who has signed the senders' certificates
	Names       []string `yaml:"names"`                        // of senders, as in their certificates; default: any that the authority has signed
	Socket      string   `yaml:"socket"`                       // unix stream socket to listen on for lines
	File        string   `yaml:"file"`                         // file that lines are appended to
	Datagrams   string   `yaml:"datagrams"`                    // unix datagram socket to listen on for Snort's alert_unixsock
	Spool       string   `yaml:"spool"`                        // Snort's unified2 files, without their .TIMESTAMP
	Unstated    string   `yaml:"unstated" enum:"alert,drop"`   // action of alerts that name none (datagrams, spool): alert (default) or drop
}

// AlertRule says what an alert does to the process that sent the packet. All that is
// given must match; nothing given matches every alert.
type AlertRule struct {
	Action   string  `yaml:"action" enum:"alert,drop,reject"`    // what the engine did with the packet
	SIDs     []int64 `yaml:"sids"`                               // rule numbers
	Class    string  `yaml:"class"`                              // as the engine writes it
	Priority int64   `yaml:"priority"`                           // this or a more urgent (lower) one
	Then     string  `yaml:"then" enum:"convict,suspect,ignore"` // convict (default), suspect or ignore
	Line     int     `yaml:"-"`
}

// Spared is who shall not be cut off or inspected by evidence of machines. All that is
// given must match.
type Spared struct {
	VM      string       `yaml:"vm"`
	Subnet  netip.Prefix `yaml:"subnet"`  // of the sender's address
	Process string       `yaml:"process"` // path of the executable
	Line    int          `yaml:"-"`
}

// VMRule makes a VM as a whole suspect or malicious.
type VMRule struct {
	When   string        `yaml:"when" schema:"required" enum:"convictions,spoofing,findings,reports"` // of processes of the VM; forged addresses; hidden or hooked things in it; reports about it or its processes
	Count  int           `yaml:"count"`                                                               // default 1
	Within time.Duration `yaml:"within"`                                                              // default 10m
	VM     string        `yaml:"vm"`                                                                  // default: each
	Then   string        `yaml:"then" schema:"required" enum:"inspect,isolate"`                       // the measure
	Line   int           `yaml:"-"`
}

// Failure says what happens when a part fails.
type Failure struct {
	Daemon        string `yaml:"daemon" enum:"closed,open"`               // new flows while the daemon is silent: closed (default) or open
	IDS           string `yaml:"ids" enum:"closed,open"`                  // check verdicts while the IDS is down: closed (default) or open
	Introspection string `yaml:"introspection" enum:"check,forward,drop"` // declared but failing: check (default), forward or drop
	NoOwner       string `yaml:"no-owner" enum:"check,forward,drop"`      // no process holds the port: check (default), forward or drop
}

// Decision bounds the decision.
type Decision struct {
	Deadline       time.Duration `yaml:"deadline"`        // for introspection; default 200ms
	AttributionAge time.Duration `yaml:"attribution-age"` // a port's owner is looked up anew after; default 2s
	HiddenSamples  int           `yaml:"hidden-samples"`  // that must agree; default 3
	Queues         int           `yaml:"queues"`          // punt queues; default 2
	QueueBase      int           `yaml:"queue-base"`      // first NFQUEUE number; default 5820
	HeldPerFlow    int           `yaml:"held-per-flow"`   // packets; default 4
	HeldPerVM      int           `yaml:"held-per-vm"`     // undecided flows; default 1024
	FlowsPerVM     int           `yaml:"flows-per-vm"`    // decided flows; default 65536
	Scan           time.Duration `yaml:"scan"`            // pause between sweeps over each VM; default 1s, 0 keeps the default
}

// Metrics configures the Prometheus endpoint; empty Listen means none.
type Metrics struct {
	Listen string `yaml:"listen"` // host:port
}

// Events configures the event log; empty File means none.
type Events struct {
	File    string `yaml:"file"`
	MaxSize int64  `yaml:"max-size"` // bytes before it is rotated to FILE.1; default 64 MiB
}
