"""Throughput and latency of `gpt2 serve` against llama.cpp's `llama-server`, in turn in one run.

    python bench/peers/serve.py --gpt2 target/release/gpt2 --llama BUILD/bin -m DIR
    python bench/peers/serve.py --gpt2 target/release/gpt2 --llama BUILD/bin -m DIR --types q8_0 --clients 8 --rounds 5

DIR is a model directory with f32 weights; random ones do. Needs nothing but Python. BUILD/bin holds llama-server, built
as `infer.py` beside it says. Both serve the same GGUF file, which `gpt2 convert` writes; both are asked through OpenAI's
/v1/completions, streamed, with prompts of token ids that begin differently, and answers of so many tokens at temperature
1. In a turn all clients begin at once, and each sends its next request when the last one is answered. The table shows
the tokens that all clients together got in a second, from the first request to the last answer, and the time to the
first token, as medians over the turns.
"""

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A server that runs until it is closed."""

    def __init__(self, name, command, port, log):
        self.name, self.port = name, port
        env = dict(os.environ, OMP_PROC_BIND="true", OMP_PLACES="cores") if name != "gpt2" else None
        start = time.perf_counter()
        self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, env=env)
        while not self.is_ready():
            if self.process.poll() is not None:
                raise SystemExit(f"{name} ended with exit code {self.process.returncode}; see {log.name}")
            time.sleep(0.01)
        self.ready = time.perf_counter() - start

    def is_ready(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def close(self):
        self.process.terminate()
        self.process.wait()


def ask(port, prompt, new, seed):
    """The time to the first token, and the number of tokens."""
    body = {"model": "model", "prompt": prompt, "max_tokens": new, "temperature": 1.0, "seed": seed, "stream": True}
    body["stream_options"] = {"include_usage": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"status {response.status}: {response.read()[:300]}")
    first, tokens = None, 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if first is None and event.get("choices"):
            first = time.perf_counter() - start
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    connection.close()
    return first, tokens


def turn(port, args, seed):
    """Tokens a second of all clients, and their times to the first token."""
    firsts, tokens, lock = [], [], threading.Lock()
    gate = threading.Barrier(args.clients + 1)

    def client(number):
        numbers = random.Random(1000 * seed + number)
        gate.wait()
        for i in range(args.requests):
            prompt = [numbers.randrange(50256) for _ in range(args.prompt)]
            first, count = ask(port, prompt, args.new, seed=number * args.requests + i)
            with lock:
                firsts.append(first)
                tokens.append(count)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(args.clients)]
    for thread in threads:
        thread.start()
    gate.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(tokens) / (time.perf_counter() - start), firsts, sum(tokens)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpt2", default="target/release/gpt2")
    parser.add_argument("--llama", required=True, help="the directory of llama-server")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--types", default="bf16,q8_0")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=1, help="requests of a client in a turn")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write every turn to this file")
    args = parser.parse_args()
    raw = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.types.split(","):
            gguf = Path(folder) / f"model-{kind}.gguf"
            subprocess.run([args.gpt2, "convert", args.model, gguf, "--to", "gguf", "--type", kind], check=True, stdout=subprocess.DEVNULL)
            context = args.clients * -(-(args.prompt + args.new + 1) // 256) * 256
            ports = [free_port(), free_port()]
            ours = [args.gpt2, "serve", "-m", f"model={gguf}", "--port", ports[0], "--batch", args.clients, "--threads", args.threads]
            theirs = [Path(args.llama) / "llama-server", "-m", gguf, "--host", "127.0.0.1", "--port", ports[1], "-t", args.threads]
            theirs += ["-tb", args.threads, "-c", context, "-np", args.clients]
            rates, firsts = {}, {}
            log = open(Path(folder) / "log", "w")
            servers = [("gpt2", ours, ports[0]), ("llama-server", theirs, ports[1])]
            for number in range(args.rounds):
                for name, command, port in servers[:: 1 if number % 2 == 0 else -1]:
                    # One at a time, so that a waiting one does not spin.
                    server = Server(name, command, port, log)
                    ask(port, [1, 2, 3], 2, 0)
                    rate, times, tokens = turn(port, args, number)
                    server.close()
                    rates.setdefault(name, []).append(rate)
                    firsts.setdefault(name, []).append(statistics.median(times))
                    raw.append({"type": kind, "engine": name, "tokens_per_second": rate, "tokens": tokens, "first": times, "ready_s": server.ready})
                    print(f"{kind} {name}: {rate:.0f} tokens/s, first token after {statistics.median(times):.2f} s, ready after {server.ready:.2f} s, {tokens} tokens", flush=True)
            median = {name: (statistics.median(rates[name]), statistics.median(firsts[name])) for name in rates}
            (ours_rate, ours_first), (theirs_rate, theirs_first) = median["gpt2"], median["llama-server"]
            print(f"{kind}, {args.clients} clients: {ours_rate:.0f} against {theirs_rate:.0f} tokens/s, {ours_rate / theirs_rate:.2f} x; "
                  f"first token {ours_first:.2f} against {theirs_first:.2f} s", flush=True)
            log.close()
    if args.json:
        Path(args.json).write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
