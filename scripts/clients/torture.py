"""Clients that misbehave against a running `wsd serve`: python torture.py 127.0.0.1:8080 (standard library only)

1,000 connections cut at random moments must leave no slot taken; 2,000 idle or slow connections must be closed within 30 s and
leave the others at most twice as slow.
"""

import asyncio
import json
import random
import re
import resource
import statistics
import sys
import time

HOST, PORT = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080").split(":")
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))


def request(path, body=None):
    text = "" if body is None else json.dumps(body)
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode()


def chat(**more):
    messages = [{"role": "user", "content": random.choice(["What colour is a fox?", "Where does a duck live?"])}]
    return request("/v1/chat/completions", {"messages": messages, **more})


async def whole(data):
    reader, writer = await asyncio.open_connection(HOST, PORT)
    writer.write(data)
    text = (await reader.read()).decode()
    writer.close()
    return text


async def gauges():
    text = await whole(request("/metrics"))
    names = ["vllm:num_requests_running", "vllm:num_requests_waiting", "wsd_engine_slots"]
    return {m[0]: int(m[1]) for m in re.findall(rf"^((?:{'|'.join(names)}){{[^}}]*}}) (\d+)$", text, re.M)}


async def cut():
    try:
        reader, writer = await asyncio.open_connection(HOST, PORT)
        data = chat(stream=random.random() < 0.7, n=random.choice([1, 1, 4]), temperature=1.0)
        writer.write(data[: random.choice([len(data), len(data), random.randrange(len(data))])])
        await writer.drain()
        if random.random() < 0.5:
            await asyncio.wait_for(reader.read(random.choice([1, 300, 2000])), 5)
        await asyncio.sleep(random.random() ** 3 * 0.2)
        writer.transport.abort() if random.random() < 0.5 else writer.close()
    except (ConnectionError, asyncio.TimeoutError):
        pass


async def disconnects():
    places = asyncio.Semaphore(24)

    async def one():
        async with places:
            await cut()

    await asyncio.gather(*(one() for _ in range(1000)))
    started = time.time()
    while any((await gauges()).values()):
        await asyncio.sleep(0.05)
        assert time.time() - started < 20, await gauges()
    print(f"1,000 disconnects: no slot lost, all free {time.time() - started:.2f} s after the last")


async def latency():
    started = time.time()
    text = await whole(chat(model="base"))
    assert "200 OK" in text, text
    return time.time() - started


async def slow():
    alone = statistics.median([await latency() for _ in range(30)])
    connections = []
    for i in range(2000):
        reader, writer = await asyncio.open_connection(HOST, PORT)
        body = chat()
        writer.write([b"", body[:40], body[:-10]][i % 3])
        connections.append((reader, writer, time.time()))

    async def closed(reader, writer, since):
        try:
            await reader.read()
        except ConnectionError:
            pass
        writer.close()
        return time.time() - since

    waits = asyncio.gather(*(closed(*connection) for connection in connections))
    among = statistics.median([await latency() for _ in range(30)])
    longest = max(await waits)
    print(f"2,000 idle or slow connections: closed within {longest:.1f} s; an answer took {1e3 * alone:.1f} ms alone, {1e3 * among:.1f} ms among them")
    assert longest < 30 and among < 2 * alone + 0.005


asyncio.run(disconnects())
asyncio.run(slow())
