"""Our tokenizer against tiktoken, Hugging Face's tokenizers and rustbpe: one thread each, measured in turn.

    pip install tiktoken tokenizers rustbpe                                     # in a virtual environment
    python bench/peers/tokenizer.py encode --text novels.txt --vocab DIR        # DIR: GPT-2's vocab.json, merges.txt
    python bench/peers/tokenizer.py train  --text corpus.txt --size 50257

Each round runs every program once; the figures are medians over the rounds, and ratios above 1 say that ours is
faster. All must give the same ids, or ask for the same size, before anything is timed. --vocab can be a folder that
`Tokenizer::save` wrote.
"""

import argparse
import array
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = Path(__file__).resolve().parents[2]
BUILD = ["cargo", "build", "--release", "--package", "tokenizer", "--example", "speed"]
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
END = "<|endoftext|>"


def build():
    """Builds our program and returns its path."""
    subprocess.run(BUILD, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release/examples/speed"


def ours(program, *args):
    """Runs our program once and returns its report."""
    command = [str(program), *map(str, args), "--repeats", "1"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def encoders(text, folder):
    """Encoding by tiktoken and by tokenizers, as functions that return ids."""
    import tiktoken
    from tokenizers import Tokenizer, models, pre_tokenizers

    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in keep]
    byte_of = {chr(byte): byte for byte in keep} | {chr(256 + k): byte for k, byte in enumerate(rest)}
    vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
    ranks = {bytes(byte_of[char] for char in token): id for token, id in vocab.items() if token != END}
    tik = tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={END: vocab[END]})
    hf = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return {"tiktoken": lambda: tik.encode_ordinary(text), "tokenizers": lambda: hf.encode(text).ids}


def trainers(text, size):
    """Training by rustbpe and by tokenizers."""
    import rustbpe
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    def run_rustbpe():
        rustbpe.Tokenizer().train_from_iterator(iter(text.splitlines(keepends=True)), size, pattern=PATTERN)

    def run_tokenizers():
        hf = Tokenizer(models.BPE())
        hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        hf.train_from_iterator(text.splitlines(keepends=True), trainer)

    return {"rustbpe": run_rustbpe, "tokenizers": run_tokenizers}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["encode", "train"])
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--vocab", type=Path)
    parser.add_argument("--size", type=int, default=50257)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    program = build()
    text = args.text.read_bytes().decode("utf-8")
    megabytes = len(text.encode()) / 1e6
    if args.mode == "encode":
        peers = encoders(text, args.vocab)
        with tempfile.TemporaryDirectory() as folder:
            ours(program, "encode", args.text, "--ids", f"{folder}/ids")
            ids = array.array("I", Path(folder, "ids").read_bytes()).tolist()
        for name, peer in peers.items():
            assert peer() == ids, f"{name} gives other ids"
        ask = ["encode", args.text]
    else:
        peers = trainers(text, args.size)
        ask = ["train", args.text, args.size]
        assert ours(program, *ask)["got"] == args.size, "the text is too short for this size"
    times = {name: [] for name in ["ours", *peers]}
    for _ in range(args.rounds):
        times["ours"] += ours(program, *ask)["seconds"]
        for name, peer in peers.items():
            times[name].append(seconds(peer))
    median = {name: statistics.median(list) for name, list in times.items()}
    for name, s in median.items():
        print(json.dumps({
            "mode": args.mode, "program": name, "seconds": round(s, 4), "mb_per_s": round(megabytes / s, 2),
            "ours_is_faster_by": round(s / median["ours"], 2), "rounds": args.rounds,
        }))


if __name__ == "__main__":
    main()
