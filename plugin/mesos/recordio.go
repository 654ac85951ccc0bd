package mesos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxRecord is the largest record that is read, in bytes: the limit of protobuf. A greater
// length comes from a broken or hostile master.
const maxRecord = 1<<31 - 1

// maxLength is the largest number of digits in the length of a record.
const maxLength = 20

// recordReader reads RecordIO: a decimal length, a newline, and as many bytes. It does not
// hold records: each is read from the stream, through wire.
type recordReader struct {
	r    *bufio.Reader
	wire wire
}

func newRecordReader(r io.Reader) *recordReader {
	br := bufio.NewReaderSize(r, 64<<10)
	return &recordReader{r: br, wire: wire{r: br}}
}

// next skips the rest of the last record and returns the next one. It returns io.EOF at
// the end of the stream, and io.ErrUnexpectedEOF if the stream ends within a record.
func (r *recordReader) next() (*wire, error) {
	if err := r.wire.discard(r.wire.left); err != nil {
		return nil, err
	}
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	r.wire.left = n
	return &r.wire, nil
}

func (r *recordReader) length() (int64, error) {
	var digits [maxLength]byte
	for i := range digits {
		c, err := r.r.ReadByte()
		if err != nil {
			if i > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		if c != '\n' {
			digits[i] = c
			continue
		}
		n, err := strconv.ParseUint(string(digits[:i]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("record length %q is not a number", digits[:i])
		}
		if n > maxRecord {
			return 0, fmt.Errorf("record of %d bytes exceeds the limit of %d", n, maxRecord)
		}
		return int64(n), nil
	}
	return 0, fmt.Errorf("record length %q has no end", digits[:])
}
