package export

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"holdfast/internal/volume"
)

// anonymousID is the user and group of squashed callers unless an export names others: nobody, as with exports(5).
const anonymousID = 65534

// Export is one exported folder as the configuration has it.
type Export struct {
	Path    string // absolute and clean
	Clients []Client
	// UID, GID and Mode are those of the folder when the volume first makes it; later they are what clients set.
	UID, GID, Mode uint32
}

// Client is one entry of an export's client list.
type Client struct {
	Match   Match
	Options Options
}

// Options are what the clients of an entry may do, and as whom. The zero value is not useful: see DefaultOptions.
type Options struct {
	ReadOnly         bool
	Squash           volume.SquashMode
	AnonUID, AnonGID uint32
	// NoAuth is sec=none: what callers say about who they are is ignored, and all of them are the anonymous user.
	NoAuth bool
}

// DefaultOptions are those of exports(5): read-only, root squashed to nobody.
func DefaultOptions() Options {
	return Options{ReadOnly: true, Squash: volume.SquashRoot, AnonUID: anonymousID, AnonGID: anonymousID}
}

// ErrUnknownOption is returned by ParseOptions for a word that is no export option at all.
var ErrUnknownOption = errors.New("unknown export option")

// OptionNames lists every option that ParseOptions knows, for messages that propose one.
var OptionNames = []string{
	"ro", "rw", "root_squash", "no_root_squash", "all_squash", "anonuid=N", "anongid=N", "sec=sys", "sec=none",
	"sync", "no_subtree_check", "insecure",
}

// ParseOptions parses export options as exports(5) spells them. Later ones override earlier ones. sync, no_subtree_check and insecure are
// accepted because every export behaves so.
func ParseOptions(options []string) (Options, error) {
	o := DefaultOptions()
	var errs []error
	for _, opt := range options {
		if err := o.set(opt); err != nil {
			errs = append(errs, err)
		}
	}
	return o, errors.Join(errs...)
}

func (o *Options) set(opt string) error {
	name, value, _ := strings.Cut(opt, "=")
	switch name {
	case "anonuid":
		return parseID(opt, value, &o.AnonUID)
	case "anongid":
		return parseID(opt, value, &o.AnonGID)
	}
	switch opt {
	case "ro":
		o.ReadOnly = true
	case "rw":
		o.ReadOnly = false
	case "root_squash":
		o.Squash = volume.SquashRoot
	case "no_root_squash":
		o.Squash = volume.SquashNone
	case "all_squash":
		o.Squash = volume.SquashAll
	case "sec=sys":
		o.NoAuth = false
	case "sec=none":
		o.NoAuth = true
	case "sync", "no_subtree_check", "insecure":
	case "async":
		return errors.New("async: every write is on a majority of disks before it is answered; leave the option out")
	case "sec=krb5", "sec=krb5i", "sec=krb5p":
		return fmt.Errorf("%s: Kerberos is not supported; use sec=sys", opt)
	default:
		return fmt.Errorf("%w %q; known are %s", ErrUnknownOption, opt, strings.Join(OptionNames, ", "))
	}
	return nil
}

func parseID(opt, value string, id *uint32) error {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return fmt.Errorf("%s: want a number from 0 to 4294967295 after the equals sign", opt)
	}
	*id = uint32(n)
	return nil
}

// Strings returns o as ParseOptions reads it; defaults of identities are left out.
func (o Options) Strings() []string {
	s := []string{"rw"}
	if o.ReadOnly {
		s[0] = "ro"
	}
	s = append(s, [...]string{volume.SquashRoot: "root_squash", volume.SquashNone: "no_root_squash", volume.SquashAll: "all_squash"}[o.Squash])
	if o.AnonUID != anonymousID {
		s = append(s, fmt.Sprintf("anonuid=%d", o.AnonUID))
	}
	if o.AnonGID != anonymousID {
		s = append(s, fmt.Sprintf("anongid=%d", o.AnonGID))
	}
	if o.NoAuth {
		s = append(s, "sec=none")
	}
	return s
}

// rule returns what o means for an export.
func (o Options) rule(export uint32) volume.Rule {
	r := volume.Rule{Export: export, ReadOnly: o.ReadOnly, Squash: o.Squash, AnonUID: o.AnonUID, AnonGID: o.AnonGID}
	if o.NoAuth {
		r.Squash = volume.SquashAll
	}
	return r
}

// String returns c as ParseClient reads it.
func (c Client) String() string {
	return c.Match.String() + "(" + strings.Join(c.Options.Strings(), ",") + ")"
}

// maxPathBytes is what an NFSv3 client can mount (MNTPATHLEN, RFC 1813 section 5.1.4).
const maxPathBytes = 1024

// CheckPath reports why p cannot be the path of an export, or nil.
func CheckPath(p string) error {
	switch {
	case !path.IsAbs(p):
		return fmt.Errorf("export path %q must begin with a slash", p)
	case path.Clean(p) != p:
		return fmt.Errorf("export path %q must be written as %q", p, path.Clean(p))
	case len(p) > maxPathBytes:
		return fmt.Errorf("export path of %d bytes: NFSv3 clients can mount at most %d", len(p), maxPathBytes)
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("export path %q contains a NUL", p)
	}
	for _, name := range strings.Split(p, "/") {
		if len(name) > volume.MaxNameBytes {
			return fmt.Errorf("export path has a component of %d bytes; at most %d are allowed", len(name), volume.MaxNameBytes)
		}
	}
	return nil
}

// Overlap reports whether one of two export paths is the other or lies within it. Such exports are refused: a client could reach the
// inner one through the outer with the outer's rules.
func Overlap(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	rest, inside := strings.CutPrefix(b, strings.TrimSuffix(a, "/"))
	return inside && (rest == "" || rest[0] == '/')
}

// Check reports why exports cannot be served together, or nil.
func Check(exports []Export) error {
	var errs []error
	for i, e := range exports {
		if err := CheckPath(e.Path); err != nil {
			errs = append(errs, err)
			continue
		}
		at := slices.IndexFunc(exports[:i], func(o Export) bool { return Overlap(o.Path, e.Path) })
		if at >= 0 {
			errs = append(errs, fmt.Errorf("export %s overlaps export %s", e.Path, exports[at].Path))
		}
	}
	return errors.Join(errs...)
}
