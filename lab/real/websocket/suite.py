#!/usr/bin/env python3
"""WebSockets (RFC 6455, 7692, 8441) through the gateway, by the sections of the Autobahn test suite, which itself needs
Python 2: framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, large messages, compression.

usage: suite.py HOST:PORT AUTHORITY        needs the PyPI packages websockets, wsproto and h2; `run` starts the service

The service judges frames, the gateway carries them: what is asked here is that it carries all of them, and how they end.
"""
import asyncio
import pathlib
import socket
import struct
import sys

import h2.connection
import h2.events
import h2.settings
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import cases

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Raw:
    """Frames as they are written, over HTTP/1."""

    def __init__(self):
        host, _, port = TO.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 10)
        self.send = self.socket.sendall
        self.receive = lambda: self.socket.recv(65536)
        self.buffer = b""
        self.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: {AUTHORITY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.receive()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        # RFC 6455, section 1.3: the very key and answer of its example.
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head

    def frame(self, opcode, payload=b"", fin=True, reserved=0):
        mask = b"\x37\xfa\x21\x3d"
        first = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
        length = len(payload)
        if length < 126:
            head = first + bytes([0x80 | length])
        elif length < 65536:
            head = first + bytes([0x80 | 126]) + struct.pack(">H", length)
        else:
            head = first + bytes([0x80 | 127]) + struct.pack(">Q", length)
        self.send(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))

    def next(self):
        """Opcode and payload of the next frame; None at the end."""
        def need(count):
            while len(self.buffer) < count:
                piece = self.receive()
                if not piece:
                    return False
                self.buffer += piece
            return True
        if not need(2):
            return None
        opcode, length, at = self.buffer[0] & 15, self.buffer[1] & 127, 2
        if length > 125:
            at = 4 if length == 126 else 10
            need(at)
            length = int.from_bytes(self.buffer[2:at], "big")
        if not need(at + length):
            return None
        payload, self.buffer = self.buffer[at : at + length], self.buffer[at + length :]
        return opcode, payload

    def ends(self, code):
        got = self.next()
        while got and got[0] != CLOSE:
            got = self.next()
        assert got and got[1][:2] == struct.pack(">H", code), got
        self.frame(CLOSE, got[1][:2])
        assert self.next() is None


class Stream(Raw):
    """The same over a stream of HTTP/2 (RFC 8441)."""

    def __init__(self):
        host, _, port = TO.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 10)
        self.http = h2.connection.H2Connection()
        self.http.initiate_connection()
        self.buffer, self.ended, self.answered, self.told = b"", False, False, False
        self.flush()
        while not self.told:
            self.read()
        allowed = self.http.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL)
        assert allowed == 1, "the server does not offer it"
        fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/"),
                  (":authority", AUTHORITY), ("sec-websocket-version", "13")]
        self.http.send_headers(1, fields)
        self.flush()
        while not self.answered:
            self.read()

    def flush(self):
        self.socket.sendall(self.http.data_to_send())

    def read(self):
        data = self.socket.recv(65536)
        if not data:
            self.ended = True
            return b""
        said = b""
        for event in self.http.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.told = True
            elif isinstance(event, h2.events.ResponseReceived):
                fields = {(key.decode() if isinstance(key, bytes) else key): value for key, value in event.headers}
                assert fields[":status"] in (b"200", "200"), fields
                self.answered = True
            elif isinstance(event, h2.events.DataReceived):
                said += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)):
                self.ended = True
        self.flush()
        return said

    def receive(self):
        while not self.ended:
            said = self.read()
            if said:
                return said
        return b""

    def send(self, data):
        while data:
            room = min(self.http.local_flow_control_window(1), self.http.max_outbound_frame_size, len(data))
            if room == 0:
                self.buffer += self.read()
                continue
            self.http.send_data(1, data[:room])
            data = data[room:]
            self.flush()


CASES = []


def case(section):
    def add(test):
        CASES.append((section, test))
    return add


@case("1.1 lengths of text and binary")
def _(new):
    socket = new()
    for opcode in (TEXT, BINARY):
        for length in (0, 1, 125, 126, 127, 128, 65535, 65536):
            socket.frame(opcode, b"*" * length)
            assert socket.next() == (opcode, b"*" * length), length


