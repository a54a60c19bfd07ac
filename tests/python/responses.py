"""Calls an enforcer with requests and httpx, and verifies every answer from the root certificate alone.

responses.py BASE-URL AGENT-DIR ROOT LOG-ORIGIN LOG-DIR

The signature (RFC 9421, by http-message-signatures), the derived list of components, the signer's chain, Content-Digest
(RFC 9530), and Agent-Audit with the very record it names in the log's directory.
"""

import base64
import hashlib
import json
import re
import ssl
import sys
import time

import http_sf
import httpx
import requests
from cryptography import x509
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, InvalidSignature
from http_message_signatures.algorithms import ED25519

import evidence
from evidence import demand

OPTIONAL_FIELDS = ["content-type", "content-encoding", "location"]


class Keys(HTTPSignatureKeyResolver):
    """The response signers that the enforcer publishes, as far as they lead to the root."""

    def __init__(self, chains, root, origin):
        self.known, self.ends = {}, {}
        for chain in chains:
            chain = [base64.b64decode(der) for der in chain]
            if evidence.names(chain[0]) == ["spiffe://" + origin]:
                continue  # The log's own key signs no answers.
            key, leaf = evidence.signer(chain, root, origin + "/response")
            keyid = hashlib.sha256(evidence.spki(key)).hexdigest()
            self.known[keyid] = key
            self.ends[keyid] = int(leaf.not_valid_after_utc.timestamp())

    def resolve_public_key(self, key_id):
        return self.known.get(key_id)


class Message:
    """What both HTTP libraries give, as the verifier wants it."""

    def __init__(self, method, url, request_headers, status, headers, body):
        self.status_code, self.headers, self.body, self.url = status, headers, body, url
        self.request = type("Request", (), {"method": method, "url": url, "headers": request_headers})()


def derived_components(message, stream):
    """ARCHITECTURE.md: in this order and derived, never chosen."""
    components = ['"@status"', '"agent-audit"', '"@method";req', '"@target-uri";req']
    empty = message.request.method == "HEAD" or message.status_code in (204, 304)
    if not stream and not empty:
        components.append('"content-digest"')
    components += [f'"{field}"' for field in OPTIONAL_FIELDS if field in message.headers]
    for field in ("content-digest", "agent-nonce"):
        if field in message.request.headers:
            components.append(f'"{field}";req')
    return components


def audit_of(message):
    fields = http_sf.parse(message.headers["agent-audit"].encode(), tltype="dictionary")
    demand(list(fields) == ["log", "index", "leaf", "phase", "peer", "salt"], f"Agent-Audit has {list(fields)}")
    return {name: value for name, (value, _) in fields.items()}


def verify(message, keys, certificate, stream=False):
    """The answer's Agent-Audit, once everything about it holds."""
    verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=keys)
    result, = verifier.verify(message, expect_tag="agentca-response", expect_label="enf")
    covered = [name for name in result.covered_components if name != '"@signature-params"']
    demand(covered == derived_components(message, stream), f"covers {covered}")
    demand(result.parameters["alg"] == "ed25519", "no alg")
    demand(result.parameters["expires"] == keys.ends[result.parameters["keyid"]], "expires before its signer")
    demand(abs(result.parameters["created"] - time.time()) < 30, "created at another time")
    audit = audit_of(message)
    empty = message.request.method == "HEAD" or message.status_code in (204, 304)
    if not stream and not empty:
        digest = base64.b64encode(hashlib.sha256(message.body).digest()).decode()
        demand(message.headers["content-digest"] == f"sha-256=:{digest}:", "Content-Digest of another body")
    demand(("content-digest" in message.headers) == (not stream and not empty), "Content-Digest where it should not be")
    demand(str(audit["phase"]) == ("open" if stream else "closed"), f"phase {audit['phase']}")
    peer = evidence.sha256(certificate.public_bytes(evidence.Encoding.DER))
    demand(bytes(audit["peer"]) == peer, "Agent-Audit of another peer")
    demand(len(bytes(audit["salt"])) == 16, "no salt")
    return audit


def check_record(message, audit, records, stream=False):
    """The record that an answer names is in the log and says what the answer says."""
    index = int(audit["index"])
    demand(index < len(records), f"record {index} is not in the log: it was answered before it was durable")
    record = records[index]
    demand(evidence.leaf_hash(record) == bytes(audit["leaf"]), f"record {index} has another leaf hash")
    value = json.loads(record)
    demand(value["log"] == str(audit["log"]) and value["seq"] == index, "a record of another place")
    demand(str(audit["salt"]) not in record.decode(), "the salt is in the record")
    if stream:
        return value
    result = value["result"]
    body = b"" if message.request.method == "HEAD" else message.body
    salted = hashlib.sha256(bytes(audit["salt"]) + hashlib.sha256(body).digest()).digest()
    demand(base64.b64decode(result["digest"]) == salted, f"record {index} has another digest")
    demand(result["status"] == message.status_code, f"record {index} has another status")
    return value


def with_requests(session, base, method, path, **options):
    answer = session.request(method, base + path, timeout=30, allow_redirects=False, **options)
    return Message(method, answer.request.url, answer.request.headers, answer.status_code, answer.headers, answer.content)


def with_httpx(client, base, method, path, **options):
    answer = client.request(method, base + path, **options)
    demand(answer.http_version == "HTTP/2", f"spoke {answer.http_version}")
    return Message(method, str(answer.request.url), answer.request.headers, answer.status_code, answer.headers, answer.content)


