package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

const reference = "../../docs/cli.md"

// TestReference_IsCurrent compares docs/cli.md with the code; go generate
// writes it anew.
func TestReference_IsCurrent(t *testing.T) {
	want := markdown(newApp(nil, nil, nil))
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/cli.md is not what the code says (-code +page): run \"go generate ./cmd/gatewayd\"\n%s", diff)
	}
}

// markdown writes the page ourselves: the library's own generator knows neither
// arguments nor exit codes.
func markdown(app *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- Generated from cmd/gatewayd by \"go generate ./cmd/gatewayd\": do not edit. -->\n\n# gatewayd\n\n%s\n", app.Description)
	flags(&b, app.Flags)
	b.WriteString("\n## Exit codes\n\n| code | meaning |\n|---|---|\n")
	for code, meaning := range exitMeanings {
		fmt.Fprintf(&b, "| %d | %s |\n", code, meaning)
	}
	b.WriteString("\n## Verbs\n\n| verb | what it does |\n|---|---|\n")
	for _, c := range app.Commands {
		fmt.Fprintf(&b, "| [%s](#gatewayd-%s) | %s |\n", c.Name, c.Name, cell(c.Usage))
	}
	for _, c := range app.Commands {
		verb(&b, "gatewayd", c)
	}
	return b.String()
}

func verb(b *strings.Builder, parent string, c *cli.Command) {
	name := parent + " " + c.Name
	fmt.Fprintf(b, "\n%s %s\n\n%s.\n", strings.Repeat("#", 1+len(strings.Fields(name))), name, capital(c.Usage))
	if len(c.Subcommands) == 0 {
		fmt.Fprintf(b, "\n    %s\n", strings.TrimSpace(name+" "+optional(c.Flags)+c.ArgsUsage))
	}
	if c.Description != "" {
		fmt.Fprintf(b, "\n%s\n", c.Description)
	}
	flags(b, c.Flags)
	for _, sub := range c.Subcommands {
		verb(b, name, sub)
	}
}

func optional(flags []cli.Flag) string {
	if len(flags) == 0 {
		return ""
	}
	return "[options] "
}

func flags(b *strings.Builder, all []cli.Flag) {
	if len(all) == 0 {
		return
	}
	b.WriteString("\n| option | meaning | default |\n|---|---|---|\n")
	for _, f := range all {
		doc := f.(cli.DocGenerationFlag)
		value, usage := placeholder(doc)
		var names []string
		for _, name := range f.Names() {
			names = append(names, "`"+strings.TrimSpace(dashes(name)+" "+value)+"`")
		}
		for _, env := range doc.GetEnvVars() {
			usage += " (environment: `" + env + "`)"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", strings.Join(names, ", "), cell(usage), cell(initial(doc)))
	}
}

// placeholder takes the name of the value, which is quoted in the usage, out of it.
func placeholder(f cli.DocGenerationFlag) (value, usage string) {
	usage = f.GetUsage()
	if !f.TakesValue() {
		return "", usage
	}
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		value, after, _ := strings.Cut(rest, "`")
		return value, before + value + after
	}
	return "VALUE", usage
}

// initial is the default of a flag that has one worth telling.
func initial(f cli.DocGenerationFlag) string {
	if !f.TakesValue() {
		return ""
	}
	return strings.Trim(f.GetDefaultText(), `"`)
}

func dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
