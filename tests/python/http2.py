"""HTTP/2 requests that no decent client sends, frame by frame.

http2.py HOST PORT AGENT-DIR ROOT

Each must be refused: by a signed answer of the expected status, or by ending the stream or the connection. Never by
silence, and never by a plain answer. Prints, as JSON, how many there were.
"""

import json
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.exceptions

GOOD = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/v1/accounts/7")]


def changed(name, value):
    return [(field, value if field == name else old) for field, old in GOOD]


def without(name):
    return [(field, old) for field, old in GOOD if field != name]


# What is sent, and which status an answer may have; an ended stream or connection is fine where the framing is at fault.
CASES = [
    ("plain", GOOD, {200}),
    ("another path", changed(":path", "/nowhere"), {403}),
    ("another authority", changed(":authority", "elsewhere.example.org"), {421}),
    ("another scheme", changed(":scheme", "http"), {400}),
    ("a host in place of the authority", without(":authority") + [("host", "localhost")], {400}),
    ("a host that differs", GOOD + [("host", "elsewhere.example.org")], {400, 421}),
    ("dots in the path", changed(":path", "/v1/../v1/accounts/7"), {400}),
    ("an absolute path", changed(":path", "https://localhost/v1/accounts/7"), {400}),
    ("an empty path", changed(":path", ""), {400}),
    ("no path", without(":path"), {400}),
    ("no authority", without(":authority"), {400, 421}),
    ("no method", without(":method"), {400}),
    ("two paths", GOOD + [(":path", "/v1/accounts/8")], {400}),
    ("an unknown pseudo field", GOOD + [(":admin", "1")], {400}),
    ("a pseudo field after others", GOOD[:3] + [("x", "1"), GOOD[3]], {400}),
    ("transfer-encoding", GOOD + [("transfer-encoding", "chunked")], {400}),
    ("connection", GOOD + [("connection", "close")], {400}),
    ("an upper-case name", GOOD + [("X-Upper", "1")], {400}),
    ("an underscore", GOOD + [("x_under", "1")], {400}),
    ("a line break", GOOD + [("x", "a\r\nagent-id: b")], {400}),
    ("a NUL", GOOD + [("x", "a\0b")], {400}),
    ("a space in the path", changed(":path", "/v1/accounts/7 HTTP/1.1"), {400}),
    ("a length without a body", GOOD + [("content-length", "5")], {400}),
    ("CONNECT", [(":method", "CONNECT"), (":authority", "localhost")], {400, 501}),
    ("extended CONNECT", changed(":method", "CONNECT") + [(":protocol", "websocket")], {400, 501}),
    ("too large a body", [(":method", "POST")] + GOOD[1:3] + [(":path", "/v1/echo"), ("content-length", "2000000")], {413}),
    ("too many bytes of fields", GOOD + [("x-large", "x" * 24_000)], {431}),
]

# Nothing is wrong with the framing of these.
ANSWERED = {"plain", "another path", "another authority", "another scheme", "dots in the path", "an underscore", "too large a body"}


def ask(address, context, headers):
    """("answered", status, fields), or ("reset",) or ("closed",)."""
    raw = socket.create_connection(address, timeout=20)
    with context.wrap_socket(raw, server_hostname="localhost") as tls:
        assert tls.selected_alpn_protocol() == "h2"
        config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        unfinished = ("content-length", "2000000") in headers
        connection.send_headers(1, headers, end_stream=not unfinished)
        answer = None
        try:
            tls.sendall(connection.data_to_send())
            while data := tls.recv(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived):
                        fields = {name.decode(): value.decode() for name, value in event.headers}
                        answer = ("answered", int(fields[":status"]), fields)
                    elif isinstance(event, h2.events.StreamEnded):
                        return answer
                    elif isinstance(event, h2.events.StreamReset):
                        return answer or ("reset",)
                    elif isinstance(event, h2.events.ConnectionTerminated):
                        return answer or ("closed",)
                tls.sendall(connection.data_to_send())
        except (ConnectionError, ssl.SSLError, h2.exceptions.ProtocolError) as error:
            if isinstance(error, TimeoutError):
                raise
        return answer or ("closed",)


def main(host, port, agent, root):
    context = ssl.create_default_context(cafile=root)
    context.load_cert_chain(f"{agent}/agent.crt", f"{agent}/agent.key")
    context.set_alpn_protocols(["h2"])
    wrong = []
    for name, headers, statuses in CASES:
        got = ask((host, int(port)), context, headers)
        if got[0] != "answered":
            if name in ANSWERED:
                wrong.append(f"{name}: {got}")
            continue
        _, status, fields = got
        if status not in statuses:
            wrong.append(f"{name}: {status} instead of {statuses}")
        if "signature" not in fields or "agent-audit" not in fields:
            wrong.append(f"{name}: an unsigned answer: {fields}")
    if wrong:
        sys.exit("\n".join(wrong))
    print(json.dumps({"asked": len(CASES)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
