// Package config holds what people decide about a cluster and how they write it down.
//
//   - Spec is the declarative part of the cluster's state: volumes with their exports, and attributes of nodes. It is YAML in files
//     (ParseSpec, Spec.YAML) and JSON in the state and the API; Diff says what one Spec would change of another, and what of that hurts.
//   - Local is a node's own file: where it stores, where it listens, its limits and messages.
//   - Timing is how fast failures are noticed, chosen once when a cluster is made.
//
// What is wrong is returned as Errors: all of it at once, each with its line, column, key and source line, and for a mistyped key or word the
// one that was meant. Values that are in no file (Validate, CheckAgainst) have keys only; Locate adds the lines if there is a file after all.
//
// decode.go turns a syntax tree into structs and remembers where each value came from; check.go, check_exports.go and spec_check.go check what
// the values mean, and blame the line that they came from.
package config
