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
	"slices"
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
	// maxEndpoints bounds the part of it with the endpoints, in bytes.
	maxEndpoints = 1 << 20
)

// Errors of Read and Write.
var (
	// errForeign is returned for a file that is not a snapshot. Write does not replace it.
	errForeign = errors.New("not a snapshot of calicomesos")
	// errCluster is returned by Write for a snapshot that shares no endpoint with the new one.
	errCluster = errors.New("it is of another cluster: move it away")
	// errTorn is returned for a snapshot that lacks a part, or whose parts were changed.
	errTorn = errors.New("torn snapshot: its checksum does not match")

	errVersion = errors.New("snapshot of a newer version")
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
	Until     time.Time               `json:"until"`     // later than any publication before the next snapshot is written
	Masters   []string                `json:"masters"`   // URLs of their APIs, in the order of their numbers
	Endpoint  string                  `json:"endpoint"`  // host:port of the leading master's API
	Leader    mesos.Master            `json:"leader"`
	Hosts     map[string][]netip.Addr `json:"hosts,omitempty"` // what hostnames resolved to
}

// Of reports whether the snapshot is of a cluster with one of these endpoints.
func (h *Header) Of(endpoints []string) bool {
	return slices.ContainsFunc(h.Endpoints, func(e string) bool { return slices.Contains(endpoints, e) })
}

// CheckDir returns why no snapshot can be written to the directory of a file, or nil.
func CheckDir(file string) error {
	f, err := createTemporary(file)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Write replaces the file by s, whole or not at all. Only its owner can read it. A file that
// is not a snapshot, is one of a newer version or of another cluster, or cannot be read, is
// not replaced. Several processes may write one file: the last one wins.
func Write(file string, s *Snapshot) error {
	return operations{createTemporary, os.Rename, syncDir}.replace(file, s)
}

// operations are those on the file system whose order matters.
type operations struct {
	create  func(file string) (syncWriter, error)
	rename  func(from, to string) error
	syncDir func(dir string) error // makes renames in it last
}

type syncWriter interface {
	io.WriteCloser
	Name() string
	Sync() error
}

func (o operations) replace(file string, s *Snapshot) error {
	if err := replaceable(file, s.Endpoints); err != nil {
		return err
	}
	removeLeftOver(file)
	f, err := o.create(file)
	if err != nil {
		return err
	}
	temporary := f.Name()
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

// createTemporary creates a file beside the snapshot's with a name of its own, since
// another process may write to the same snapshot. Only its owner can read it.
func createTemporary(file string) (syncWriter, error) {
	return os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.tmp")
}

// leftOver is the age at which a temporary file is of a process that has ended, since none waits so
// long for the disk. A process that is started again and again must not fill it.
const leftOver = 5 * time.Minute

// removeLeftOver removes the temporary files of processes that were killed.
func removeLeftOver(file string) {
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		return // creating a file says why
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, filepath.Base(file)+".") || !strings.HasSuffix(name, ".tmp") {
			continue
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > leftOver {
			_ = os.Remove(filepath.Join(filepath.Dir(file), name)) // only takes up room
		}
	}
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

// replaceable returns why the file must not be replaced by a snapshot of the cluster with
// these endpoints, or nil.
func replaceable(file string, endpoints []string) error {
	f, _, err := open(file)
	if err == nil {
		defer f.Close()
		err = readMagic(f)
	}
	if err == nil {
		err = checkCluster(f, endpoints)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTorn) {
		return nil
	}
	return fmt.Errorf("refused to replace it: %w", err)
}

// checkCluster returns errCluster if a snapshot is of another cluster than the one with
// these endpoints. They are the first field of its header, which may be long.
func checkCluster(f io.ReadSeeker, endpoints []string) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := bufio.NewReader(io.LimitReader(f, maxEndpoints))
	if _, err := r.ReadSlice('\n'); err != nil {
		return errTorn
	}
	d := json.NewDecoder(r)
	for range 2 { // the brace, and the name of the field
		if _, err := d.Token(); err != nil {
			return errTorn
		}
	}
	var h Header
	if err := d.Decode(&h.Endpoints); err != nil {
		return errTorn
	}
	if !h.Of(endpoints) {
		return errCluster
	}
	return nil
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
	case v < version:
		return errTorn
	case v > version:
		return fmt.Errorf("%w: %d", errVersion, v)
	}
	return nil
}
