package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is an amount of memory in bytes, written with its unit: 512M, 4G.
type Size uint64

// UnmarshalText parses a size.
func (s *Size) UnmarshalText(b []byte) error {
	for i, unit := range []string{"K", "M", "G", "T"} {
		digits, ok := strings.CutSuffix(string(b), unit)
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 32); err == nil && n > 0 {
			*s = Size(n << (10 * (i + 1)))
			return nil
		}
	}
	return fmt.Errorf("%q is no amount of memory: write 512M or 4G", b)
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String writes the size in the largest unit that it is a multiple of.
func (s Size) String() string {
	n, unit := uint64(s), -1
	for n > 0 && n%1024 == 0 && unit < 3 {
		n, unit = n/1024, unit+1
	}
	if unit < 0 {
		return strconv.FormatUint(n, 10)
	}
	return strconv.FormatUint(n, 10) + "KMGT"[unit:unit+1]
}

// Address is a physical address, written as 0x100000000.
type Address uint64

// UnmarshalText parses an address.
func (a *Address) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 0, 52)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is no physical address: write it as 0x100000000", b)
	}
	*a = Address(n)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (a Address) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%#x", uint64(a)), nil }
