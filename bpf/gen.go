package bpf

// The bindings are committed, so that building needs no clang. Debian keeps
// <asm/types.h> in a directory of the host's architecture.
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package bpf -output-stem vmgate -type verdict -type cause -type reason -type port_kind -type port_flag -type vm_flag -type ids_state -type mode -type event_type -type mark -type dhcp_event Vmgate gateway.c -- -O2 -g -Wall -Wextra -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
