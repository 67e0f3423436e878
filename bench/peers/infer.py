"""Generation speed of `gpt2 bench infer` against llama.cpp and transformers, in turn in one run.

    pip install gguf numpy safetensors torch transformers                              # in a virtual environment
    python bench/peers/infer.py -m DIR --llama BUILD/bin                               # everything: about half an hour
    python bench/peers/infer.py -m DIR --llama BUILD/bin --dtypes q8,q4 --measures pp512,tg128 --rounds 9
    python bench/peers/infer.py -m DIR --measures batch --batches 8,32 --engines gpt2,transformers --json raw.json

DIR is a model directory (config.json, model.safetensors). BUILD/bin holds llama.cpp's llama-bench,
llama-batched-bench and llama-quantize, built from its source with -DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release; that
source comes with llama-cpp-python's source package. The GGUF files are written once, to --gguf, by gguf_model.py.

Measures, in tokens/s: pp512, a prompt of 512; tg128, 128 tokens after a prompt of 128; batch, the same for several
sequences at once, counting the new tokens of all and not the prompts' time. A turn is one measure by one engine: for
each measure and format the engines take turns, and the order is reversed in every other round. A turn of ours or of
llama.cpp is a process; transformers (f32 and bf16 only: greedy `generate`, dynamic cache) stays and waits. Our q8 and
q4 stand against llama.cpp's Q8_0 and Q4_0. llama.cpp keeps its defaults (a cache in f16, batches of 2048 in 512).
The table shows medians over the turns, the worst and the best in brackets; a ratio above 1 says that ours is faster.
A peer that is missing is named and left out; Ctrl-C ends the run with a table of the turns so far.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf_model

ENGINES = ["gpt2", "llama.cpp", "transformers"]
TOOLS = ["llama-bench", "llama-batched-bench", "llama-quantize"]
PROMPT, NEW = 128, 128
HF_BATCHES = (1, 8)
PINNED = {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores"}


class Missing(Exception):
    """An engine cannot be measured; the text says what to do."""


def output(command, env=None):
    """What a program prints, and its peak memory in bytes; `Missing` with its complaint where it fails."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=complaints, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), complaints.seek(0)
        if process.returncode != 0:
            said = " / ".join(complaints.read().strip().splitlines()[:3]) or "no message"
            raise Missing(f"{Path(command[0]).name} gave exit code {process.returncode}: {said}")
        return out.read(), usage.ru_maxrss * 1024


class Ours:
    def __init__(self, args):
        self.args = args
        output([args.gpt2, "bench", "infer", "--help"])

    def can(self, dtype, measure):
        return True

    def turn(self, dtype, measure):
        """Tokens/s, and the whole report."""
        name, _, batch = measure.partition("=")
        only = ["--only", name, *(["--batches", batch] if batch else [])]
        shared = ["-m", self.args.model, "--dtype", dtype, "--threads", self.args.threads, "--json"]
        text, peak = output([self.args.gpt2, "bench", "infer", *shared, *only])
        report = {"peak_rss_bytes": peak} | json.loads(text)
        return (report["batch"][batch] if batch else report[name]), report


class Llama:
    def __init__(self, args):
        if not args.llama:
            raise Missing("give --llama DIR, the folder of " + ", ".join(TOOLS))
        lacking = [tool for tool in TOOLS if not (args.llama / tool).exists()]
        if lacking:
            raise Missing(f"{args.llama} has no " + ", ".join(lacking))
        try:
            self.paths = gguf_model.ensure(args.model, args.gguf, args.dtypes, args.llama)
        except (ImportError, AssertionError) as error:
            raise Missing(f"cannot write GGUF files: {error}") from None
        self.args, self.env = args, dict(os.environ, **PINNED)

    def can(self, dtype, measure):
        return True

    def turn(self, dtype, measure):
        name, _, batch = measure.partition("=")
        shared = ["-m", self.paths[dtype], "-t", self.args.threads]
        if batch:
            context = int(batch) * (PROMPT + NEW)
            sizes = ["-c", context, "-b", 2048, "-ub", 512, "-npp", PROMPT, "-ntg", NEW, "-npl", batch]
            command = [self.args.llama / "llama-batched-bench", *shared, *sizes, "--output-format", "jsonl"]
            text, peak = output(command, self.env)
            report = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
            return report["speed_tg"], report | {"peak_rss_bytes": peak}
        task = ["-p", 512, "-n", 0] if name == "pp512" else ["-p", 0, "-n", NEW, "-d", PROMPT]
        command = [self.args.llama / "llama-bench", *shared, *task, "-r", self.args.repeats, "-o", "json"]
        text, peak = output(command, self.env)
        report = json.loads(text)[0]
        return statistics.median(report["samples_ts"]), report | {"peak_rss_bytes": peak}


