// Package tap writes the Test Anything Protocol. It stands in for a package that the OCI validation suite imports and Debian does not
// ship, with the part of its interface that the suite calls.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T is one stream of test results.
type T struct {
	Writer io.Writer
	count  *int
	todo   bool
}

// New returns a stream that writes to standard output.
func New() *T { return &T{Writer: os.Stdout, count: new(int)} }

// Todo returns the same stream for results that are expected to fail.
func (t *T) Todo() *T { return &T{Writer: t.Writer, count: t.count, todo: true} }

// Header writes the version line, and the plan if planned is more than zero.
func (t *T) Header(planned int) {
	fmt.Fprintln(t.Writer, "TAP version 13")
	if planned > 0 {
		fmt.Fprintf(t.Writer, "1..%d\n", planned)
	}
}

// Ok writes one result.
func (t *T) Ok(passed bool, description string) {
	*t.count++
	word, mark := "ok", "-"
	if !passed {
		word = "not ok"
	}
	if t.todo {
		mark = "# TODO"
	}
	fmt.Fprintf(t.Writer, "%s %d %s %s\n", word, *t.count, mark, strings.ReplaceAll(description, "\n", " "))
}

// Pass writes a result that passed.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail writes a result that did not.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip writes count results that were not looked for.
func (t *T) Skip(count int, description string) {
	for ; count > 0; count-- {
		*t.count++
		fmt.Fprintf(t.Writer, "ok %d # SKIP %s\n", *t.count, strings.ReplaceAll(description, "\n", " "))
	}
}

// AutoPlan writes the plan for what has been written.
func (t *T) AutoPlan() { fmt.Fprintf(t.Writer, "1..%d\n", *t.count) }

// Diagnostic writes a comment.
func (t *T) Diagnostic(message string) {
	for _, line := range strings.Split(strings.TrimRight(message, "\n"), "\n") {
		fmt.Fprintln(t.Writer, "# "+line)
	}
}

// Diagnosticf writes a comment by format.
func (t *T) Diagnosticf(format string, values ...interface{}) { t.Diagnostic(fmt.Sprintf(format, values...)) }

// YAML writes a value below the last result: JSON, which is YAML.
func (t *T) YAML(value interface{}) error {
	text, err := json.MarshalIndent(value, "  ", "  ")
	if err != nil {
		return err
	}
	fmt.Fprintf(t.Writer, "  ---\n  %s\n  ...\n", text)
	return nil
}
