package mesos

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxMessage is the largest task, agent or framework that is decoded, in bytes. A larger
// one is skipped and counted.
const maxMessage = 64 << 20

// errMalformed is returned for bytes that are not a protobuf message.
var errMalformed = errors.New("malformed protobuf")

// wire reads a protobuf message from a stream, without holding it in memory.
type wire struct {
	r    *bufio.Reader
	left int64 // bytes left of the current message
	buf  []byte
}

// message reads the rest of the current message.
func (w *wire) message(f fieldReader) error {
	for w.left > 0 {
		if err := w.field(f); err != nil {
			return err
		}
	}
	return nil
}

// toEOF reads a message that ends with the stream.
func (w *wire) toEOF(f fieldReader) error {
	for w.left = maxRecord; ; {
		if _, err := w.r.Peek(1); err == io.EOF {
			return nil
		}
		if err := w.field(f); err != nil {
			return err
		}
	}
}

// fieldReader consumes the value of a field and returns true, or returns false to have it
// skipped.
type fieldReader func(num protowire.Number, typ protowire.Type) (bool, error)

func (w *wire) field(f fieldReader) error {
	tag, err := w.varint()
	if err != nil {
		return err
	}
	num, typ := protowire.DecodeTag(tag)
	if num < protowire.MinValidNumber {
		return errMalformed
	}
	used, err := f(num, typ)
	if used || err != nil {
		return err
	}
	return w.skip(typ)
}

// nested reads the value of the current field, a message.
func (w *wire) nested(f fieldReader) (bool, error) {
	n, err := w.length()
	if err != nil {
		return true, err
	}
	outer := w.left - n
	w.left = n
	if err := w.message(f); err != nil {
		return true, err
	}
	w.left = outer
	return true, nil
}

// bytes returns the value of the current field, valid until the next call. A value over
// maxMessage is skipped and returned as nil.
func (w *wire) bytes() ([]byte, error) {
	n, err := w.length()
	if err != nil {
		return nil, err
	}
	if n > maxMessage {
		return nil, w.discard(n)
	}
	w.buf = w.buf[:0]
	for rest := int(n); rest > 0; {
		// Grow with what arrives: the length may promise more.
		chunk := min(rest, max(4<<10, len(w.buf)))
		start := len(w.buf)
		w.buf = append(w.buf, make([]byte, chunk)...)
		if err := w.read(w.buf[start:]); err != nil {
			return nil, err
		}
		rest -= chunk
	}
	return w.buf, nil
}

// double returns the value of the current field, a double.
func (w *wire) double() (float64, error) {
	var b [8]byte
	if err := w.read(b[:]); err != nil {
		return 0, err
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b[:])), nil
}

func (w *wire) varint() (uint64, error) {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		if w.left == 0 {
			return 0, errMalformed
		}
		c, err := w.r.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		w.left--
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, nil
		}
	}
	return 0, errMalformed
}

func (w *wire) length() (int64, error) {
	n, err := w.varint()
	if err != nil {
		return 0, err
	}
	if n > uint64(w.left) {
		return 0, fmt.Errorf("%w: field of %d bytes with %d bytes left", errMalformed, n, w.left)
	}
	return int64(n), nil
}

func (w *wire) skip(typ protowire.Type) error {
	switch typ {
	case protowire.VarintType:
		_, err := w.varint()
		return err
	case protowire.Fixed32Type:
		return w.discard(4)
	case protowire.Fixed64Type:
		return w.discard(8)
	case protowire.BytesType:
		n, err := w.length()
		if err != nil {
			return err
		}
		return w.discard(n)
	default: // Mesos uses no groups
		return fmt.Errorf("%w: wire type %d", errMalformed, typ)
	}
}

func (w *wire) read(b []byte) error {
	if int64(len(b)) > w.left {
		return errMalformed
	}
	n, err := io.ReadFull(w.r, b)
	w.left -= int64(n)
	return unexpected(err)
}

func (w *wire) discard(n int64) error {
	if n > w.left {
		return errMalformed
	}
	m, err := w.r.Discard(int(n))
	w.left -= int64(m)
	return unexpected(err)
}

// unexpected turns io.EOF, within a message, into io.ErrUnexpectedEOF.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fields iterates over a protobuf message in memory.
type fields struct {
	rest []byte
	num  protowire.Number
	typ  protowire.Type
	b    []byte // value of a BytesType field
	u    uint64 // value of any other
	err  error
}

func scan(b []byte) fields { return fields{rest: b} }

// next advances to the next field. It returns false at the end and after an error.
func (f *fields) next() bool {
	if f.err != nil || len(f.rest) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(f.rest)
	if n < 0 {
		return f.fail()
	}
	f.rest = f.rest[n:]
	f.num, f.typ, f.b, f.u = num, typ, nil, 0
	switch typ {
	case protowire.VarintType:
		f.u, n = protowire.ConsumeVarint(f.rest)
	case protowire.Fixed64Type:
		f.u, n = protowire.ConsumeFixed64(f.rest)
	case protowire.BytesType:
		f.b, n = protowire.ConsumeBytes(f.rest)
	default:
		n = protowire.ConsumeFieldValue(num, typ, f.rest)
	}
	if n < 0 {
		return f.fail()
	}
	f.rest = f.rest[n:]
	return true
}

func (f *fields) fail() bool {
	f.err = errMalformed
	return false
}

// nested records err, the error of a message within this one.
func (f *fields) nested(err error) {
	if f.err == nil {
		f.err = err
	}
}
