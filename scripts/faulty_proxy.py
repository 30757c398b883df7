"""A proxy before an HTTP server that injects faults, for tests of clients that must outlive them.

    python3 scripts/faulty_proxy.py --to 127.0.0.1:8081 --port 8082 [--rate 0.05] [--seed 1]

Of the requests that pass, about the share `--rate` meets one of these, chosen at random: the connection is reset, the
reply is 500 or 503, it begins late, it breaks off after some bytes, by an end or by a reset, or its bytes come slowly.
It prints the number of each on SIGTERM.
"""

import argparse
import collections
import random
import select
import signal
import socket
import struct
import sys
import threading
import time

BUFFER = 16 << 10
MOST_DELAY_SECONDS = 2.0
MOST_BYTES_BEFORE_CUT = 2000
SLOW_BYTES, SLOW_SECONDS = 64, 0.02
FAULTS = ["reset", "500", "503", "late", "cut", "cut by reset", "slow"]


class Proxy:
    def __init__(self, target, rate, seed):
        self.target, self.rate = target, rate
        self.rng, self.lock, self.counts = random.Random(seed), threading.Lock(), collections.Counter()

    def draw(self):
        """The fault of a request, or none, and a number for its size."""
        with self.lock:
            fault = self.rng.choice(FAULTS) if self.rng.random() < self.rate else None
            self.counts[fault or "none"] += 1
            return fault, self.rng.random()

    def serve(self, client):
        """Passes a connection's bytes in both directions until either side, or a fault, ends it."""
        with client, socket.create_connection(self.target) as server:
            fault, size, left, in_request = None, 0.0, 0, False
            while True:
                readable, _, _ = select.select([client, server], [], [])
                if client in readable:
                    data = client.recv(BUFFER)
                    if not data:
                        return
                    if not in_request:
                        fault, size = self.draw()
                        left, in_request = int(size * MOST_BYTES_BEFORE_CUT), True
                    if fault == "reset":
                        return reset(client)
                    if fault in ("500", "503"):
                        return refuse(client, fault)
                    server.sendall(data)
                if server in readable:
                    data = server.recv(BUFFER)
                    if not data:
                        return
                    if in_request and fault == "late":
                        time.sleep(size * MOST_DELAY_SECONDS)
                    in_request = False
                    if fault in ("cut", "cut by reset") and len(data) >= left:
                        client.sendall(data[:left])
                        return reset(client) if fault == "cut by reset" else None
                    left -= len(data)
                    send(client, data, slowly=fault == "slow")


def reset(connection):
    """Closes a connection with a reset instead of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def refuse(connection, status):
    body = b'{"error": {"message": "injected"}}'
    head = f"HTTP/1.1 {status} Injected\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)


def send(connection, data, slowly):
    if not slowly:
        return connection.sendall(data)
    for start in range(0, len(data), SLOW_BYTES):
        connection.sendall(data[start:start + SLOW_BYTES])
        time.sleep(SLOW_SECONDS)


def guarded(serve, client):
    try:
        serve(client)
    except OSError:
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    host, port = args.to.rsplit(":", 1)
    proxy = Proxy((host, int(port)), args.rate, args.seed)

    def end(*_):
        print("requests by fault:", dict(proxy.counts), flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    with socket.create_server(("127.0.0.1", args.port), backlog=128) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=guarded, args=(proxy.serve, client), daemon=True).start()


if __name__ == "__main__":
    main()
