package doctor

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// A firewall's rules can be read, but what they do to a packet depends on more than can be known here: sets, marks, where it comes from. So this looks for
// what usually goes wrong: packets are dropped unless a rule lets them pass, and no rule names our ports; or a rule that drops names them.

// rule is what a rule of nftables or iptables says of ports that packets come in for.
type rule struct {
	ports  []portRange // empty: it does not speak of ports
	accept bool
	drop   bool // or reject
	named  bool // it refers to a set by name, whose content is not looked at
}

type portRange struct{ from, to uint16 }

func (r rule) names(port uint16) bool {
	return slices.ContainsFunc(r.ports, func(p portRange) bool { return p.from <= port && port <= p.to })
}

// ruleset is the part of a firewall that concerns what comes in.
type ruleset struct {
	closed bool // what no rule lets pass is dropped
	rules  []rule
}

func checkFirewall(ctx context.Context, h *host, cfg *Config) []finding {
	want, _ := wantedPorts(cfg)
	if len(want) == 0 {
		return []finding{skip("The node's ports are not known.")}
	}
	all, found, failed := h.rules(ctx)
	switch {
	case !found && failed != nil:
		return []finding{{Skipped, fmt.Sprintf("Its rules cannot be read (%v).", failed), "Run this as root."}}
	case !found:
		return []finding{skip("There is neither nft nor iptables here to ask; whether other nodes answer is a check of its own.")}
	}
	return judgeFirewall(all, want)
}

// rules reads the rules of nftables, and those of iptables where nft does not know them. found: some could be read; failed is why others could not.
func (h *host) rules(ctx context.Context) (all ruleset, found bool, failed error) {
	ask := func(parse func(string) ruleset, name string, arg ...string) (out string) {
		out, err := h.command(ctx, name, arg...)
		if err != nil {
			if !errors.Is(err, exec.ErrNotFound) {
				failed = fmt.Errorf("%s %s: %w", name, strings.Join(arg, " "), err)
			}
			return ""
		}
		found = true
		r := parse(out)
		all.closed = all.closed || r.closed
		all.rules = append(all.rules, r.rules...)
		return out
	}
	nft := ask(parseNft, "nft", "list", "ruleset")
	if !found || strings.Contains(nft, " xt ") || h.read("/proc/net/ip_tables_names") != "" {
		ask(parseIptables, "iptables", "-S")
	}
	return all, found, failed
}

func judgeFirewall(r ruleset, want []wanted) []finding {
	var all []finding
	open := func(port uint16) string {
		return fmt.Sprintf("Let TCP port %d in (firewall-cmd --permanent --add-port=%d/tcp, or ufw allow %d/tcp), from clients and other nodes as it concerns them.", port, port, port)
	}
	for _, w := range want {
		var accepted, dropped, unsure bool
		for _, ru := range r.rules {
			accepted = accepted || ru.accept && ru.names(w.port)
			dropped = dropped || ru.drop && ru.names(w.port)
			unsure = unsure || ru.accept && ru.named
		}
		switch {
		case dropped && !accepted:
			all = append(all, finding{Warning, fmt.Sprintf("A rule drops packets for port %d (%s).", w.port, w.what), open(w.port)})
		case r.closed && !accepted && unsure:
			all = append(all, fine("Only what rules let in comes in; whether port %d (%s) does depends on named sets.", w.port, w.what))
		case r.closed && !accepted:
			all = append(all, finding{Warning, fmt.Sprintf("Only what rules let in comes in, and none names port %d (%s).", w.port, w.what), open(w.port)})
		}
	}
	switch {
	case all != nil:
		return all
	case r.closed:
		return []finding{fine("Rules let our ports in.")}
	default:
		return []finding{fine("Nothing is dropped that comes in for our ports.")}
	}
}

// parseNft reads what nft list ruleset prints.
func parseNft(s string) ruleset {
	var r ruleset
	input := false // in a base chain of what comes in
	for line := range strings.Lines(s) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "chain "):
			input = false
		case strings.HasPrefix(line, "type "):
			input = strings.Contains(line, "hook input")
			r.closed = r.closed || input && strings.Contains(line, "policy drop")
		default:
			words := strings.Fields(strings.NewReplacer(",", " ", "{", " ", "}", " ").Replace(line))
			if len(words) == 0 {
				continue
			}
			verdict := slices.IndexFunc(words, func(w string) bool { return w == "accept" || w == "drop" || w == "reject" })
			if verdict < 0 {
				continue
			}
			ru := rule{accept: words[verdict] == "accept", drop: words[verdict] != "accept"}
			for i, w := range words[:verdict] {
				if w == "dport" && slices.Contains(words[:i], "tcp") || w == "dport" && slices.Contains(words[:i], "th") {
					ru.ports, ru.named = parsePorts(words[i+1 : verdict])
				}
			}
			// A last rule that drops whatever is left.
			conditions := slices.DeleteFunc(slices.Clone(words[:verdict]), func(w string) bool { return w == "counter" || w == "log" })
			r.closed = r.closed || input && ru.drop && (len(conditions) == 0 || len(conditions) == 4 && words[0] == "counter")
			if ru.ports != nil || ru.named {
				r.rules = append(r.rules, ru)
			}
		}
	}
	return r
}

// parseIptables reads what iptables -S prints.
func parseIptables(s string) ruleset {
	var r ruleset
	for line := range strings.Lines(s) {
		w := strings.Fields(line)
		if len(w) < 3 {
			continue
		}
		if w[0] == "-P" {
			r.closed = r.closed || w[1] == "INPUT" && w[2] == "DROP"
			continue
		}
		jump := slices.Index(w, "-j")
		if w[0] != "-A" || jump < 0 || jump+1 >= len(w) {
			continue
		}
		target := w[jump+1]
		ru := rule{accept: target == "ACCEPT", drop: target == "DROP" || target == "REJECT"}
		if !ru.accept && !ru.drop {
			continue
		}
		for i, x := range w[:jump] {
			if x == "--dport" || x == "--dports" {
				ru.ports, ru.named = parsePorts(strings.Split(w[i+1], ","))
			}
		}
		r.closed = r.closed || ru.drop && w[1] == "INPUT" && jump == 2
		if ru.ports != nil {
			r.rules = append(r.rules, ru)
		}
	}
	return r
}

// parsePorts reads ports and ranges of them, until there is something else. named: there is a set by its name.
func parsePorts(words []string) (all []portRange, named bool) {
	for _, w := range words {
		if strings.HasPrefix(w, "@") {
			return all, true
		}
		from, to, isRange := strings.Cut(w, "-")
		if !isRange {
			from, to, isRange = strings.Cut(w, ":")
		}
		if !isRange {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil {
			break
		}
		all = append(all, portRange{uint16(a), uint16(b)})
	}
	return all, false
}
