// Package configfile reads files that a Corefile names. Whoever can write to their directory
// must not hang the server, nor take its memory: only regular files of sane size are read.
package configfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ErrNotRegular is returned for a pipe, a device, a directory.
var ErrNotRegular = errors.New("not a regular file")

// Read returns the content of a regular file of at most limit bytes, and its mode. Errors
// name the file.
func Read(name string, limit int64) ([]byte, fs.FileMode, error) {
	// Without O_NONBLOCK the start would wait for the writer of a pipe.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: %w", name, ErrNotRegular)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1)) // it may grow meanwhile
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	if err != nil {
		return nil, 0, err
	}
	return b, info.Mode(), nil
}