def transformers_worker(args):
    """Serves turns: a line on stdin is a measure, the answer tokens/s."""
    import torch
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.worker]
    model = GPT2LMHeadModel.from_pretrained(args.model, dtype=dtype).eval()
    model.generation_config.eos_token_id = None

    class Clock:
        """Stands where `generate` expects a streamer: notes when each token is there."""

        def __init__(self):
            self.times = []

        def put(self, _):
            self.times.append(time.perf_counter())

        def end(self):
            pass

    def prompt(batch, length):
        return torch.randint(model.config.vocab_size, (batch, length))

    def prefill():
        ids, start = prompt(1, 512), time.perf_counter()
        model(ids, use_cache=True, logits_to_keep=1)
        return 512 / (time.perf_counter() - start)

    def decode(batch, new=NEW):
        ids, clock = prompt(batch, PROMPT), Clock()
        # The first token comes of the prompt; the clock is put the prompt, then that token, then `new` more.
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new + 1, min_new_tokens=new + 1,
                       do_sample=False, pad_token_id=0, streamer=clock)
        assert len(clock.times) == new + 2, "generate stopped early"
        return batch * new / (clock.times[-1] - clock.times[1])

    with torch.inference_mode():
        prefill(), decode(1, 4)
        print("ready", flush=True)
        for line in sys.stdin:
            name, _, batch = line.strip().partition("=")
            one = prefill if name == "pp512" else lambda: decode(int(batch or 1))
            rates = [one() for _ in range(1 if batch else args.repeats)]
            print(json.dumps(statistics.median(rates)), flush=True)


