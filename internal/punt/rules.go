package punt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// ourMarks covers all mark classes of the gateway, 0xa1 to 0xa6.
const (
	ourMarks     = 0xa0000000
	ourMarksMask = 0xf0000000
)

// beforeDefrag is a priority in front of the kernel's defragmentation (-400): a
// packet that is not tracked is not reassembled either, and is held, inspected
// and sent on in the fragments it came in.
const beforeDefrag = nftables.ChainPriority(-450)

// rules are the package's nftables tables, one for each IP version. In each, the
// chain "forward" gives punted packets to a target and touches nothing else, and
// the chain "prerouting" keeps connection tracking off our packets, of which it
// would see half.
type rules struct {
	name     string
	mark     uint32
	markMask uint32

	mu      sync.Mutex
	conn    *nftables.Conn
	removed bool
}

func openRules(cfg Config) (*rules, error) {
	conn, err := nftables.New(nftables.AsLasting()) // lasting: it keeps the namespace
	if err != nil {
		return nil, fmt.Errorf("cannot open nftables: %w: the kernel needs CONFIG_NF_TABLES (modprobe nf_tables)", err)
	}
	return &rules{conn: conn, name: cfg.Table, mark: cfg.Mark, markMask: cfg.MarkMask}, nil
}

// install replaces the tables, in one transaction.
func (r *rules) install(target expr.Any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.replace(target)
}

// restore puts the tables back if they are not whole, and tells whether it did:
// whoever flushes a machine's firewall takes them with it.
func (r *rules) restore(target expr.Any) (restored bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.removed || r.whole() {
		return false, nil
	}
	return true, r.replace(target)
}

// whole says whether every chain has its rule.
func (r *rules) whole() bool {
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		table := &nftables.Table{Name: r.name, Family: family}
		for _, chain := range []string{"prerouting", "forward"} {
			found, err := r.conn.GetRules(table, &nftables.Chain{Name: chain, Table: table})
			if err != nil || len(found) == 0 {
				return false
			}
		}
	}
	return true
}

func (r *rules) replace(target expr.Any) error {
	r.delete()
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		table := r.conn.AddTable(&nftables.Table{Name: r.name, Family: family})
		r.addChain(table, "prerouting", nftables.ChainHookPrerouting, beforeDefrag,
			markIs(ourMarks, ourMarksMask, &expr.Notrack{}))
		r.addChain(table, "forward", nftables.ChainHookForward, *nftables.ChainPriorityFilter,
			markIs(r.mark, r.markMask, target))
	}
	if err := r.conn.Flush(); err != nil {
		return explainRules(err)
	}
	return nil
}

// remove removes the tables and closes the connection.
func (r *rules) remove() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed = true
	r.delete()
	err := r.conn.Flush()
	if err != nil {
		err = fmt.Errorf("cannot remove the nftables tables ip %s and ip6 %s: %w", r.name, r.name, err)
	}
	return errors.Join(err, r.conn.CloseLasting())
}

// delete deletes the tables whether they are there or not: one that is added
// first can always be deleted.
func (r *rules) delete() {
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		table := &nftables.Table{Name: r.name, Family: family}
		r.conn.AddTable(table)
		r.conn.DelTable(table)
	}
}

func (r *rules) addChain(table *nftables.Table, name string, hook *nftables.ChainHook, priority nftables.ChainPriority, exprs []expr.Any) {
	accept := nftables.ChainPolicyAccept
	chain := r.conn.AddChain(&nftables.Chain{
		Name: name, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: &priority, Policy: &accept,
	})
	r.conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
}

// markIs is "meta mark & mask == mark", then target.
func markIs(mark, mask uint32, target expr.Any) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(mark)},
		target,
	}
}

func dropTarget() expr.Any { return &expr.Verdict{Kind: expr.VerdictDrop} }

// queueTarget is the NFQUEUE target of xtables: nftables' own queue statement is
// missing in many kernels. Its settings are struct xt_NFQ_info_v3
// (linux/netfilter/xt_NFQUEUE.h): first queue, number of queues, flags, each 16
// bits in host order, padded to 8 bytes. No flags: without a listener the packet
// is dropped, and the queue is chosen by a hash of the address pair, the same for
// both directions, so that a flow and its fragments stay in one queue and in order.
func queueTarget(cfg Config) expr.Any {
	info := make(xt.Unknown, 8)
	binary.NativeEndian.PutUint16(info[0:], uint16(cfg.Base))
	binary.NativeEndian.PutUint16(info[2:], uint16(cfg.Queues))
	return &expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}
}

func explainRules(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("cannot install the punt rules: %w: the daemon needs CAP_NET_ADMIN", err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("cannot install the punt rules: %w: the kernel needs nf_tables for ip and ip6, nft_compat, nft_ct and the NFQUEUE target (modprobe -a nf_tables nft_compat nft_ct xt_NFQUEUE nfnetlink_queue)", err)
	default:
		return fmt.Errorf("cannot install the punt rules: %w", err)
	}
}
