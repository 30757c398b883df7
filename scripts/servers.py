"""Servers that a script starts on this machine, and requests to them."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

START_SECONDS = 120
FAULTS = (OSError, http.client.HTTPException)
WORDS = "the bread comes from a mill and foxes live in woods by rivers where ducks and bears eat berries".split()


class Client:
    """A client of one server, with a key or none. Each request has a connection of its own."""

    def __init__(self, url, key=None, timeout=600):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port, self.timeout = parts.hostname, parts.port or 80, timeout
        self.headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    @contextlib.contextmanager
    def response(self, method, path, body=None):
        """Sends a request; objects are sent as JSON."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        with contextlib.closing(connection):
            body = json.dumps(body) if isinstance(body, (dict, list)) else body
            connection.request(method, path, body, self.headers)
            yield connection.getresponse()

    def send(self, method, path, body=None, leave_after=None):
        """Sends a request; returns the status and the first bytes of the reply, or all."""
        with self.response(method, path, body) as response:
            return response.status, response.read(leave_after).decode(errors="replace")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(port):
    """Tells whether a server answers, or a proxy before one, if only with a fault."""
    try:
        Client(f"http://127.0.0.1:{port}").send("GET", "/health")
    except ConnectionRefusedError:
        return False
    except FAULTS:
        return True
    return True


def start(stack, command, port):
    """Starts a server in a process of its own, which ends with `stack`; returns it once it answers."""
    process = subprocess.Popen(command)
    stack.callback(process.wait)
    stack.callback(process.send_signal, signal.SIGTERM)
    end = time.time() + START_SECONDS
    while time.time() < end:
        if answers(port):
            return process
        if process.poll() is not None:
            sys.exit(f"{command[0]} ended with status {process.returncode}")
        time.sleep(0.2)
    sys.exit(f"{command[0]} does not listen on port {port}")
