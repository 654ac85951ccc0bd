package mesos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxRecord is the largest record that is read. Protobuf itself ends at 2 GiB;
// a larger length is a broken or hostile master.
const maxRecord = 1<<31 - 1

// maxLength is how many digits the length of a record may have.
const maxLength = 20

// records reads RecordIO: a decimal length, a newline, and that many bytes.
// Payloads are not held: each is read from the stream through wire.
type records struct {
	r    *bufio.Reader
	wire wire
}

func newRecords(r io.Reader) *records {
	br := bufio.NewReaderSize(r, 64<<10)
	return &records{r: br, wire: wire{r: br}}
}

// next skips what is left of the record before and returns the next one. It
// returns io.EOF at the end of the stream between two records, and
// io.ErrUnexpectedEOF within one.
func (r *records) next() (*wire, error) {
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

func (r *records) length() (int64, error) {
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
			return 0, fmt.Errorf("record of %d bytes is over the limit of %d", n, maxRecord)
		}
		return int64(n), nil
	}
	return 0, fmt.Errorf("record length %q does not end", digits[:])
}
