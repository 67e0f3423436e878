"""Holds our GGUF to llama.cpp: it loads what we write, its logits and tokens are ours, and we run what it quantises.

    pip install gguf numpy llama-cpp-python                           # in a virtual environment
    python bench/peers/gguf_check.py -m DIR --llama BUILD/bin

DIR is a model directory with GPT-2's tokenizer or one like it. For each type that we write, and for each mix that
`llama-quantize` makes of our f32 file, one row: the largest |dlogit| over the spread of llama.cpp's logits, its mean, and
how often the most likely token is the same. Then the ids of edge cases are compared, and `llama-cli` and `llama-bench` load
each file that we wrote. llama.cpp looks GELU up in a table of f16; its products of all types but F32 round activations, to
16 bits or to blocks of 8, and ours do too, but not in the same places: so the logits differ by what that rounding costs.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

WRITTEN = ["f32", "f16", "bf16", "q8_0", "q4_0"]
QUANTISED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K"]
# Largest |dlogit| that there may be, over the spread.
MOST = {"f32": 1e-3, "F32": 1e-3}
MOST_OTHER = 3e-2
OURS = ["cargo", "run", "--release", "--quiet", "-p", "generate", "--example", "gguf", "--"]

TEXTS = [
    "", " ", "  ", "\n", "\n\n\n", " \n \n", "\t\tx", "a  b   c    d", "trailing   ", "   leading", "\r\n\r\nx", "x \u00a0\u2003 y",
    "Hello world", "it's we'll they're I'd you've I'm", "IT'S WE'LL", "it\u2019s", "'s's''s ' s", "don't'll", "x'sy",
    "1234567890 3.14 1,000", "½ ² ⅷ ४५६", "中文维基百科,自由的百科全书。", "日本語テキスト カタカナ", "한국어 텍스트", "Привет, мир! Ёж",
    "עברית العربية ١٢٣", "ไทย भाषा", "é e\u0301 \u0301", "ﬁ Ⅳ ㎏", "😀 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ☺️", "a😀b 😀😀",
    "\x00", "a\x00b\x01\x02\x1f\x7f\x80\u0085", "\ufeffbom", "\u200b\u200d\u2060", "\u2028\u2029", "\U0010ffff \ue000 \ufffd",
    "<|endoftext|>", "a<|endoftext|>b", "<|endoftext|><|endoftext|>", "<|endoftext", "<|endoftext|> x \n<|endoftext|>",
    "def f(x):\n    return x**2  # ok\n\n\tif x != 0: pass", "{\"a\": [1, 2]}", "http://x.y/z?q=%20&a=b#c", "_-_-__--", "...!!!???",
    "a" * 300, " " * 200, "\n" * 70 + "x", "-" * 120, "ab" * 100, "中" * 100, "😀" * 40,
]


def run(command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, **more)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command[:12]))}: {done.stderr.decode(errors='replace').strip()[-600:]}")
    return done.stdout


def compare(path, ids):
    """llama.cpp's logits and ours, as (ids, vocabulary)."""
    import numpy as np
    from llama_cpp import Llama

    f32 = 0  # the type of the cache; by default it is f16
    llama = Llama(str(path), n_ctx=len(ids), n_batch=len(ids), logits_all=True, type_k=f32, type_v=f32, verbose=False)
    llama.eval(ids)
    theirs = np.array(llama.scores[: len(ids)])
    ours = np.frombuffer(run([*OURS, "logits", path, *ids]), "<f4").reshape(theirs.shape)
    return theirs, ours


def check_logits(path, kind, ids):
    theirs, ours = compare(path, ids)
    spread = theirs.max() - theirs.min()
    far = abs(ours - theirs) / spread
    same = (ours.argmax(1) == theirs.argmax(1)).sum()
    ok = far.max() <= MOST.get(kind, MOST_OTHER)
    size = path.stat().st_size / 1e6
    print(f"| {kind} | {size:.1f} MB | {far.max():.1e} | {far.mean():.1e} | {same} of {len(ids)} | {'' if ok else 'TOO FAR'}")
    return ok


def check_tokens(path):
    """Whether both cut all texts alike, with and without special tokens."""
    from llama_cpp import Llama

    llama = Llama(str(path), vocab_only=True, verbose=False)
    ours = json.loads(run([*OURS, "encode", path], input=json.dumps(TEXTS).encode()))
    wrong = 0
    for text, rows in zip(TEXTS, ours):
        for special, row in zip([False, True], rows):
            theirs = llama.tokenize(text.encode(), add_bos=False, special=special)
            if theirs != row:
                wrong += 1
                print(f"tokens differ, special={special}: {text[:40]!r}: llama.cpp {theirs[:12]}, ours {row[:12]}")
    print(f"tokens: {2 * len(TEXTS) - wrong} of {2 * len(TEXTS)} texts are cut alike")
    return wrong == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, type=Path, help="a model directory, with its tokenizer")
    parser.add_argument("--out", default="target/peers/gguf-check", type=Path, help="folder to write to")
    parser.add_argument("--llama", type=Path, help="folder with llama-quantize, llama-cli and llama-bench")
    parser.add_argument("--length", type=int, default=64, help="tokens to compute")
    args = parser.parse_args()
    import numpy as np

    args.out.mkdir(parents=True, exist_ok=True)
    vocab = json.loads((args.model / "config.json").read_text())["vocab_size"]
    ids = np.random.default_rng(1).integers(0, vocab, args.length).tolist()
    print("| type | file | max dlogit / spread | mean | same top token | |\n|---|---|---|---|---|---|")
    ok, written = True, {}
    for kind in WRITTEN:
        written[kind] = args.out / f"ours-{kind}.gguf"
        run([*OURS, "write", args.model, written[kind], kind])
        ok &= check_logits(written[kind], kind, ids)
    for kind in QUANTISED if args.llama else []:
        path = args.out / f"theirs-{kind}.gguf"
        run([args.llama / "llama-quantize", written["f32"], path, kind])
        ok &= check_logits(path, kind, ids)
        path.unlink()
    ok &= check_tokens(written["f32"])
    for kind, path in written.items() if args.llama else []:
        run([args.llama / "llama-bench", "-m", path, "-p", "8", "-n", "4", "-r", "1", "-t", "2"])
        run([args.llama / "llama-cli", "-m", path, "-p", "Hello", "-n", "4", "-st", "--simple-io"], stdin=subprocess.DEVNULL)
        print(f"{kind}: llama-bench and llama-cli run it")
    sys.exit(0 if ok else "error: not all of it agrees")


if __name__ == "__main__":
    main()
