"""What a thief of the issuing key could make: a certificate like an agent's own, with another serial, never issued.

forge.py ISSUING-KEY AGENT-DIR OUT-DIR
"""

import pathlib
import secrets
import shutil
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


def tlv(tag, content):
    length = len(content)
    head = bytes([length]) if length < 128 else (lambda b: bytes([128 | len(b)]) + b)(length.to_bytes((length.bit_length() + 7) // 8, "big"))
    return bytes([tag]) + head + content


def algorithm(certificate):
    """The signature algorithm's DER, as it stands after the TBS."""
    outer = certificate.public_bytes(serialization.Encoding.DER)
    rest = outer[outer.index(certificate.tbs_certificate_bytes) + len(certificate.tbs_certificate_bytes):]
    return rest[: 2 + rest[1]]


def main(issuing_key, agent, out):
    agent, out = pathlib.Path(agent), pathlib.Path(out)
    chain = x509.load_pem_x509_certificates((agent / "agent.crt").read_bytes())
    key = serialization.load_pem_private_key(pathlib.Path(issuing_key).read_bytes(), None)
    assert key.public_key() == chain[1].public_key(), "not the key of the issuing certificate"
    old = chain[0].serial_number.to_bytes(16, "big")
    new = bytes([1 + secrets.randbelow(127)]) + secrets.token_bytes(15)
    tbs = chain[0].tbs_certificate_bytes
    assert tbs.count(old) == 1, "one serial"
    tbs = tbs.replace(old, new)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        signature = key.sign(tbs)
    else:
        signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    forged = tlv(0x30, tbs + algorithm(chain[0]) + tlv(0x03, b"\0" + signature))
    pem = x509.load_der_x509_certificate(forged).public_bytes(serialization.Encoding.PEM)
    out.mkdir()
    (out / "agent.crt").write_bytes(pem + chain[1].public_bytes(serialization.Encoding.PEM))
    shutil.copy(agent / "agent.key", out / "agent.key")


if __name__ == "__main__":
    main(*sys.argv[1:])
