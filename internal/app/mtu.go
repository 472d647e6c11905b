package app

import (
	"github.com/vishvananda/netlink"

	"github.com/vmgate/vmgate/internal/config"
)

// resolveMTU fills in the default of ids.mtu: the largest MTU of the vNICs that
// are there, since a frame that does not fit the IDS ports vanishes silently.
func resolveMTU(cfg *config.Config) {
	if !runsEngine(cfg) || cfg.IDS.MTU != 0 {
		return
	}
	const ethernet = 1500
	cfg.IDS.MTU = ethernet
	for _, s := range cfg.Segments {
		if link, err := netlink.LinkByName(s.VNIC); err == nil {
			cfg.IDS.MTU = max(cfg.IDS.MTU, link.Attrs().MTU)
		}
	}
}
