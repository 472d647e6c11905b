package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/vmgate/vmgate/internal/config"
)

func TestSchema_CommittedFileIsCurrent(t *testing.T) {
	committed, err := os.ReadFile("../../docs/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, config.Schema()) {
		t.Error("docs/schema.json is old: run go generate ./internal/config")
	}
}

func TestSchema_AcceptsTheExample(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	if err := validateBySchema(t, text); err != nil {
		t.Error(err)
	}
}

func TestSchema_AcceptsAnEmptyFileAndEmptySections(t *testing.T) {
	for _, text := range []string{"", "vms:\npolicy:\n  rules:\nlists: {suspect: }\n"} {
		if err := validateBySchema(t, []byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := config.Parse("g.yaml", []byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestSchema_RefusesWhatItCan: mistakes of spelling and shape are seen by the
// schema, too; references and uniqueness are beyond it.
func TestSchema_RefusesWhatItCan(t *testing.T) {
	for _, name := range []string{"unknown-keys", "segments", "scalars", "shapes", "bounds", "policy", "scalar-file", "selector-without-value"} {
		text, err := os.ReadFile(filepath.Join("testdata/bad", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if validateBySchema(t, text) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestSchema_ListsTheValuesThatParseKnows: each value of each enum is accepted.
func TestSchema_ListsTheValuesThatParseKnows(t *testing.T) {
	frame := `
segments: [{name: s, vnic: v, mode: bridged, kind: internal, datapath: auto, multicast: drop}]
vms: [{id: a, segment: s, macs: ["52:54:00:00:00:01"], addresses: {learn: true}, memory: {file: /m, machine: q35}}]
policy: {default: deny, rules: [{name: r, action: allow}]}
`
	const external = "ids: {engine: external, ports: {in: a, out: b}, alerts: {file: /f, format: eve, unstated: drop}}"
	for _, test := range []struct{ path, text string }{
		{"enforcement", "enforcement: %"},
		{"failure.daemon", "failure: {daemon: %}"},
		{"failure.ids", "failure: {ids: %}"},
		{"failure.introspection", "failure: {introspection: %}"},
		{"failure.no-owner", "failure: {no-owner: %}"},
		{"ids.engine", "ids: {engine: %}"},
		{"ids.alerts.format", strings.Replace(external, "format: eve", "format: %", 1)},
		{"ids.alerts.unstated", strings.Replace(external, "unstated: drop", "unstated: %", 1)},
		{"ids.convict.action", "ids: {convict: [{action: %}]}"},
		{"ids.convict.then", "ids: {convict: [{then: %}]}"},
		{"vm-rules.when", "vm-rules: [{when: %, then: inspect}]"},
		{"vm-rules.then", "vm-rules: [{when: reports, then: %}]"},
		{"segments.mode", strings.Replace(frame, "mode: bridged", "mode: %", 1)},
		{"segments.kind", strings.Replace(frame, "kind: internal", "kind: %", 1)},
		{"segments.multicast", strings.Replace(frame, "multicast: drop", "multicast: %", 1)},
		{"segments.datapath", strings.Replace(frame, "datapath: auto", "datapath: %", 1)},
		{"vms.memory.machine", strings.Replace(frame, "machine: q35", "machine: %", 1)},
		{"policy.default", strings.Replace(frame, "default: deny", "default: %", 1)},
		{"policy.rules.action", strings.Replace(frame, "action: allow", "action: %", 1)},
	} {
		values := enumAt(t, strings.Split(test.path, "."))
		for _, value := range values {
			if value == config.EngineExternal {
				continue // which needs more than its name
			}
			if _, err := config.Parse("g.yaml", []byte(strings.Replace(test.text, "%", value, 1))); err != nil {
				t.Errorf("%s: %v", test.path, err)
			}
		}
		if len(values) == 0 {
			t.Errorf("%s: no values in the schema", test.path)
		}
	}
}

// enumAt returns the values that the schema lists for a key.
func enumAt(t *testing.T, keys []string) []string {
	t.Helper()
	var at struct {
		Properties map[string]json.RawMessage
		Items      json.RawMessage
		OneOf      []json.RawMessage
		Enum       []string
	}
	raw := json.RawMessage(config.Schema())
	for i := 0; ; i++ {
		at.Properties, at.Items, at.OneOf, at.Enum = nil, nil, nil, nil
		if err := json.Unmarshal(raw, &at); err != nil {
			t.Fatal(err)
		}
		switch {
		case at.Items != nil:
			raw, i = at.Items, i-1
		case at.OneOf != nil:
			raw, i = at.OneOf[1], i-1
		case i == len(keys):
			return at.Enum
		default:
			raw = at.Properties[keys[i]]
		}
	}
}

func validateBySchema(t *testing.T, text []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes.TrimSpace(asJSON)) == 0 {
		asJSON = []byte("null")
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(instance)
}
