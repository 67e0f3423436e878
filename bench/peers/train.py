"""Training speed of `gpt2 bench train` against PyTorch, in turn in one run. `run.sh` beside it installs what it needs.

    python bench/peers/train.py --gpt2 target/release/gpt2 --preset gpt2 --batch 4 --seq 256
    python bench/peers/train.py --gpt2 target/release/gpt2 --preset nano --batch 12 --seq 64 --steps 100

Needs torch and numpy. PyTorch runs in every variant asked for ({eager, compiled} x {default, fused AdamW} x
{vocabulary as it is, padded to a multiple of 64}), each in a process of its own that waits between its turns. A round
gives each one turn of a few steps, ours among them; the table shows medians over all steps, and our ratio to the
fastest variant.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

SHAPES = {  # layers, heads, width, vocabulary
    "gpt2": (12, 12, 768, 50257),
    "nano": (4, 4, 128, 65),
    "baby": (6, 6, 384, 65),
}


def torch_worker(args):
    """Serves turns: a line on stdin is a number of steps, the answer the milliseconds of each."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    layers, heads, width, vocab = SHAPES[args.preset]
    if args.padded:
        vocab = -(-vocab // 64) * 64

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            b, t, c = x.shape
            heads_of = lambda y: y.view(b, t, heads, c // heads).transpose(1, 2)
            q, k, v = map(heads_of, self.qkv(self.ln_1(x)).split(c, dim=2))
            p = args.dropout if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
            x = x + F.dropout(self.proj(y.transpose(1, 2).reshape(b, t, c)), p)
            y = self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))
            return x + F.dropout(y, p)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(vocab, width), nn.Embedding(max(args.seq, 64), width)
            self.blocks, self.ln_f = nn.ModuleList(Block() for _ in range(layers)), nn.LayerNorm(width)
            self.head = nn.Linear(width, vocab, bias=False)
            self.head.weight = self.wte.weight
            for p in self.parameters():
                if p.dim() > 1:
                    nn.init.normal_(p, std=0.02)

        def forward(self, ids, targets):
            x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
            x = F.dropout(x, args.dropout if self.training else 0.0)
            for block in self.blocks:
                x = block(x)
            return F.cross_entropy(self.head(self.ln_f(x)).flatten(0, 1), targets.flatten())

    model = Model()
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), fused=args.fused or None)
    forward = torch.compile(model) if args.compiled else model
    bf16 = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16")

    def step():
        start = time.perf_counter()
        ids = torch.randint(SHAPES[args.preset][3], (args.batch, args.seq + 1))
        with bf16:
            loss = forward(ids[:, :-1], ids[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return 1e3 * (time.perf_counter() - start)

    step(), step()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps([step() for _ in range(int(line))]), flush=True)


class Torch:
    def __init__(self, args, name):
        flags = [f"--{word}" for word in name.split() if word in ("compiled", "fused", "padded")]
        names = ["preset", "batch", "seq", "precision", "dropout", "threads"]
        shared = [x for n in names for x in (f"--{n}", str(getattr(args, n)))]
        env = dict(os.environ, OMP_PROC_BIND="true", OMP_PLACES="cores", OMP_WAIT_POLICY="passive")
        command = [sys.executable, __file__, "--worker", *flags, *shared]
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert self.process.stdout.readline() == "ready\n", f"{name} did not start"

    def turn(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Ours:
    def __init__(self, args):
        layers, heads, width, vocab = SHAPES[args.preset]
        shape = ["--n-layer", layers, "--n-head", heads, "--n-embd", width, "--vocab", vocab]
        rest = ["--batch", args.batch, "--seq", args.seq, "--dropout", args.dropout]
        rest += ["--precision", args.precision, "--threads", args.threads]
        self.name = "gpt2"
        self.command = [args.gpt2, "bench", "train", *map(str, shape + rest), "--json"]
        self.last = {}

    def turn(self, steps):
        out = subprocess.run([*self.command, "--steps", str(steps)], check=True, stdout=subprocess.PIPE).stdout
        self.last = json.loads(out)
        return [self.last["ms_per_step"]] * steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gpt2", default="target/release/gpt2")
    parser.add_argument("--preset", choices=SHAPES, default="gpt2")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--variants",
        default=",".join(f"{mode}{fused}{padded}" for mode in ["eager", "compiled"] for fused in ["", " fused"] for padded in ["", " padded"]),
        help="PyTorch's, comma by comma; each stays in memory, about 4 GB for GPT-2 124M",
    )
    for name in ["worker", "compiled", "fused", "padded"]:
        parser.add_argument(f"--{name}", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return torch_worker(args)
    runners = [Ours(args)] + [Torch(args, name) for name in args.variants.split(",")]
    steps = {runner.name: [] for runner in runners}
    for _ in range(args.rounds):
        for runner in runners:
            steps[runner.name] += runner.turn(args.steps)
    tokens = args.batch * args.seq
    rate = {name: 1e3 * tokens / statistics.median(ms) for name, ms in steps.items()}
    best = max(rate[name] for name in rate if name != "gpt2")
    for name, ms in steps.items():
        spread = f"{1e3 * tokens / max(ms):.0f} - {1e3 * tokens / min(ms):.0f}"
        print(f"{name:24} {rate[name]:10.0f} tokens/s  ({spread})")
    print(f"ratio to PyTorch's best: {rate['gpt2'] / best:.2f}   {json.dumps(runners[0].last)}")


if __name__ == "__main__":
    main()
