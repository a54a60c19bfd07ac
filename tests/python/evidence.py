"""Reading our evidence with nothing of ours: certificates, signed notes, the frames of a log, the Merkle tree."""

import base64
import datetime
import hashlib
import json
import pathlib
import struct

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Wrong(Exception):
    """The evidence does not hold."""


def demand(truth, what):
    if not truth:
        raise Wrong(what)


def sha256(data):
    return hashlib.sha256(data).digest()


def root_certificate(path):
    return x509.load_pem_x509_certificate(pathlib.Path(path).read_bytes())


def signer(chain, root, origin):
    """The Ed25519 key of a signer whose chain (leaf, intermediate; DER) leads to the root and names the origin."""
    demand(len(chain) == 2, "a signer's chain is leaf and intermediate")
    leaf, intermediate = (x509.load_der_x509_certificate(der) for der in chain)
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    demand(intermediate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca, "no CA")
    uris = names(chain[0])
    demand(uris == ["spiffe://" + origin], f"the signer is {uris}, not {origin}")
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    demand(usage.digital_signature and not usage.key_cert_sign, "not a signer's key usage")
    uses = [
        use.dotted_string
        for certificate in (leaf, intermediate)
        for use in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    ]
    demand(
        len(uses) == 2 and len(set(uses)) == 1 and uses[0].startswith("1.3.6.1.4.1.") and uses[0].endswith(".2.1"),
        f"not a signer's extended key usage: {uses}",
    )
    key = leaf.public_key()
    demand(isinstance(key, Ed25519PublicKey), "not an Ed25519 key")
    return key, leaf


def names(der):
    """The URIs that a certificate names."""
    extensions = x509.load_der_x509_certificate(der).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def spki(key):
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def raw(key):
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def note_key_id(name, key):
    """C2SP signed-note: the first four bytes of SHA-256(name, newline, type 1, key)."""
    return sha256(name.encode() + b"\n\x01" + raw(key))[:4]


def vkey(name, key):
    encoded = base64.b64encode(b"\x01" + raw(key)).decode()
    return f"{name}+{note_key_id(name, key).hex()}+{encoded}"


def open_note(text, name, key):
    """The text of a signed note with exactly one signature line, the one of `name`."""
    head, separator, signatures = text.rpartition("\n\n")
    demand(separator, "not a signed note")
    lines = signatures.splitlines()
    demand(len(lines) == 1 and signatures.endswith("\n"), f"not one signature line: {lines}")
    dash, signed_by, signature = lines[0].split(" ")
    demand(dash == "\u2014" and signed_by == name, f"signed by {signed_by}")
    signature = base64.b64decode(signature, validate=True)
    demand(signature[:4] == note_key_id(name, key), "signed with another key")
    key.verify(signature[4:], (head + "\n").encode())
    return head + "\n"


def checkpoint(text, name, key):
    lines = open_note(text, name, key).split("\n")
    demand(len(lines) == 4 and lines[0] == name and lines[3] == "", f"not a checkpoint of {name}")
    return int(lines[1]), base64.b64decode(lines[2], validate=True)


def frames(data):
    """Records of a segment file: 96-byte headers, records with 16-bit lengths, in the end perhaps zeros."""
    at = 0
    while any(data[at : at + 96]):
        header = data[at : at + 96]
        demand(len(header) == 96 and header[:8] == b"agcalog\x01", f"no frame at {at}")
        first, count, length = struct.unpack(">QII", header[8:24])
        demand(sha256(header[:88])[:8] == header[88:], f"a damaged header at {at}")
        payload = data[at + 96 : at + 96 + length]
        demand(len(payload) == length, f"a torn frame at {at}")
        records, offset = [], 0
        while offset < length:
            (size,) = struct.unpack(">H", payload[offset : offset + 2])
            records.append(payload[offset + 2 : offset + 2 + size])
            offset += 2 + size
        demand(len(records) == count, f"{len(records)} records at {at}, not {count}")
        demand(sha256(b"".join(map(leaf_hash, records))) == header[24:56], f"a damaged frame at {at}")
        yield first, records
        at += 96 + length


def records(log):
    """Every record of a log's directory, in order."""
    found = []
    for segment in sorted((pathlib.Path(log) / "segments").iterdir()):
        demand(segment.name == f"{len(found):020}", f"{segment.name} does not begin at {len(found)}")
        for first, batch in frames(segment.read_bytes()):
            demand(first == len(found), f"a gap before {first}")
            found.extend(batch)
    return found


def leaf_hash(record):
    return sha256(b"\x00" + record)


def tree_hash(leaves):
    """RFC 6962 section 2.1."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\x01" + tree_hash(leaves[:split]) + tree_hash(leaves[split:]))


def log_key(first_record, root):
    """The log key, from record 0 and the root."""
    opened = json.loads(first_record)
    demand(opened["kind"] == "log-opened", "record 0 does not open the log")
    chains = [[base64.b64decode(der) for der in chain] for chain in opened["signers"]]
    for chain in chains:
        try:
            return opened["log"], signer(chain, root, opened["log"])[0]
        except Wrong:
            continue
    raise Wrong(f"no signer of record 0 is the log's own: {opened['log']}")


def moment(text):
    demand(text.endswith("Z"), f"not UTC: {text}")
    return datetime.datetime.fromisoformat(text[:-1] + "+00:00")
