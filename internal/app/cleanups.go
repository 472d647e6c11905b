package app

import "errors"

// cleanups undo what was opened, last first.
type cleanups struct{ steps []func() error }

func (c *cleanups) add(step func() error) { c.steps = append(c.steps, step) }

// run runs all steps, also after one has failed.
func (c *cleanups) run() error {
	var errs []error
	for i := len(c.steps) - 1; i >= 0; i-- {
		errs = append(errs, c.steps[i]())
	}
	return errors.Join(errs...)
}
