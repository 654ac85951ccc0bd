// Package wake wakes goroutines that wait for work.
package wake

// Signal wakes one goroutine that receives from it. Signals that nobody has received yet
// are one: the goroutine must look at all there is to do.
type Signal chan struct{}

// New returns a Signal.
func New() Signal { return make(Signal, 1) }

// Set wakes the receiver. It never blocks.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}
