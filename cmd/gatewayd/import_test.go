package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vmgate/vmgate/internal/api"
)

func TestParseEntries_CSVAndJSONSayTheSame(t *testing.T) {
	want := []api.ListEntry{
		{List: "suspect", Name: "nc", VM: "app1", Reason: "CVE-1, \"old\""},
		{List: "malicious", Path: "/bin/x", Fingerprint: "00ff"},
	}
	for name, text := range map[string]string{
		"csv":              "name,path,fingerprint,vm,list,reason\nnc,,,app1,suspect,\"CVE-1, \"\"old\"\"\"\n,/bin/x,00ff,,malicious,\n",
		"csv of a PC":      "\uFEFFlist,vm,name,reason,fingerprint,path\r\nsuspect,app1,nc,\"CVE-1, \"\"old\"\"\",,\r\nmalicious,,,,00ff,/bin/x\r\n",
		"json":             `[{"list":"suspect","name":"nc","vm":"app1","reason":"CVE-1, \"old\""},{"list":"malicious","path":"/bin/x","fingerprint":"00ff"}]`,
		"json, with space": "\n [ {\"list\":\"suspect\",\"name\":\"nc\",\"vm\":\"app1\",\"reason\":\"CVE-1, \\\"old\\\"\"},\n{\"list\":\"malicious\",\"path\":\"/bin/x\",\"fingerprint\":\"00ff\"} ] \n",
	} {
		got, err := parseEntries([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestParseEntries_IsBounded(t *testing.T) {
	row := "suspect,nc\n"
	if got, err := parseEntries([]byte("list,name\n" + strings.Repeat(row, maxEntries))); err != nil || len(got) != maxEntries {
		t.Errorf("%d entries, %v", len(got), err)
	}
	_, err := parseEntries([]byte("list,name\n" + strings.Repeat(row, maxEntries+1)))
	if err == nil || !strings.Contains(err.Error(), "line 10002: more than 10000 entries") {
		t.Errorf("one too many: %v", err)
	}
}

// FuzzParseEntries: what is accepted is what the daemon would accept, and there
// is no third outcome.
func FuzzParseEntries(f *testing.F) {
	f.Add("list,name\nsuspect,nc\n")
	f.Add("name,path,fingerprint,vm,list,reason\n\"a\nb\",,,,malicious,\n")
	f.Add(`[{"list":"suspect","name":"nc"}]`)
	f.Add(`[{"list":"suspect","name":"nc"}`)
	f.Add(`{"list":"suspect"}`)
	f.Add("\uFEFF")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := parseEntries([]byte(text))
		if (err == nil) == (len(entries) == 0) {
			t.Fatalf("%d entries and error %v", len(entries), err)
		}
		for _, e := range entries {
			if err := e.Check(); err != nil {
				t.Errorf("accepted %+v: %v", e, err)
			}
		}
	})
}
