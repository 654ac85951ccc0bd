package mesos

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
)

// Master is a v1 MasterInfo.
type Master struct {
	ID       string // of the process; "" if unknown
	Hostname string
	Addr     netip.Addr // address.ip, else ip (in its byte order), else invalid
	Port     uint32
}

var errNoAddress = errors.New("MasterInfo must have an address or a hostname, and a port")

// MasterFromJSON decodes a MasterInfo in JSON, which masters since Mesos 0.24 write to
// ZooKeeper, in nodes json.info_….
func MasterFromJSON(b []byte) (Master, error) {
	var info struct {
		ID       string `json:"id"`
		Hostname string `json:"hostname"`
		IP       uint32 `json:"ip"`
		Port     uint32 `json:"port"`
		Address  struct {
			Hostname string `json:"hostname"`
			IP       string `json:"ip"`
			Port     uint32 `json:"port"`
		} `json:"address"`
	}
	if err := json.Unmarshal(b, &info); err != nil {
		return Master{}, err
	}
	m := Master{ID: info.ID, Hostname: info.Hostname, Addr: masterIP(info.IP), Port: info.Port}
	return m.at(info.Address.Hostname, info.Address.IP, info.Address.Port).check()
}

// MasterFromProtobuf decodes a MasterInfo in protobuf, which older masters write to
// ZooKeeper, in nodes info_….
func MasterFromProtobuf(b []byte) (Master, error) {
	m, err := decodeMaster(b)
	if err != nil {
		return Master{}, err
	}
	return m.check()
}

func (m Master) check() (Master, error) {
	if !m.Addr.IsValid() && m.Hostname == "" || m.Port == 0 || m.Port > 65535 {
		return Master{}, errNoAddress
	}
	return m, nil
}

// at returns m with the values of MasterInfo.address, which take precedence over the older
// fields.
func (m Master) at(hostname, ip string, port uint32) Master {
	if hostname != "" {
		m.Hostname = hostname
	}
	if addr := ParseAddr(ip); addr.IsValid() {
		m.Addr = addr
	}
	if port != 0 {
		m.Port = port
	}
	return m
}

// decodeMaster decodes a MasterInfo.
func decodeMaster(b []byte) (Master, error) {
	var (
		m            Master
		hostname, ip string
		port         uint32
	)
	f := scan(b)
	for f.next() {
		switch f.num {
		case 1:
			m.ID = string(f.b)
		case 2:
			m.Addr = masterIP(uint32(f.u))
		case 3:
			m.Port = uint32(f.u)
		case 5:
			m.Hostname = string(f.b)
		case 7:
			g := scan(f.b)
			for g.next() {
				switch g.num {
				case 1:
					hostname = string(g.b)
				case 2:
					ip = string(g.b)
				case 3:
					port = uint32(g.u)
				}
			}
			f.nested(g.err)
		}
	}
	return m.at(hostname, ip, port), f.err
}

// masterIP converts MasterInfo.ip, an IPv4 address whose octets in network order are read
// as a little-endian number: 16777343 is 127.0.0.1.
func masterIP(ip uint32) netip.Addr {
	if ip == 0 {
		return netip.Addr{}
	}
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], ip)
	return netip.AddrFrom4(b)
}
