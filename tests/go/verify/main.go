// Verifies a log of ours with nothing but golang.org/x/mod/sumdb: the signed checkpoint, the hash tiles up to its
// root, inclusion of given records, and consistency with an older checkpoint.
//
//	verify -vkey KEY -log http://host:port | DIR [-old CHECKPOINT] [INDEX=FILE ...]
//
// It prints the size of the tree and exits with 0, or says what is wrong and exits with 1.
package main

import (
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func main() {
	vkey := flag.String("vkey", "", "the log's C2SP verifier key")
	log := flag.String("log", "", "base URL or directory")
	old := flag.String("old", "", "file with an older checkpoint")
	flag.Parse()

	verifier, err := note.NewVerifier(*vkey)
	check(err)
	text, err := read(*log, "checkpoint")
	check(err)
	tree := open(text, verifier)

	// Every hash below is authenticated against the root, tile by tile, up from the leaves.
	hashes := tlog.TileHashReader(tree, source(*log))
	root, err := tlog.TreeHash(tree.N, hashes)
	check(err)
	if root != tree.Hash {
		fail("the tiles lead to %v, the checkpoint says %v", root, tree.Hash)
	}
	if *old != "" {
		text, err := os.ReadFile(*old)
		check(err)
		older := open(text, verifier)
		proof, err := tlog.ProveTree(tree.N, older.N, hashes)
		check(err)
		check(tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash))
	}
	for _, argument := range flag.Args() {
		index, file, found := strings.Cut(argument, "=")
		n, err := strconv.ParseInt(index, 10, 64)
		if !found || err != nil {
			fail("not INDEX=FILE: %s", argument)
		}
		record, err := os.ReadFile(file)
		check(err)
		proof, err := tlog.ProveRecord(tree.N, n, hashes)
		check(err)
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, n, tlog.RecordHash(record)); err != nil {
			fail("record %d is not in the tree: %v", n, err)
		}
	}
	fmt.Println(tree.N)
}

// open verifies the note and reads the three lines of a C2SP checkpoint.
func open(text []byte, verifier note.Verifier) tlog.Tree {
	opened, err := note.Open(text, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		fail("not the three lines of a checkpoint: %q", opened.Text)
	}
	if lines[0] != verifier.Name() {
		fail("the checkpoint is of %q, the key of %q", lines[0], verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := base64.StdEncoding.DecodeString(lines[2])
	check(err)
	tree := tlog.Tree{N: size}
	if copy(tree.Hash[:], root) != tlog.HashSize || len(root) != tlog.HashSize {
		fail("not a root hash: %q", lines[2])
	}
	return tree
}

type source string

func (source) Height() int                     { return height }
func (source) SaveTiles([]tlog.Tile, [][]byte) {}

func (s source) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		var err error
		if data[i], err = s.tile(tile); err != nil {
			return nil, err
		}
		if len(data[i]) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes, %d hashes are wanted", path(tile), len(data[i]), tile.W)
		}
	}
	return data, nil
}

func (s source) tile(tile tlog.Tile) ([]byte, error) {
	if remote(string(s)) {
		return read(string(s), path(tile))
	}
	// On disk a level is one file, the concatenation of its tiles.
	file, err := os.Open(filepath.Join(string(s), "hashes", strconv.Itoa(tile.L)))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data := make([]byte, tile.W*tlog.HashSize)
	_, err = file.ReadAt(data, tile.N*tlog.HashSize<<height)
	return data, err
}

// path is that of C2SP tlog-tiles, which leaves out the height that sumdb's has.
func path(tile tlog.Tile) string {
	return strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
}

func remote(log string) bool { return strings.HasPrefix(log, "http://") }

func read(log, name string) ([]byte, error) {
	if !remote(log) {
		return os.ReadFile(filepath.Join(log, name))
	}
	response, err := http.Get(log + "/" + name)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", name, response.Status)
	}
	return io.ReadAll(response.Body)
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, arguments ...interface{}) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}
