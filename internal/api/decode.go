package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// decodeStrict decodes exactly one JSON value; fields that v does not have and
// anything after the value are refused, so that a misspelt option is never
// taken for one that was left out.
func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: something follows the JSON value", errMalformed)
	}
	return nil
}
