"""Checks a log's directory from the root certificate alone, sharing no code with ours.

log_check.py LOG ROOT

Every record is canonical JSON (RFC 8785) in its place, the checkpoint's signature leads to the root, its root hash is
that of the records (computed twice: here, and by pymerkle), and every hash file holds what the records give.
Prints a JSON summary.
"""

import base64
import collections
import json
import pathlib
import sys

import rfc8785
from pymerkle import InmemoryTree

import evidence
from evidence import demand


def main(log, root):
    records = evidence.records(log)
    origin, key = evidence.log_key(records[0], evidence.root_certificate(root))
    text = (pathlib.Path(log) / "checkpoint").read_text()
    size, root_hash = evidence.checkpoint(text, origin, key)
    demand(size <= len(records), f"the checkpoint covers {size} of {len(records)} records")

    kinds = collections.Counter(check_record(index, record, origin) for index, record in enumerate(records))
    times = [evidence.moment(json.loads(record)["time"]) for record in records]
    demand(times == sorted(times), "time goes back")

    leaves = [evidence.leaf_hash(record) for record in records]
    demand(evidence.tree_hash(leaves[:size]) == root_hash, "the records lead to another root")
    check_with_pymerkle(records[:size], root_hash)
    check_hash_files(pathlib.Path(log) / "hashes", leaves, size)
    print(json.dumps({"origin": origin, "size": size, "records": len(records), "kinds": kinds,
                      "vkey": evidence.vkey(origin, key),
                      "root": base64.b64encode(root_hash).decode()}))


def check_record(index, record, origin):
    value = json.loads(record)
    demand(rfc8785.dumps(value) == record, f"record {index} is not canonical: {record!r}")
    demand(len(record) <= 65535, f"record {index} is too long")
    demand(value["v"] == 1 and value["seq"] == index and value["log"] == origin, f"record {index} is not in its place")
    check_numbers(index, value)
    return value["kind"]


def check_numbers(index, value):
    """No reader may lose precision: numbers stay within 2^53, larger ones are strings."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            check_numbers(index, part)
    elif not isinstance(value, (str, bool, type(None))):
        demand(isinstance(value, int) and abs(value) <= 2**53, f"record {index} has the number {value}")


def check_with_pymerkle(records, root_hash):
    tree = InmemoryTree(algorithm="sha256")
    for record in records:
        tree.append_entry(record)
    demand(tree.get_root() == root_hash, "pymerkle finds another root")


def check_hash_files(folder, leaves, size):
    level = 0
    hashes = leaves
    while hashes:
        path = folder / str(level)
        stored = path.read_bytes() if path.exists() else b""
        known = b"".join(hashes)
        covered = (size >> (8 * level)) * 32
        demand(len(stored) >= covered, f"hash file {level} is shorter than the checkpoint")
        demand(stored == known[: len(stored)], f"hash file {level} differs from the records")
        hashes = [evidence.tree_hash(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
        level += 1


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except evidence.Wrong as wrong:
        sys.exit(f"log_check: {wrong}")
