// Package snapshot keeps the last known cluster in a file, for a start while the masters are
// away.
//
// The file is a line with its version, a line of JSON (Header), a v1 GetState in protobuf,
// and the SHA-256 of everything before. It is replaced by a rename, after its content has
// reached the disk, so that a crash leaves the old file or the new one.
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
	magic   = "calicomesos snapshot "
	version = 1
	// maxHeader bounds the header, in bytes. Most of it is the addresses of hostnames, of
	// which a cluster has at most a few per agent.
	maxHeader = 64 << 20
)

// Errors of Read and Write.
var (
	// errForeign is returned for a file that is not a snapshot. Write does not replace it.
	errForeign = errors.New("not a snapshot of calicomesos")
	// errTorn is returned for a snapshot that lacks a part, or whose parts were changed.
	errTorn = errors.New("torn snapshot: its checksum does not match")

	errVersion = errors.New("snapshot of an unknown version")
)

// Snapshot is a cluster as it was known at one moment.
type Snapshot struct {
	Header
	State *mesos.State
}

// Header is what a snapshot has besides the state.
type Header struct {
	Endpoints []string                `json:"endpoints"` // of the masters or of ZooKeeper, as configured, without secrets
	Heard     time.Time               `json:"heard"`     // when a master last spoke
	Masters   []string                `json:"masters"`   // URLs of their APIs, in the order of their numbers
	Endpoint  string                  `json:"endpoint"`  // host:port of the leading master's API
	Leader    mesos.Master            `json:"leader"`
	Hosts     map[string][]netip.Addr `json:"hosts,omitempty"` // what hostnames resolved to
}

// Write replaces the file by s, whole or not at all. Only its owner can read it. A file that
// is not a snapshot, or cannot be read, is not replaced.
func Write(file string, s *Snapshot) error {
	return operations{createFile, os.Rename, syncDir}.replace(file, s)
}

// operations are those on the file system whose order matters.
type operations struct {
	create  func(file string) (syncWriter, error)
	rename  func(from, to string) error
	syncDir func(dir string) error // makes renames in it last
}

type syncWriter interface {
	io.WriteCloser
	Sync() error
}

func (o operations) replace(file string, s *Snapshot) error {
	if err := replaceable(file); err != nil {
		return err
	}
	temporary := file + ".tmp"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := o.create(temporary)
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
		err = o.rename(temporary, file)
	}
	if err != nil {
		_ = os.Remove(temporary) // err says more
		return err
	}
	return o.syncDir(filepath.Dir(file))
}

func createFile(file string) (syncWriter, error) {
	return os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func write(f io.Writer, s *Snapshot) error {
	sum := sha256.New()
	w := bufio.NewWriter(io.MultiWriter(f, sum))
	_, _ = fmt.Fprintf(w, "%s%d\n", magic, version)              // w keeps the error
	if err := json.NewEncoder(w).Encode(&s.Header); err != nil { // appends a newline
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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Read reads a snapshot. It returns fs.ErrNotExist, errForeign, errTorn, or another error.
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

// verify compares the checksum of the first length bytes with the one after them.
func verify(f io.Reader, length int64) error {
	sum := sha256.New()
	if _, err := io.CopyN(sum, f, length); err != nil {
		return errTorn
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil || !bytes.Equal(sum.Sum(nil), want) {
		return errTorn
	}
	return nil
}

func read(r *bufio.Reader) (*Snapshot, error) {
	s := &Snapshot{}
	if _, err := r.ReadSlice('\n'); err != nil {
		return nil, errTorn
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

// replaceable returns why the file must not be replaced, or nil.
func replaceable(file string) error {
	f, _, err := open(file)
	if err == nil {
		defer f.Close()
		err = readMagic(f)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTorn) || errors.Is(err, errVersion) {
		return nil
	}
	return fmt.Errorf("refused to replace it: %w", err)
}

// open opens a regular file, and returns its size.
func open(file string) (*os.File, int64, error) {
	info, err := os.Stat(file) // before Open, which would wait for the writer of a pipe
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errForeign
	}
	f, err := os.Open(file)
	return f, info.Size(), err
}

// readMagic checks the first line. An empty file is a torn snapshot.
func readMagic(f io.Reader) error {
	b := make([]byte, len(magic)+20)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	first, _, whole := strings.Cut(string(b[:n]), "\n")
	number, ok := strings.CutPrefix(first, magic)
	if !ok && strings.HasPrefix(magic, first) && !whole {
		return errTorn
	}
	v, err := strconv.ParseUint(number, 10, 32)
	switch {
	case !ok:
		return errForeign
	case err != nil:
		return errTorn
	case v != version:
		return fmt.Errorf("%w: %d", errVersion, v)
	}
	return nil
}
