package replica

import (
	"fmt"
	"log/slog"
)

// raftLogger gives raft's messages to a slog.Logger, one level lower than raft thinks: an election is worth a debug line here, because the
// replica reports it as an event.
type raftLogger struct{ l *slog.Logger }

func (r raftLogger) Debug(...any)          {}
func (r raftLogger) Debugf(string, ...any) {}
func (r raftLogger) Info(v ...any)         { r.l.Debug(fmt.Sprint(v...)) }
func (r raftLogger) Infof(format string, v ...any) {
	r.l.Debug(fmt.Sprintf(format, v...))
}
func (r raftLogger) Warning(v ...any) { r.l.Info(fmt.Sprint(v...)) }
func (r raftLogger) Warningf(format string, v ...any) {
	r.l.Info(fmt.Sprintf(format, v...))
}
func (r raftLogger) Error(v ...any) { r.l.Warn(fmt.Sprint(v...)) }
func (r raftLogger) Errorf(format string, v ...any) {
	r.l.Warn(fmt.Sprintf(format, v...))
}
func (r raftLogger) Fatal(v ...any)                 { panic("raft: " + fmt.Sprint(v...)) }
func (r raftLogger) Fatalf(format string, v ...any) { panic("raft: " + fmt.Sprintf(format, v...)) }
func (r raftLogger) Panic(v ...any)                 { panic("raft: " + fmt.Sprint(v...)) }
func (r raftLogger) Panicf(format string, v ...any) { panic("raft: " + fmt.Sprintf(format, v...)) }
