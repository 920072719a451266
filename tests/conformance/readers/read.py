"""Reads one connection as h11 or gunicorn does; says each request found.

usage: read.py h11|gunicorn SOCKET. A client writes the bytes of a connection and ends its
side; each whole request comes back as the line "x-seen: METHOD TARGET".
"""

import socketserver
import sys

import gunicorn.config
import gunicorn.http.parser
import h11


def by_h11(wire):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(wire)
    request = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED:
            if event is h11.NEED_DATA:
                return
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            yield request.method + b" " + request.target
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE or connection.their_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()


def by_gunicorn(wire):
    config = gunicorn.config.Config()
    config.set("limit_request_field_size", 0)
    pieces = (wire[at : at + 8192] for at in range(0, len(wire), 8192))
    for request in gunicorn.http.parser.RequestParser(config, pieces, ("127.0.0.1", 1)):
        request.body.read()
        yield f"{request.method} {request.uri}".encode()


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        wire = self.rfile.read()
        try:
            for line in self.server.reader(wire):
                self.wfile.write(b"x-seen: " + line + b"\n")
        except Exception as refused:  # whatever a parser raises is its refusal
            self.wfile.write(f"refused: {refused!r}\n".encode())


class Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 256
    daemon_threads = True


server = Server(sys.argv[2], Handler)
server.reader = {"h11": by_h11, "gunicorn": by_gunicorn}[sys.argv[1]]
server.serve_forever()
