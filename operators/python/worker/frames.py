"""The worker's end of the socket: frames in, frames out, and what a failure is told as.

    frame := b"ETLS" header_length:u32 body_length:u64 header(JSON) body          (little-endian)

The engine gives the socket as descriptor 0. It is moved away before any other code runs, so that what reads standard
input finds nothing and what prints goes to the engine's log.
"""

import ctypes
import faulthandler
import functools
import json
import os
import signal
import socket
import struct
import sys
import threading
import traceback

_HEAD = struct.Struct("<4sIQ")


class Refused(Exception):
    """A failure of a known kind, whose words hold no value of a row."""

    def __init__(self, kind, message, cause=None):
        super().__init__(message)
        self.kind, self.message, self.cause = kind, message, cause


def _take_socket():
    sock = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    try:
        # Linux: a worker does not outlive an engine that was killed.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (OSError, AttributeError):
        pass
    # The engine decides when it ends: a Ctrl-C of the terminal is the engine's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    sys.stdout.reconfigure(line_buffering=True)
    try:
        from etl_stream._frames import Frames
    except ImportError:
        return Plain(sock)
    return Frames(sock.detach())


class Plain:
    """The socket, read and written by the interpreter. The wheel's `Frames` does the same ahead and behind."""

    def __init__(self, sock):
        self.sock, self.turn = sock, threading.Lock()

    def _fill(self, length):
        whole = bytearray(length)
        view = memoryview(whole)
        while len(view):
            got = self.sock.recv_into(view)
            if got == 0:
                raise EOFError
            view = view[got:]
        return whole

    def receive(self):
        magic, header, body = _HEAD.unpack(self._fill(_HEAD.size))
        if magic != b"ETLS":
            raise EOFError
        return self._fill(header), self._fill(body)

    def send(self, header, parts):
        with self.turn:
            self.sock.sendall(_HEAD.pack(b"ETLS", len(header), sum(map(len, parts))) + header)
            for part in parts:
                self.sock.sendall(part)

    def close(self):
        self.sock.close()


def _frames(error, own):
    """The traceback as text: places and source lines, never the exception's words, which may hold a row's values."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != own]
    return "".join(traceback.format_list(places))


def told(error):
    """A failure as the header of an answer."""
    own = "<etl-stream>"
    if isinstance(error, Refused):
        cause = error.cause
        trace = _frames(cause, own) if cause is not None else ""
        words = "" if cause is None else f"{type(cause).__name__}: {cause}"
        return {"error": {"kind": error.kind, "message": error.message, "trace": trace, "words": words}}
    if isinstance(error, SyntaxError):
        place = f'  File "{error.filename}", line {error.lineno}\n'
    else:
        place = _frames(error, own)
    name = type(error).__name__
    return {"error": {"kind": "raised", "message": name, "trace": place, "words": f"{name}: {error}"}}


def serve(start):
    """Answers frames until the engine closes. `start` makes the host of the first frame's settings; its calls give a
    header and the parts of a body, or a future of them: then the answer may come after later ones."""
    link = _take_socket()
    host = None

    def answer(number, answer, parts=()):
        try:
            link.send(json.dumps({"number": number, **answer}).encode(), [memoryview(part).cast("B") for part in parts if len(part)])
        except OSError:
            # The engine is gone, which the next read says.
            pass

    def later(number, future):
        error = future.exception()
        if error is not None:
            answer(number, told(error))
        else:
            answer(number, *future.result())

    while True:
        try:
            header, body = link.receive()
        except (EOFError, OSError):
            return
        header = json.loads(header)
        call, number = header["call"], header.get("number", 0)
        try:
            if call == "start":
                host = start(header)
                made = {}, ()
            elif call == "close":
                host.close()
                made = {}, ()
            else:
                made = host.calls[call](header, body)
        except BaseException as error:
            # SystemExit too: a batch that wants to end the process is a batch that failed.
            made = told(error), ()
        if isinstance(made, tuple):
            answer(number, *made)
        else:
            made.add_done_callback(functools.partial(later, number))
        if call == "close":
            link.close()
            return
