package config

// Memory says where a VM's memory can be read: exactly one of file, process,
// monitor, ivshmem, nvdimm and inspector is given. docs/memory-sources.md tells
// what each takes.
type Memory struct {
	File      string    `yaml:"file"`                  // shared memory-backend file of QEMU
	Process   Process   `yaml:"process"`               // a QEMU on this machine, whose memory file or own memory is read
	Monitor   Monitor   `yaml:"monitor"`               // a QEMU that writes its memory out on demand: slow
	Ivshmem   Ivshmem   `yaml:"ivshmem"`               // the gateway is a VM itself, and has the memory as a PCI device
	NVDIMM    NVDIMM    `yaml:"nvdimm"`                // the gateway is a VM itself, and has the memory as an NVDIMM
	Inspector Inspector `yaml:"inspector"`             // gatewayd inspector on the VM's host looks into it
	BTF       string    `yaml:"btf"`                   // file with the guest kernel's type information, for one that has none in its memory
	SystemMap string    `yaml:"system-map"`            // the guest kernel's System.map, for one whose symbols cannot be found
	Machine   string    `yaml:"machine" enum:"q35,pc"` // q35 (default) or pc: where RAM is split below 4 GiB; only with file, ivshmem and nvdimm, the others know it
}

// Process names a QEMU on this machine.
type Process struct {
	Name    string `yaml:"name"`     // of QEMU's -name
	PIDFile string `yaml:"pid-file"` // of QEMU's -pidfile; one of the two
	Monitor string `yaml:"monitor"`  // socket of QEMU's -qmp, which is asked where RAM is; without, the command line is believed
}

// Monitor names a QEMU by a monitor of it.
type Monitor struct {
	Socket string `yaml:"socket" schema:"required"` // of QEMU's -qmp unix:…
}

// Ivshmem is a device of QEMU's ivshmem-plain.
type Ivshmem struct {
	Size   Size   `yaml:"size" schema:"required"` // of the VM's RAM, such as 512M: a power of two
	Device string `yaml:"device"`                 // PCI address such as 0000:00:05.0; default: the only one of the size
}

// NVDIMM is persistent memory of this machine.
type NVDIMM struct {
	Size    Size    `yaml:"size" schema:"required"` // of the VM's RAM, such as 384M
	Address Address `yaml:"address"`                // physical, such as 0x100000000; default: the only one of the size
}

// Inspector is a gatewayd inspector, and how to prove to each other who one is.
type Inspector struct {
	Address     string `yaml:"address" schema:"required"`     // host:port; the host is what its certificate is for
	VM          string `yaml:"vm" schema:"required"`          // what the inspector calls it: the name of QEMU's -name
	Certificate string `yaml:"certificate" schema:"required"` // PEM file of the gateway's certificate, relative to this file
	Key         string `yaml:"key" schema:"required"`         // PEM file of its key
	CA          string `yaml:"ca" schema:"required"`          // PEM file of who signed the inspector's certificate
}
