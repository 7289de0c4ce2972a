// Package config reads the YAML file of "holdfast serve". Load and Parse return either a Config in which everything is valid and every
// default filled in, or Errors: all that is wrong with the file, each with its line, column, key and source line, and for a mistyped
// key the one that was meant.
//
// decode.go turns the syntax tree into the structs of config.go and remembers where each value came from; validate.go checks what
// the values mean, and blames the line that they came from.
package config
