package volume

import "fmt"

// programKey is the key of a program's own record.
func programKey(prog byte, key []byte) []byte {
	k := make([]byte, 0, 2+len(key))
	return append(append(k, prefixProgram, prog), key...)
}

// Put sets a record of a program's state. Keys are private to prog, a small number that the program picks: nfs4 4, nfs3 3. Key and value must not be
// changed afterwards.
func (tx *Tx) Put(prog byte, key, value []byte) {
	if tx.writable {
		tx.batch.Set(programKey(prog, key), value)
	}
}

// Del removes a record of a program's state.
func (tx *Tx) Del(prog byte, key []byte) {
	if tx.writable {
		tx.batch.Delete(programKey(prog, key))
	}
}

// ScanState calls fn for the records of a program's state in key order, for Program.Load. It does not see what the entry being applied has Put.
func (tx *Tx) ScanState(prog byte, fn func(key, value []byte) error) error {
	var failed error
	err := tx.store.Scan(programKey(prog, nil), programKey(prog+1, nil), func(key, value []byte) bool {
		failed = fn(key[2:], value)
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("volume: read program state: %w", err)
	}
	return nil
}
