package config

// InspectorConfig is the whole configuration file of gatewayd inspector.
type InspectorConfig struct {
	Listen        string            `yaml:"listen" schema:"required"`                    // host:port, or :port for all addresses
	Certificate   string            `yaml:"certificate" schema:"required"`               // PEM file, relative to this file; read anew for each connection
	Key           string            `yaml:"key" schema:"required"`                       // PEM file
	ClientCA      string            `yaml:"client-ca" schema:"required"`                 // PEM file of who signs gateways' certificates
	Clients       []InspectorClient `yaml:"clients"`                                     // gateways, and what each may look into; nobody else may connect
	Users         []string          `yaml:"users"`                                       // whose QEMUs are believed to be what they call themselves; default [root, libvirt-qemu, qemu]
	Ways          []string          `yaml:"ways" enum:"descriptor,file,process,monitor"` // to memory that may be used, the best first; default [descriptor, file, process]
	HiddenSamples int               `yaml:"hidden-samples"`                              // that must agree; default 3

	src *source
}

// InspectorClient is a gateway.
type InspectorClient struct {
	Name string   `yaml:"name" schema:"required"` // DNS name in its certificate
	VMs  []string `yaml:"vms" schema:"required"`  // by the names of QEMU's -name
	Line int      `yaml:"-"`
}