def calls():
    body = b'{"amount": "10.00"}'
    digest = "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"
    kind = {"Content-Type": "application/json"}
    return [
        ("GET", "/v1/accounts/7", {}, 200),
        ("GET", "/v1/accounts/7?verbose=1&x=%20", {}, 200),
        ("GET", "/v1/accounts/7", {"headers": {"Agent-Nonce": "n-1"}}, 200),
        ("HEAD", "/v1/big/100", {}, 200),
        ("GET", "/v1/big/0", {}, 200),
        ("GET", "/v1/big/300000", {}, 200),
        ("GET", "/v1/status/204", {}, 204),
        ("GET", "/v1/status/304", {}, 304),
        ("GET", "/v1/status/302", {}, 302),
        ("GET", "/v1/status/500", {}, 500),
        ("GET", "/v1/nasty/1", {}, 200),
        ("POST", "/v1/echo", {"content": body, "headers": kind}, 200),
        ("POST", "/v1/echo", {"content": body, "headers": kind | {"Content-Digest": digest, "Agent-Nonce": "n-2"}}, 200),
        ("POST", "/v1/echo", {"content": b"other", "headers": kind | {"Content-Digest": digest}}, 400),
        ("GET", "/v1/audits/7", {}, 403),
        ("POST", "/v1/accounts/7", {"content": body}, 403),
        ("DELETE", "/v1/accounts/7", {}, 403),
        ("GET", "/nowhere", {}, 403),
        ("GET", "/v1/short/1", {}, 502),
        ("GET", "/.well-known/agentca/signers", {}, 200),
    ]


def main(base, agent, root_path, origin, log):
    root = evidence.root_certificate(root_path)
    credential = (f"{agent}/agent.crt", f"{agent}/agent.key")
    certificate = x509.load_pem_x509_certificate(open(credential[0], "rb").read())
    session = requests.Session()
    session.trust_env, session.cert, session.verify = False, credential, root_path
    context = ssl.create_default_context(cafile=root_path)
    context.load_cert_chain(*credential)
    client = httpx.Client(http2=True, verify=context, trust_env=False, timeout=30)

    published = with_requests(session, base, "GET", "/.well-known/agentca/signers")
    keys = Keys(json.loads(published.body)["signers"], root, origin)
    verified = []
    for method, path, options, status in calls():
        content = options.get("content")
        headers = options.get("headers", {})
        for speak, transport, more in (
            (with_requests, session, {"data": content, "headers": headers}),
            (with_httpx, client, {"content": content, "headers": headers}),
        ):
            message = speak(transport, base, method, path, **more)
            where = f"{speak.__name__} {method} {path}"
            try:
                demand(message.status_code == status, f"{message.status_code} instead of {status}: {message.body!r}")
                verified.append((where, message, verify(message, keys, certificate)))
            except (InvalidSignature, evidence.Wrong) as wrong:
                raise evidence.Wrong(f"{where}: {wrong!r}; {dict(message.headers)}") from wrong

    streamed(session, base, keys, certificate)
    tampered(verified[0][1], keys, certificate)
    records = evidence.records(log)
    for where, message, audit in verified:
        try:
            check_record(message, audit, records)
        except (evidence.Wrong, KeyError) as wrong:
            raise evidence.Wrong(f"{where}: {wrong!r}; {records[int(audit['index'])]!r}") from wrong
    print(json.dumps({"verified": len(verified)}))


def streamed(session, base, keys, certificate):
    """A body without a length is a stream: its head is signed at once, its digest comes later."""
    message = with_requests(session, base, "GET", "/v1/chunked/1")
    demand(message.body == b"hello, world", f"a stream changed: {message.body!r}")
    audit = verify(message, keys, certificate, stream=True)
    deadline = time.monotonic() + 20
    while True:
        outcome = with_requests(session, base, "GET", f"/.well-known/agentca/outcome/{int(audit['index'])}")
        demand(outcome.status_code == 200, f"no outcome: {outcome.status_code} {outcome.body!r}")
        verify(outcome, keys, certificate)
        document = json.loads(outcome.body)
        if document["state"] == "ended":
            break
        demand(time.monotonic() < deadline, f"the stream never ends: {document}")
    result = json.loads(document["record"])["result"]
    salted = hashlib.sha256(bytes(audit["salt"]) + hashlib.sha256(message.body).digest()).digest()
    demand(base64.b64decode(result["digest"]) == salted, f"the outcome has another digest: {result}")
    demand(result["ended"] == "complete" and result["length"] == len(message.body), f"{result}")


def tampered(message, keys, certificate):
    """Whatever is changed, the verifier notices: else the verifications above say nothing."""
    changes = {
        "status": lambda m: setattr(m, "status_code", 201),
        "method": lambda m: setattr(m.request, "method", "PUT"),
        "target": lambda m: setattr(m.request, "url", m.request.url + "0"),
        "body": lambda m: setattr(m, "body", m.body + b" "),
        "audit": lambda m: m.headers.update({"agent-audit": re.sub(r"index=\d+", "index=1", m.headers["agent-audit"])}),
        "type": lambda m: m.headers.update({"content-type": "text/html"}),
    }
    for what, change in changes.items():
        copy = Message(message.request.method, message.request.url, dict(message.request.headers),
                       message.status_code, type(message.headers)(message.headers), message.body)
        change(copy)
        try:
            verify(copy, keys, certificate)
        except (InvalidSignature, evidence.Wrong):
            continue
        raise evidence.Wrong(f"a changed {what} was not noticed")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except evidence.Wrong as wrong:
        sys.exit(f"responses: {wrong}")
