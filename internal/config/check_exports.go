package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"holdfast/internal/export"
)

func (d *decoder) exports(exports []Export, key string) {
	for i := range exports {
		e, at := &exports[i], fmt.Sprintf("%s[%d]", key, i)
		if d.required(at + ".path") {
			d.exportPath(exports, i, key)
		}
		if !d.required(at+".clients") || d.bad[at+".clients"] {
			continue
		}
		if len(e.Clients) == 0 {
			d.failAt(at+".clients", `nobody could use the export; for everybody, write {match: "*", options: [ro]}`)
		}
		for j := range e.Clients {
			d.client(&e.Clients[j], fmt.Sprintf("%s.clients[%d]", at, j))
		}
	}
}

func (d *decoder) exportPath(exports []Export, i int, key string) {
	at := fmt.Sprintf("%s[%d].path", key, i)
	if d.bad[at] {
		return
	}
	if err := export.CheckPath(exports[i].Path); err != nil {
		d.failAt(at, "%s", err)
		return
	}
	if p := exports[i].Path; strings.ContainsRune(p, utf8.RuneError) || strings.ContainsFunc(p, unicode.IsControl) {
		d.failAt(at, "export path %q must be valid UTF-8 without control characters", p)
		return
	}
	for j := range i {
		other := fmt.Sprintf("%s[%d].path", key, j)
		if d.usable(other) && export.Overlap(exports[j].Path, exports[i].Path) {
			d.failAt(at, "%s overlaps %s (%s); an export must not contain another", exports[i].Path, exports[j].Path, d.where(other))
			return
		}
	}
}

func (d *decoder) client(c *Client, key string) {
	if d.required(key+".match") && !d.bad[key+".match"] {
		if _, err := export.ParseMatch(c.Match); err != nil {
			d.failAt(key+".match", "%s", err)
		}
	}
	for i, opt := range c.Options {
		at := fmt.Sprintf("%s.options[%d]", key, i)
		if d.bad[at] {
			continue
		}
		if _, err := export.ParseOptions([]string{opt}); err != nil {
			if meant := nearest(opt, export.OptionNames); meant != "" && errors.Is(err, export.ErrUnknownOption) {
				d.failAt(at, "unknown export option %q; did you mean %q?", opt, meant)
			} else {
				d.failAt(at, "%s", err)
			}
		}
	}
}
