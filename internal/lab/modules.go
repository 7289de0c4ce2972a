package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// modulesRoot is where Debian's user-mode-linux package puts the modules of its kernel, by version.
const modulesRoot = "/usr/lib/uml/modules"

// guestModules are loaded in every guest, with what they depend on.
var guestModules = []string{"ipv6", "nfsv3", "nfsv4"}

// moduleDir finds the folder of the newest installed version.
func moduleDir() (string, error) {
	dirs, err := filepath.Glob(filepath.Join(modulesRoot, "*", "modules.dep"))
	if err != nil {
		return "", err
	}
	if len(dirs) == 0 {
		return "", fmt.Errorf("no modules below %s", modulesRoot)
	}
	sort.Strings(dirs)
	return filepath.Dir(dirs[len(dirs)-1]), nil
}

// loadOrder lists the module files, relative to the folder of modules.dep, that have to be loaded for the named modules,
// dependencies first. In modules.dep a line is "file: dependencies", the dependencies in reverse order of loading.
func loadOrder(dep []byte, names []string) ([]string, error) {
	deps := make(map[string][]string)
	byName := make(map[string]string)
	for line := range bytes.Lines(dep) {
		file, rest, ok := strings.Cut(strings.TrimSpace(string(line)), ":")
		if !ok {
			continue
		}
		deps[file] = strings.Fields(rest)
		byName[strings.TrimSuffix(filepath.Base(file), ".ko")] = file
	}
	var order []string
	seen := make(map[string]bool)
	add := func(file string) {
		if !seen[file] {
			seen[file] = true
			order = append(order, file)
		}
	}
	for _, name := range names {
		file, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("module %s is not in modules.dep", name)
		}
		for i := len(deps[file]) - 1; i >= 0; i-- {
			add(deps[file][i])
		}
		add(file)
	}
	return order, nil
}

// readModules returns the modules to load, in order, as archive entries.
func readModules() (names []string, data [][]byte, err error) {
	dir, err := moduleDir()
	if err != nil {
		return nil, nil, err
	}
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, nil, err
	}
	order, err := loadOrder(dep, guestModules)
	if err != nil {
		return nil, nil, err
	}
	for _, file := range order {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return nil, nil, err
		}
		names = append(names, filepath.Base(file))
		data = append(data, content)
	}
	return names, data, nil
}