@case("2 pings")
def _(new):
    socket = new()
    for payload in (b"", b"hello", bytes(range(0x80, 0xFD))):
        socket.frame(PING, payload)
        assert socket.next() == (PONG, payload)
    socket.frame(PONG, b"unasked")
    socket.frame(PING, b"x")
    assert socket.next() == (PONG, b"x")


@case("2.5 a ping that is too long")
def _(new):
    socket = new()
    socket.frame(PING, b"x" * 126)
    socket.ends(1002)


@case("3 reserved bits")
def _(new):
    for reserved in (1, 2, 3, 4, 7):
        socket = new()
        socket.frame(TEXT, b"x", reserved=reserved)
        socket.ends(1002)


@case("4 opcodes that mean nothing")
def _(new):
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        socket = new()
        socket.frame(opcode, b"x")
        socket.ends(1002)


@case("5 fragments with pings between them")
def _(new):
    socket = new()
    socket.frame(TEXT, b"frag", fin=False)
    socket.frame(PING, b"between")
    assert socket.next() == (PONG, b"between")
    socket.frame(CONTINUATION, b"ment", fin=False)
    socket.frame(CONTINUATION, b"s")
    assert socket.next() == (TEXT, b"fragments")


@case("5 what continues nothing")
def _(new):
    socket = new()
    socket.frame(CONTINUATION, b"x")
    socket.ends(1002)


@case("5 a fragmented control frame")
def _(new):
    socket = new()
    socket.frame(PING, b"x", fin=False)
    socket.ends(1002)


@case("6 text that is UTF-8")
def _(new):
    socket = new()
    for text in ("\u03ba\u1f79\u03c3\u03bc\u03b5", "\U0001f600", "\ufffd", "\U0010ffff"):
        socket.frame(TEXT, text.encode())
        assert socket.next() == (TEXT, text.encode())


@case("6 text that is not")
def _(new):
    for bad in (b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xce\xba\xe1"):
        socket = new()
        socket.frame(TEXT, bad)
        socket.ends(1007)


@case("7 closing: codes and reasons")
def _(new):
    for code in (1000, 1001, 1007, 1011, 3000, 4999):
        socket = new()
        socket.frame(CLOSE, struct.pack(">H", code) + b"because")
        socket.ends(code)


@case("7 closing with a code that is none")
def _(new):
    for code in (0, 999, 1004, 1005, 1006, 1016, 2999):
        socket = new()
        socket.frame(CLOSE, struct.pack(">H", code))
        socket.ends(1002)


@case("7 nothing is said after the end")
def _(new):
    socket = new()
    socket.frame(CLOSE, struct.pack(">H", 1000))
    socket.frame(TEXT, b"too late")
    assert socket.next()[0] == CLOSE


@case("9 large messages, whole and in fragments")
def _(new):
    socket = new()
    message = bytes(range(256)) * 4096
    socket.frame(BINARY, message)
    assert socket.next() == (BINARY, message)
    for at in range(0, len(message), 65536):
        socket.frame(BINARY if at == 0 else CONTINUATION, message[at : at + 65536], fin=at + 65536 == len(message))
    assert socket.next() == (BINARY, message)


async def compressed():
    """12 and 13: permessage-deflate, and many messages."""
    host, _, port = TO.rpartition(":")
    async with connect(f"ws://{AUTHORITY}/", host=host, port=int(port), max_size=None) as client:
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        for length in (0, 16, 1024, 131072, 8 << 20):
            message = "again " * (length // 6)
            await client.send(message)
            assert await client.recv() == message
        for number in range(2000):
            await client.send(str(number))
        for number in range(2000):
            assert await client.recv() == str(number)
        await client.close(4000, "done")
        assert client.close_code == 4000


def main():
    runs = [(f"{way}: {section}", lambda test=test, new=new: test(new))
            for way, new in (("HTTP/1", Raw), ("HTTP/2", Stream)) for section, test in CASES]
    runs.append(("HTTP/1: 12 and 13 compressed, and many", lambda: asyncio.run(compressed())))
    cases.run(runs, (AssertionError, OSError, ConnectionClosed))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    TO, AUTHORITY = sys.argv[1:]
    main()
