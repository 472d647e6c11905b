package remote

import (
	"net/http"
	"net/url"
	"strings"
)

// splitPath takes an escaped path /v1/VM/METHOD apart.
func splitPath(verb, path string) (vm, method string, ok bool) {
	rest, versioned := strings.CutPrefix(path, "/v1/")
	vm, method, parted := strings.Cut(rest, "/")
	vm, err := url.PathUnescape(vm)
	return vm, method, versioned && parted && verb == http.MethodPost && err == nil && vm != "" && method != "" && !strings.Contains(method, "/")
}
