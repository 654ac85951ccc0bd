// Command mesos-dns-corefile translates the configuration of Mesos-DNS into a Corefile, or
// compares what Mesos-DNS and CoreDNS answer while both run.
//
//	mesos-dns-corefile [-credentials FILE] CONFIG.JSON >Corefile
//	mesos-dns-corefile -compare [-settle 90s] OLD-SERVER NEW-SERVER
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const usage = `Usage:
  mesos-dns-corefile [-credentials FILE] CONFIG.JSON >Corefile
  mesos-dns-corefile -compare [-settle DURATION] OLD-SERVER NEW-SERVER

The first translates the configuration of Mesos-DNS. What has no equivalent is said on standard
error. A secret that stands in it is written to FILE (ZooKeeper's to FILE.zk), and never printed.

The second asks both servers, by TCP, for every name that the HTTP API of either lists, and prints
what differs and why: addresses and targets, not TTLs or their order. A server is
ADDRESS[:PORT][,API-ADDRESS:PORT]: port 53, and port 8123 of the same address, if nothing else is
said. It ends with status 1 if a difference has no reason that is known, or if one of them does not
list its names.

`

func main() {
	log.SetFlags(0)
	log.SetPrefix("mesos-dns-corefile: ")
	flag.Usage = func() {
		_, _ = io.WriteString(flag.CommandLine.Output(), usage) // nothing can be done where that fails
		flag.PrintDefaults()
	}
	credentials := flag.String("credentials", "mesos.credentials", "file to write a secret to")
	compare := flag.Bool("compare", false, "compare two servers")
	settle := flag.Duration("settle", 0, "how long to ask again for names that differ: Mesos-DNS may be refreshSeconds behind")
	flag.Parse()
	var err error
	switch {
	case *compare && flag.NArg() == 2:
		err = runCompare(flag.Arg(0), flag.Arg(1), *settle, os.Stdout)
	case !*compare && flag.NArg() == 1:
		err = runTranslate(flag.Arg(0), *credentials, os.Stdout, os.Stderr)
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// runTranslate translates a configuration file.
func runTranslate(file, credentials string, out, notes io.Writer) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	c, err := readConfig(b)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	credentials, err = filepath.Abs(credentials)
	if err != nil {
		return err
	}
	t := translate(c, credentials, localAddrs())
	for file, secret := range t.secrets {
		if err := writeSecret(file, secret); err != nil {
			return err
		}
	}
	for _, n := range t.notes {
		if _, err := fmt.Fprintln(notes, n); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, t.corefile)
	return err
}

// writeSecret writes a file that nobody else can read. It replaces none that says something else.
func writeSecret(file, secret string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		if b, err := os.ReadFile(file); err == nil && string(b) == secret {
			return nil
		}
		return fmt.Errorf("%s exists, and says something else: remove it, or name another file with -credentials", file)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(secret)
	return errors.Join(err, f.Close())
}

// runCompare compares two servers.
func runCompare(oldServer, newServer string, settle time.Duration, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	before, err := parseServer(oldServer)
	if err != nil {
		return err
	}
	after, err := parseServer(newServer)
	if err != nil {
		return err
	}
	c := comparison{before: before, after: after, out: out}
	return c.run(ctx, settle)
}
