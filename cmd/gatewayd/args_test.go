package main

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestInterspersed(t *testing.T) {
	app := newApp(nil, nil, nil)
	for given, want := range map[string]string{
		"":                               "",
		"gatewayd":                       "gatewayd",
		"gatewayd ps app1 -o json":       "gatewayd -o json ps app1",
		"gatewayd ps app1 --output=json": "gatewayd --output=json ps app1",
		"gatewayd verdicts set a tcp 80 drop --for 5m -o json": "gatewayd -o json verdicts set --for 5m a tcp 80 drop",
		"gatewayd isolate --pid 5 app1":                        "gatewayd isolate --pid 5 app1",
		"gatewayd isolate app1 --pid":                          "gatewayd isolate --pid app1",
		"gatewayd introspect ps --memory f":                    "gatewayd introspect --memory f ps",
		"gatewayd ps ps":                                       "gatewayd ps ps",
		"gatewayd lists show --list suspect":                   "gatewayd lists show --list suspect",
		"gatewayd ps app1 --nonsense x":                        "gatewayd ps --nonsense app1 x",
		"gatewayd ps -- -o json":                               "gatewayd ps -- -o json",
		"gatewayd ps app1 -- -o":                               "gatewayd ps app1 -- -o",
		"gatewayd policy apply -":                              "gatewayd policy apply -",
		"gatewayd validate f --host":                           "gatewayd validate --host f",
		"gatewayd validate --host f":                           "gatewayd validate --host f",
		"gatewayd ps --generate-bash-completion":               "gatewayd ps --generate-bash-completion",
	} {
		if got := strings.Join(interspersed(app, strings.Fields(given)), " "); got != want {
			t.Errorf("%q becomes %q, want %q", given, got, want)
		}
	}
}

// Words are moved, never lost, added or changed.
func TestInterspersed_KeepsAllWords(t *testing.T) {
	app := newApp(nil, nil, nil)
	words := []string{"ps", "verdicts", "set", "app1", "-o", "json", "--for", "--for=1m", "--pid", "--", "-", "-x", "--host", "lists", "add"}
	rapid.Check(t, func(t *rapid.T) {
		given := append([]string{"gatewayd"}, rapid.SliceOf(rapid.SampledFrom(words)).Draw(t, "words")...)
		got := interspersed(app, given)
		if slices.Sort(given); !slices.Equal(given, slices.Sorted(slices.Values(got))) {
			t.Fatalf("%q has become %q", given, got)
		}
	})
}
