"""Load on `gpt2 serve`: many clients for many minutes, some of whom leave, send garbage, or never finish a request.

    python bench/load.py --gpt2 target/release/gpt2 -m out/quickstart --minutes 10 --clients 64

Needs nothing but Python. Each client draws what it does next: a whole text, a streamed one, one that it leaves in the
middle, garbage, a request of which only the half comes. Every text that is not left must be whole, or refused with 429
and asked for again; equal requests must have equal answers. At the end the server must be idle, with every place free,
and its memory as it was after the first tenth of the time.
"""

import argparse
import collections
import http.client
import json
import random
import socket
import subprocess
import threading
import time

COUNTS, ANSWERS, FAULTS, LOCK = collections.Counter(), {}, [], threading.Lock()


def count(what):
    with LOCK:
        COUNTS[what] += 1


def text(port, draw, leaves=False):
    """Asks for a text, until it is not refused for want of room."""
    number = draw.randrange(40)  # so that equal requests meet
    stream = leaves or draw.random() < 0.5
    body = {"model": "m", "prompt": f"Once upon a time number {number}", "max_tokens": 8 + number, "seed": number, "stream": stream}
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status == 429:
            assert int(response.headers["Retry-After"]) >= 1
            count("refused for want of room")
            connection.close()
            time.sleep(draw.random())
            continue
        assert response.status == 200, response.read()[:200]
        break
    if leaves:
        response.read(draw.randrange(1, 400))
        connection.close()
        return count("left")
    raw = response.read()
    connection.close()
    if stream:
        assert raw.rstrip().endswith(b"data: [DONE]"), raw[-100:]
        events = [json.loads(line[6:]) for line in raw.split(b"\n") if line.startswith(b"data: {")]
        got = "".join(event["choices"][0]["text"] for event in events if event["choices"])
    else:
        got = json.loads(raw)["choices"][0]["text"]
    with LOCK:
        assert ANSWERS.setdefault(number, got) == got, f"request {number} has two answers"
        COUNTS["streamed" if stream else "whole"] += 1


def garbage(port, draw):
    kinds = [b"\x16\x03\x01\x02", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{{{{{"]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(draw.choice(kinds) + draw.randbytes(draw.randrange(50)))
        connection.shutdown(socket.SHUT_WR)
        try:
            while connection.recv(4096):
                pass
        except ConnectionError:
            pass
    count("garbage")


def half(port, draw, open_ones):
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{"[: draw.randrange(1, 70)])
    open_ones.append(connection)
    if len(open_ones) > 3:
        open_ones.pop(0).close()
    count("half open")


def client(port, number, until):
    draw, open_ones = random.Random(number), []
    while time.monotonic() < until:
        kind = draw.random()
        try:
            if kind < 0.70:
                text(port, draw)
            elif kind < 0.85:
                text(port, draw, leaves=True)
            elif kind < 0.95:
                garbage(port, draw)
            else:
                half(port, draw, open_ones)
        except Exception as error:  # told at the end, with its kind
            with LOCK:
                FAULTS.append(f"client {number}: {type(error).__name__}: {error}")
    for connection in open_ones:
        connection.close()


def metrics(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.split("{")[0]: float(value) for name, value in pairs}


def is_ready(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def memory(process):
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpt2", default="target/release/gpt2")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ["serve", "-m", f"m={args.model}", "--port", str(port), "--batch", "16", "--queue", "16", "--log-level", "warn"]
    process = subprocess.Popen([args.gpt2, *flags], stderr=subprocess.DEVNULL)
    while not is_ready(port):
        time.sleep(0.05)
    start = time.monotonic()
    until = start + 60 * args.minutes
    threads = [threading.Thread(target=client, args=(port, number, until)) for number in range(args.clients)]
    for thread in threads:
        thread.start()
    tenths = []
    for tenth in range(1, 11):
        time.sleep(max(0, start + 6 * args.minutes * tenth - time.monotonic()))
        tenths.append(memory(process))
    for thread in threads:
        thread.join()
    while (now := metrics(port))["vllm:num_requests_running"] + now["vllm:num_requests_waiting"] > 0:
        time.sleep(0.1)
    late = memory(process)
    print(dict(COUNTS), f"in {time.monotonic() - start:.0f} s")
    print("memory after each tenth of the time:", ", ".join(f"{tenth / 1e6:.1f}" for tenth in tenths), f"MB; at the end {late / 1e6:.1f} MB")
    print("at the end:", {name: value for name, value in now.items() if name.startswith("vllm:") or "blocks" in name})
    for fault in FAULTS[:20]:
        print(fault)
    process.terminate()
    assert process.wait() == 0, "the server did not end well"
    assert not FAULTS, f"{len(FAULTS)} faults"
    assert late < 1.1 * tenths[0] + 20e6, "memory grew"


if __name__ == "__main__":
    main()