class Transformers:
    def __init__(self, args):
        self.processes = {}
        for dtype in args.dtypes:
            if dtype not in ("f32", "bf16"):
                continue
            command = [sys.executable, __file__, "--worker", dtype, "-m", args.model]
            command += ["--threads", args.threads, "--repeats", args.repeats]
            env = dict(os.environ, OMP_WAIT_POLICY="passive", **PINNED)
            pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
            process = subprocess.Popen([str(word) for word in command], text=True, env=env, **pipes)
            if process.stdout.readline() != "ready\n":
                said = process.stderr.read().strip().splitlines() or ["no message"]
                raise Missing(f"{said[-1]} (pip install torch transformers)")
            self.processes[dtype] = process

    def can(self, dtype, measure):
        _, _, batch = measure.partition("=")
        return dtype in self.processes and int(batch or 1) in HF_BATCHES

    def turn(self, dtype, measure):
        process = self.processes[dtype]
        process.stdin.write(measure + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise Missing((process.stderr.read().strip().splitlines() or ["no message"])[-1])
        return json.loads(line), {}


def start(args):
    """The engines that can be measured; the others are named with the reason."""
    kinds = dict(zip(ENGINES, [Ours, Llama, Transformers]))
    engines = {}
    for name in args.engines:
        try:
            engines[name] = kinds[name](args)
        except (Missing, OSError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return engines


def measure(args, engines):
    """All rounds: the names of the measures, and a list of turns. What fails once is said, and not tried again."""
    tasks = [m for m in args.measures if m != "batch"]
    tasks += [f"batch={n}" for n in args.batches] if "batch" in args.measures else []
    turns, failed = [], set()

    def turn(round, name, dtype, task):
        if (name, dtype, task) in failed or not engines[name].can(dtype, task):
            return
        try:
            rate, report = engines[name].turn(dtype, task)
        except (Missing, OSError, ValueError, KeyError, StopIteration) as error:
            failed.add((name, dtype, task))
            print(f"{name}, {dtype} {task} is left out: {error!r}", file=sys.stderr)
            return
        turns.append({"round": round, "engine": name, "dtype": dtype, "measure": task,
                      "tokens_per_s": rate, "report": report})
        print(f"round {round + 1} of {args.rounds}: {name}, {dtype} {task}: {rate:.1f}", file=sys.stderr)

    try:
        for round, dtype, task in itertools.product(range(args.rounds), args.dtypes, tasks):
            for name in list(engines)[:: -1 if round % 2 else 1]:
                turn(round, name, dtype, task)
    except KeyboardInterrupt:
        print("stopped; the table holds the turns so far", file=sys.stderr)
    return tasks, turns


def table(args, tasks, turns):
    """Lines of a table with medians, spreads and ratios."""
    rates = {}
    for turn in turns:
        rates.setdefault((turn["engine"], turn["dtype"], turn["measure"]), []).append(turn["tokens_per_s"])
    median = {key: statistics.median(list) for key, list in rates.items()}
    number = lambda x: f"{x:.0f}" if x >= 100 else f"{x:.1f}"

    def cell(key):
        spread = rates.get(key)
        return f"{number(median[key])} ({number(min(spread))}–{number(max(spread))})" if spread else "–"

    def ratio(ours, theirs):
        return f"{median[ours] / median[theirs]:.2f}" if ours in median and theirs in median else "–"

    rows = [["measure", "format", "gpt2", "llama.cpp", "ratio", "llama.cpp's best", "ratio", "transformers", "ratio"]]
    for task in tasks:
        of_llama = [key for key in median if key[0] == "llama.cpp" and key[2] == task]
        best = max(of_llama, key=median.get, default=None) if task == "pp512" else None
        for dtype in args.dtypes:
            ours, llama, hf = [(name, dtype, task) for name in ENGINES]
            best_cell = f"{number(median[best])} {best[1]}" if best else ""
            rows.append([task, dtype, cell(ours), cell(llama), ratio(ours, llama), best_cell,
                         ratio(ours, best) if best else "", cell(hf), ratio(ours, hf)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    return ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |" for row in rows]


def beside(args, turns):
    """Lines about one stream: what else the reports of tg128 say, as medians."""
    for dtype in args.dtypes:
        parts = []
        for name, key, what, unit in [
            ("gpt2", "load_ms", "loads in {:.0f} ms", 1), ("gpt2", "first_token_ms", "first token after {:.0f} ms", 1),
            ("gpt2", "peak_rss_bytes", "peak {:.0f} MB", 1e6), ("llama.cpp", "peak_rss_bytes", "peak {:.0f} MB", 1e6),
        ]:
            of = [t["report"] for t in turns if (t["engine"], t["dtype"], t["measure"]) == (name, dtype, "tg128")]
            values = [report[key] for report in of if report.get(key) is not None]
            parts += [f"{name} " + what.format(statistics.median(values) / unit)] if values else []
        if parts:
            yield f"{dtype}: " + ", ".join(parts)


def words(allowed):
    """A type for argparse: some of these words, between commas."""
    def parse(text):
        given = [word.strip() for word in text.split(",")]
        unknown = [word for word in given if word not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not among {', '.join(allowed)}")
        return given
    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, type=Path, help="model directory")
    parser.add_argument("--gpt2", default="target/release/gpt2", help="our program")
    parser.add_argument("--llama", type=Path, help="folder with llama.cpp's programs")
    parser.add_argument("--gguf", default="target/peers/gguf", type=Path, help="folder for GGUF files")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="repeats in a turn of a peer (pp512, tg128)")
    parser.add_argument("--dtypes", type=words(["f32", "bf16", "q8", "q4"]), default="f32,bf16,q8,q4")
    parser.add_argument("--measures", type=words(["pp512", "tg128", "batch"]), default="pp512,tg128,batch")
    parser.add_argument("--batches", type=lambda text: list(map(int, text.split(","))), default="1,4,8,16,32")
    parser.add_argument("--engines", type=words(ENGINES), default=",".join(ENGINES))
    parser.add_argument("--json", type=Path, help="file for every turn with the engines' own reports")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return transformers_worker(args)
    if not (args.model / "model.safetensors").exists():
        sys.exit(f"error: {args.model} has no model.safetensors; `gpt2 train --out DIR` writes one")
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine is busy (load {load:.1f}): llama.cpp's threads spin while they wait for each other, so it "
              "loses most; ratios count on a quiet machine only", file=sys.stderr)
    engines = start(args)
    if not engines:
        sys.exit("error: no engine is left to measure")
    tasks, turns = measure(args, engines)
    print(f"{args.model.resolve().name}, {args.threads} threads, {args.rounds} rounds, tokens/s")
    print("\n".join([*table(args, tasks, turns), *beside(args, turns)]))
    if args.json:
        args.json.write_text(json.dumps({"threads": args.threads, "load": load, "turns": turns}, indent=1))


if __name__ == "__main__":
    main()
