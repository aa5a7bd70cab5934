"""What the cases of curl are asked of: says back what came, as JSON, and answers in the ways HTTP/1.1 has."""
import gzip
import hashlib
import http.server
import json
import sys
import time

FILE = bytes(range(256)) * 1000
ETAG = '"one"'
BROKEN = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one write, so that it is one packet too.
    wbufsize = -1

    def log_message(self, *_):
        pass

    def read_body(self):
        """The body, or None when it broke off; and how it was framed."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while True:
                line = self.rfile.readline()
                if not line:
                    return None, "chunked"
                size = int(line.split(b";")[0], 16)
                piece = self.rfile.read(size)
                if len(piece) < size:
                    return None, "chunked"
                while self.rfile.readline() not in (b"\r\n", b"") and not size:
                    pass
                if not size:
                    return body, "chunked"
                body += piece
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        return (body if len(body) == length else None), "length"

    def say(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def mirror(self):
        body, framing = self.read_body()
        if body is None:
            BROKEN.append(self.path)
            self.close_connection = True
            return
        told = {
            "method": self.command,
            "target": self.path,
            "version": self.request_version,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "framing": framing,
        }
        self.say(200, json.dumps(told).encode(), [("Content-Type", "application/json"), ("X-Empty", "")])

    def file(self):
        wanted, known = self.headers.get("range"), self.headers.get("if-range", ETAG)
        usual = [("Accept-Ranges", "bytes"), ("ETag", ETAG)]
        if self.headers.get("if-none-match") == ETAG:
            return self.say(304, b"", usual)
        if not wanted or known != ETAG:
            return self.say(200, FILE, usual)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        if first == "":
            first, last = len(FILE) - int(last), len(FILE) - 1
        first, last = int(first), min(int(last or len(FILE) - 1), len(FILE) - 1)
        if first >= len(FILE):
            return self.say(416, b"", [("Content-Range", f"bytes */{len(FILE)}")])
        return self.say(206, FILE[first : last + 1], [*usual, ("Content-Range", f"bytes {first}-{last}/{len(FILE)}")])

    def pieces(self, trailers=b""):
        """A body in chunks with a pause between."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        if trailers:
            self.send_header("Trailer", "X-End")
        self.end_headers()
        for piece in (b"one ", b"two ", b"three"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
            time.sleep(0.05)
        self.wfile.write(b"0\r\n" + trailers + b"\r\n")

    def refuse(self):
        """An answer before the body, as one gives who wants none of it."""
        self.say(413, b"too much", [("Connection", "close")])
        self.close_connection = True

    def early(self):
        """Answers before the answer: one to begin with, one when there is more to say."""
        self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        self.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        self.wfile.flush()
        time.sleep(0.05)
        self.say(200, b"done")

    def answer(self):
        path = self.path.split("?")[0]
        if path == "/file":
            self.file()
        elif path == "/gzip" and "gzip" in self.headers.get("accept-encoding", ""):
            self.say(200, gzip.compress(FILE), [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")])
        elif path == "/gzip":
            self.say(200, FILE, [("Vary", "Accept-Encoding")])
        elif path == "/pieces":
            self.pieces()
        elif path == "/trailers":
            self.pieces(b"X-End: it is\r\n")
        elif path == "/to-the-end":
            self.close_connection = True
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"no length")
        elif path == "/nothing":
            self.say(204)
        elif path == "/refuse":
            self.refuse()
        elif path == "/early":
            self.early()
        elif path == "/cookies":
            self.say(200, b"", [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/")])
        elif path == "/redirect":
            self.read_body()
            self.say(int(self.path.partition("?")[2]), b"", [("Location", "/mirror")])
        elif path == "/broken":
            self.say(200, json.dumps(BROKEN).encode())
        else:
            self.mirror()

    def __getattr__(self, name):
        # Any method is answered.
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
