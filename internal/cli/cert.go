package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/identity"
)

const defaultCertLifetime = 30 * 24 * time.Hour

func newCert(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Make and revoke certificates for administrators elsewhere",
		Long: `On a node, root may do everything. From elsewhere, a certificate of the cluster says who may: with it, any command works against any node
(` + "`holdfast --node a.example.com --cert admin.pem status`" + `). Nodes have certificates of their own, and renew them by themselves.

Exit code: 2 without a subcommand.`,
		Example: "  holdfast cert create alice --out alice.pem\n  holdfast cert revoke 1f2e3d",
	}
	cmd.AddCommand(newCertCreate(o), newCertRevoke(o))
	return cmd
}

func newCertCreate(o *options) *cobra.Command {
	var lifetime time.Duration
	var file string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a certificate for an administrator",
		Long: `Make a key and have the cluster sign a certificate for it; print both with the cluster's authority, in the PEM format, as one file for --cert. The key is made here and does
not leave this machine other than in what is printed. NAME is what events call its bearer.

Exit code: 0 when the certificate is made, 1 otherwise.`,
		Example: `  holdfast cert create alice --out alice.pem
  holdfast cert create ci --lifetime 24h > ci.pem
  holdfast --node a.example.com --cert alice.pem status`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" && !o.json() && isTerminal(o.out) {
				return usagef("the key would be shown on the terminal: send it to a file, with --out FILE")
			}
			if file != "" && fileExists(file) {
				return fmt.Errorf("%s is there already: name another file, or remove it", file)
			}
			key, err := identity.NewKey()
			if err != nil {
				return err
			}
			request, err := identity.NewRequest(key, args[0])
			if err != nil {
				return err
			}
			res, err := ask(cmd, o, func(ctx context.Context, c *api.Client) (api.CertificateResult, error) {
				return c.AdminCertificate(ctx, api.CertificateRequest{Name: args[0], Lifetime: lifetime, Request: string(request)})
			})
			if err != nil {
				return err
			}
			keyPEM, err := identity.MarshalKey(key)
			if err != nil {
				return err
			}
			bundle := res.Certificate + string(keyPEM) + res.CA
			if _, err := parseAdmin([]byte(bundle)); err != nil {
				return fmt.Errorf("the certificate that the cluster made cannot be used: %w", err)
			}
			return o.giveCert(file, bundle, &res)
		},
	}
	spanVar(cmd.Flags(), &lifetime, "lifetime", defaultCertLifetime, time.Minute, 5*longest, "how long it is valid")
	cmd.Flags().StringVar(&file, "out", "", "`file` to write it to, which only you can read (default: standard output)")
	return cmd
}

// giveCert prints a certificate, or makes a file of it.
func (o *options) giveCert(file, bundle string, res *api.CertificateResult) error {
	if file != "" {
		if err := writeSecret(file, bundle); err != nil {
			return err
		}
	}
	if o.json() {
		out := struct {
			Serial  string    `json:"serial"`
			Expires time.Time `json:"expires"`
			Bundle  string    `json:"bundle,omitempty"`
		}{Serial: res.Serial, Expires: res.Expires}
		if file == "" {
			out.Bundle = bundle
		}
		return o.printJSON(out)
	}
	if file == "" {
		if _, err := fmt.Fprint(o.out, bundle); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	fmt.Fprintf(o.errOut, "certificate %s, valid until %s; to revoke it: holdfast cert revoke %s\n", res.Serial, timeText(res.Expires), res.Serial)
	return nil
}

// writeSecret makes a file that only its owner can read. One that is there is left alone.
func writeSecret(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the certificate: %w", err)
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the certificate: %w", err), os.Remove(name))
	}
	return nil
}

func newCertRevoke(o *options) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "revoke SERIAL",
		Short: "Refuse a certificate from now on",
		Long: `Refuse an administrator's certificate from now on, on all nodes. SERIAL is what ` + "`holdfast cert create`" + ` printed. The certificate of a node goes with
the node: ` + "`holdfast node remove`" + `.

Exit code: 0 when the certificate is refused; 3 when it is, but nothing tells that there ever was one of that number; 1 otherwise.`,
		Example: "  holdfast cert revoke 1f2e3d --why 'lost laptop'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			serial := strings.ToLower(strings.ReplaceAll(args[0], ":", ""))
			if serial == "" || strings.Trim(serial, "0123456789abcdef") != "" {
				return usagef("%q is not the serial number of a certificate, which has hexadecimal digits: `holdfast cert create` printed it, and `holdfast events` has it", args[0])
			}
			if why == "" {
				why = "serial number " + serial
			}
			events, err := ask(cmd, o, func(ctx context.Context, c *api.Client) ([]cluster.Event, error) { return c.Events(ctx, 0, false) })
			if err != nil {
				return err
			}
			res, err := o.do(cmd, cluster.Command{Revoke: &cluster.Revocation{Serial: serial, Why: why}})
			if err != nil {
				return err
			}
			if err := o.print(res, func() error { o.sayf("certificate %s is refused from now on", serial); return nil }); err != nil {
				return err
			}
			if !slices.ContainsFunc(events, func(e cluster.Event) bool { return strings.Contains(e.Text, serial) }) {
				return withCode(ExitAttention, fmt.Errorf("no event tells that there ever was a certificate %s: compare the number with those in `holdfast events`", serial))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "`text` for the events")
	return cmd
}
