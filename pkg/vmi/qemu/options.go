package qemu

import (
	"encoding/json"
	"strconv"
	"strings"
)

// options are the parts of one option's argument, such as
// "memory-backend-file,id=ram,size=1G": by key, the last one counting. What has
// no key is under implied if it is the first, and "on" under its own name else.
type options map[string]string

// parseOptions reads QEMU's notation, in which a comma in a value is written
// twice (util/keyval.c there), or its JSON, which libvirt prefers.
func parseOptions(argument, implied string) options {
	if strings.HasPrefix(argument, "{") {
		return jsonOptions(argument)
	}
	out := options{}
	for i, word := range splitComma(argument) {
		key, value, keyed := strings.Cut(word, "=")
		switch {
		case keyed:
			out[key] = value
		case i == 0 && implied != "":
			out[implied] = word
		default:
			out[word] = "on"
		}
	}
	return out
}

func jsonOptions(argument string) options {
	var values map[string]any
	d := json.NewDecoder(strings.NewReader(argument))
	d.UseNumber()
	if d.Decode(&values) != nil {
		return options{}
	}
	out := options{}
	for key, value := range values {
		switch v := value.(type) {
		case string:
			out[key] = v
		case json.Number:
			out[key] = v.String()
		case bool:
			out[key] = "off"
			if v {
				out[key] = "on"
			}
		}
	}
	return out
}

// splitComma splits at commas that stand alone.
func splitComma(s string) []string {
	var out []string
	var word strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != ',':
			word.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == ',':
			word.WriteByte(',')
			i++
		default:
			out = append(out, word.String())
			word.Reset()
		}
	}
	return append(out, word.String())
}

func (o options) is(key string, otherwise bool) bool {
	switch o[key] {
	case "on", "yes", "true", "y":
		return true
	case "":
		return otherwise
	}
	return false
}

// parseSize reads an amount of memory; without a unit it is in unit bytes. It is
// 0 where that makes no sense.
func parseSize(s string, unit uint64) uint64 {
	s = strings.TrimSuffix(strings.ToUpper(s), "B")
	for i, suffix := range []string{"K", "M", "G", "T"} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = digits, 1<<(10*(i+1))
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > 1<<46/unit {
		return 0
	}
	return n * unit
}
