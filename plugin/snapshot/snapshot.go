// Package snapshot keeps the last known cluster in a file, for a start while the
// masters are away.
//
// The file is a line that names its version, a line of JSON that says whose
// cluster it is, a v1 GetState in protobuf, and the SHA-256 of all before.
package snapshot

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

const (
	magic     = "calicomesos snapshot "
	version   = 1
	maxHeader = 64 << 20
)

// Errors of Read and Write.
var (
	// ErrForeign is a file that is no snapshot. It is not to be written over.
	ErrForeign = errors.New("is no snapshot of calicomesos")
	// ErrTorn is a snapshot of which a part is missing or changed.
	ErrTorn = errors.New("is torn: its checksum does not match")

	errVersion = errors.New("is of a version of which this release knows nothing")
)

// Snapshot is a cluster as it was known once.
type Snapshot struct {
	Header
	State *mesos.State
}

// Header is what a snapshot says beside the state.
type Header struct {
	Endpoints []string                `json:"endpoints"` // of the masters or of ZooKeeper, as configured, without secrets
	Heard     time.Time               `json:"heard"`     // when a master last spoke
	Masters   []string                `json:"masters"`   // URLs of their APIs, in the order of their numbers
	Endpoint  string                  `json:"endpoint"`  // host:port of the leading master's API
	Leader    mesos.Master            `json:"leader"`
	Hosts     map[string][]netip.Addr `json:"hosts,omitempty"` // what hostnames resolved to
}

// Write replaces the file by s, whole or not at all. It is readable by its owner
// alone. A file that is no snapshot, or cannot be read, is not replaced.
func Write(file string, s *Snapshot) error {
	if err := replaceable(file); err != nil {
		return err
	}
	temporary := file + ".tmp"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = write(f, s)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temporary, file)
	}
	if err != nil {
		_ = os.Remove(temporary) // the error before says more
		return err
	}
	return syncDir(filepath.Dir(file))
}

func write(f io.Writer, s *Snapshot) error {
	sum := sha256.New()
	w := bufio.NewWriter(io.MultiWriter(f, sum))
	_, _ = fmt.Fprintf(w, "%s%d\n", magic, version)              // the error stays in w
	if err := json.NewEncoder(w).Encode(&s.Header); err != nil { // ends in a newline
		return err
	}
	if err := mesos.WriteState(w, s.State); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := f.Write(sum.Sum(nil))
	return err
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Read returns what the file holds. Its error is fs.ErrNotExist, ErrForeign,
// ErrTorn, or says what else is wrong.
func Read(file string) (*Snapshot, error) {
	f, size, err := open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := readMagic(f); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	length := size - sha256.Size
	if err := verify(f, length); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return read(bufio.NewReaderSize(io.LimitReader(f, length), 64<<10))
}

// verify compares the checksum of the first length bytes with the one that
// follows them.
func verify(f io.Reader, length int64) error {
	sum := sha256.New()
	if _, err := io.CopyN(sum, f, length); err != nil {
		return ErrTorn
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil || !bytes.Equal(sum.Sum(nil), want) {
		return ErrTorn
	}
	return nil
}

func read(r *bufio.Reader) (*Snapshot, error) {
	s := &Snapshot{}
	if _, err := r.ReadSlice('\n'); err != nil {
		return nil, ErrTorn
	}
	header, err := readLine(r)
	if err == nil {
		err = json.Unmarshal(header, &s.Header)
	}
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if s.State, err = mesos.ReadState(r); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return s, nil
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) > maxHeader {
			return line, err
		}
	}
}

// replaceable returns why the file is not to be written over.
func replaceable(file string) error {
	f, _, err := open(file)
	if err == nil {
		defer f.Close()
		err = readMagic(f)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrTorn) || errors.Is(err, errVersion) {
		return nil
	}
	return fmt.Errorf("not written over: %w", err)
}

// open opens a file that can be a snapshot, and returns its size.
func open(file string) (*os.File, int64, error) {
	info, err := os.Stat(file) // first: to open a pipe would wait for its writer
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, ErrForeign
	}
	f, err := os.Open(file)
	return f, info.Size(), err
}

// readMagic reads the first line. An empty file is a torn one.
func readMagic(f io.Reader) error {
	b := make([]byte, len(magic)+20)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	first, _, whole := strings.Cut(string(b[:n]), "\n")
	number, ok := strings.CutPrefix(first, magic)
	if !ok && strings.HasPrefix(magic, first) && !whole {
		return ErrTorn
	}
	v, err := strconv.ParseUint(number, 10, 32)
	switch {
	case !ok:
		return ErrForeign
	case err != nil:
		return ErrTorn
	case v != version:
		return fmt.Errorf("%w: %d", errVersion, v)
	}
	return nil
}
