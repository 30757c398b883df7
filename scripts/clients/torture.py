"""Clients that misbehave against a running `wsd serve`: python torture.py [127.0.0.1:8080] [case ...] (standard library only)

disconnects  1,000 connections cut at random moments leave no slot taken
slow         2,000 idle or slow connections are closed within 30 s and leave the others at most twice as slow
stalled      200 streams whose readers stop reading: let go within 60 s, memory stays (serve with --max-concurrent 200)
bodies       400 bodies of nearly 2 MiB held back at their last byte: memory stays, what does not fit is refused
fair         short questions beside clients that send prompts as long as the context
soak         all of the above and ordinary requests, mixed, for $SOAK_SECONDS (60): same answers, no 5xx, memory stays

Without a case: all but soak.
"""

import asyncio
import json
import os
import random
import re
import resource
import socket
import statistics
import sys
import time

HOST, PORT = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080").split(":")
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))


def request(path, body=None):
    text = "" if body is None else json.dumps(body)
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
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
    """Idle connections, halves of requests, and requests without their last bytes."""
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




async def metric(name):
    text = await whole(request("/metrics"))
    return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])


async def memory():
    return await metric("process_resident_memory_bytes") / 2**20


async def stall(streams):
    """Streams of many bytes, of which only the first is read; how many were let in."""
    body = chat(stream=True, n=16, logprobs=True, top_logprobs=20, temperature=1.5, max_tokens=400)
    connections = []
    for _ in range(streams):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (HOST, int(PORT)))
        await asyncio.get_running_loop().sock_sendall(raw, body)
        connections.append(raw)
    heads = [await asyncio.wait_for(asyncio.get_running_loop().sock_recv(raw, 15), 60) for raw in connections]
    return connections, sum(b"200" in head for head in heads)


async def stalled():
    before = await memory()
    connections, streams = await stall(200)
    started, most = time.time(), 0
    while any((await gauges()).values()):
        most = max(most, await memory())
        await asyncio.sleep(0.5)
        assert time.time() - started < 120, await gauges()
    for raw in connections:
        raw.close()
    print(f"{streams} stalled streams: let go after {time.time() - started:.0f} s; {before:.0f} MiB before, at most {most:.0f} MiB")
    assert most < before + 1024


async def bodies():
    before, size = await memory(), 2**21 - 1
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    data = head.encode() + b" " * (size - 1)

    async def hold():
        reader, writer = await asyncio.open_connection(HOST, PORT)
        try:
            writer.write(data)
            await writer.drain()
            return await reader.read(12)
        except ConnectionError:
            return b"cut"
        finally:
            writer.close()

    work = asyncio.gather(*(hold() for _ in range(400)))
    most = 0
    while not work.done():
        most = max(most, await memory())
        await asyncio.sleep(0.2)
    heads = await work
    refused, late = sum(b"429" in head for head in heads), sum(b"408" in head for head in heads)
    print(f"400 bodies of 2 MiB: {late} timed out, {refused} refused, {400 - late - refused} cut; {before:.0f} MiB before, at most {most:.0f} MiB")
    assert most < before + 1024


async def fair():
    def short():
        return timed(chat(model="base", max_tokens=16))

    async def timed(data):
        started = time.time()
        text = await whole(data)
        assert "200 OK" in text, text
        return time.time() - started

    alone = [await short() for _ in range(100)]
    prompt = request("/v1/completions", {"model": "base", "prompt": "fox " * 220, "max_tokens": 1, "echo": True, "logprobs": 0})
    writing = True

    async def long():
        count = 0
        while writing:
            assert "200 OK" in await whole(prompt)
            count += 1
        return count

    prompts = asyncio.gather(*(long() for _ in range(8)))
    beside = [await short() for _ in range(100)]
    writing = False
    count = sum(await prompts)
    spread = lambda times: "{:.1f} / {:.1f} ms".format(*(1e3 * sorted(times)[int(len(times) * part)] for part in (0.5, 0.98)))
    print(f"short answers (median / 98th percentile): {spread(alone)} alone, {spread(beside)} beside 8 clients with long prompts ({count} of them)")


async def soak():
    seconds = float(os.environ.get("SOAK_SECONDS", "60"))
    ends, count, statuses, answers = time.time() + seconds, 0, {}, {}
    readings = [await memory()]

    async def ordinary():
        kind = random.randrange(6)
        fixed = {"messages": [{"role": "user", "content": "What does a cow eat?"}]}
        body = [fixed, fixed, {**fixed, "stream": True}, {**fixed, "n": 3, "temperature": 1.0},
                {**fixed, "logprobs": True, "top_logprobs": 3}, {**fixed, "temperature": -1}][kind]
        text = await whole(request("/v1/chat/completions", body))
        status = text.split(" ", 2)[1] if text else "cut"
        statuses[status] = statuses.get(status, 0) + 1
        if kind < 2 and status == "200":
            content = json.loads(text[text.index("{"): text.rindex("}") + 1])["choices"][0]["message"]["content"]
            answers[content] = answers.get(content, 0) + 1

    async def client():
        nonlocal count
        while time.time() < ends:
            await (cut() if random.random() < 0.3 else ordinary())
            count += 1

    async def watch():
        while time.time() < ends:
            await asyncio.sleep(seconds / 20)
            readings.append(await memory())

    await asyncio.gather(watch(), *(client() for _ in range(24)))
    started = time.time()
    while any((await gauges()).values()):
        await asyncio.sleep(0.05)
        assert time.time() - started < 20, await gauges()
    files = await metric("process_open_fds")
    path = ", ".join(f"{reading:.0f}" for reading in readings)
    print(f"soak: {count} requests in {seconds:.0f} s, statuses {statuses}, {len(answers)} answer to one question; MiB: {path}; {files:.0f} files open at the end")
    assert len(answers) == 1 and not any(status.startswith("5") for status in statuses) and readings[-1] < 2 * readings[1] + 64


CASES = {case.__name__: case for case in (disconnects, slow, stalled, bodies, fair, soak)}
for name in sys.argv[2:] or [name for name in CASES if name != "soak"]:
    asyncio.run(CASES[name]())
