"""Our GPT-2 held to transformers': logits, loss, hidden states, greedy text, in f32 and bfloat16.

    pip install numpy safetensors torch transformers               # in a virtual environment
    cargo build --release -p models --example forward
    python bench/peers/parity.py                                   # everything: half an hour, 10 GB of disk and of memory
    python bench/peers/parity.py --only tiny                       # the small models with every switch: a minute

Random models, one for each switch of config.json that changes the arithmetic and some with several, then the four
published shapes. Weights are as spread as the published ones': 0.14 for tokens, norms about 1, biases of 0.1, matrices
that keep the size of what goes through them. A model is written by `save_pretrained`, some in shards, run by
transformers in f32 and bfloat16, and then by `forward`, an example of crates/models, which is another process, so that one
model at a time is in memory.

The table: the largest difference of a logit over the spread (largest minus smallest) of all; the largest of a hidden state
over its spread, of all layers; the difference of the mean loss; how many of the greedy tokens are the same; errors of
bfloat16, ours and torch's, root mean square over that of the f32 logits; peak memory of our f32 run over the file's size
and its cache of keys and values. Above the limits the exit code is 1.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

TINY = dict(n_layer=3, n_head=4, n_embd=64, n_positions=96, vocab_size=503)
SWITCHES = {
    "as published": dict(),
    "gelu": dict(activation_function="gelu"),
    "gelu_fast": dict(activation_function="gelu_fast"),
    "gelu_pytorch_tanh": dict(activation_function="gelu_pytorch_tanh"),
    "quick_gelu": dict(activation_function="quick_gelu"),
    "relu": dict(activation_function="relu"),
    "relu2": dict(activation_function="relu2"),
    "silu": dict(activation_function="silu"),
    "tanh": dict(activation_function="tanh"),
    "sigmoid": dict(activation_function="sigmoid"),
    "n_inner 100": dict(n_inner=100),
    "layer_norm_epsilon 0.01": dict(layer_norm_epsilon=0.01),
    "scale_attn_weights false": dict(scale_attn_weights=False),
    "scale_attn_by_inverse_layer_idx": dict(scale_attn_by_inverse_layer_idx=True),
    "reorder_and_upcast_attn": dict(reorder_and_upcast_attn=True),
    "tie_word_embeddings false": dict(tie_word_embeddings=False),
    "odd widths": dict(n_head=5, n_embd=55, n_inner=77, vocab_size=1001),
    "all at once": dict(
        activation_function="gelu", n_inner=150, layer_norm_epsilon=1e-3, scale_attn_weights=False,
        scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True, tie_word_embeddings=False,
    ),
}  # fmt: skip
PUBLISHED = {
    "gpt2": dict(n_layer=12, n_head=12, n_embd=768),
    "gpt2-medium": dict(n_layer=24, n_head=16, n_embd=1024),
    "gpt2-large": dict(n_layer=36, n_head=20, n_embd=1280),
    "gpt2-xl": dict(n_layer=48, n_head=25, n_embd=1600),
}
LOGITS, LOSS, MEMORY, BF16 = 1e-4, 1e-4, 1.15, 1.5


@torch.no_grad()
def make(config):
    """A model whose numbers are about as large as the published ones'."""
    model = GPT2LMHeadModel(config).eval()
    for name, p in model.named_parameters():
        if p.dim() == 1:
            p.normal_(1.0 if name.endswith("weight") else 0.0, 0.1)
        elif "wte" in name or "lm_head" in name:
            p.normal_(0.0, 0.14)
        elif "wpe" in name:
            p.normal_(0.0, 0.05)
        else:
            depth = 2 * config.n_layer if name.endswith("c_proj.weight") else 1
            p.normal_(0.0, 1.0 / math.sqrt(p.shape[0] * depth))
    return model


@torch.no_grad()
def ask(model, ids, new):
    """Logits, hidden states, mean loss, and `new` greedy tokens, in float32."""
    out = model(ids, output_hidden_states=True)
    logits = out.logits.float()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    answer = dict(logits=logits, loss=loss.reshape(1))
    answer |= {f"hidden.{i}": hidden.float() for i, hidden in enumerate(out.hidden_states)}
    if new:
        longer, cache, last = ids, None, ids
        for _ in range(new):
            step = model(last, past_key_values=cache, use_cache=True)
            cache, last = step.past_key_values, step.logits[:, -1:].argmax(-1)
            longer = torch.cat([longer, last], 1)
        answer["greedy"] = longer[:, ids.shape[1] :].float()
    return answer


def ours(args, folder, dtype, new):
    """What our side says, and the most memory that it took."""
    out = folder / "ours.safetensors"
    command = [args.forward, folder, folder / "ids.json", out, dtype, str(new)]
    process = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if process.returncode != 0:
        sys.exit(f"{args.forward} gave exit code {process.returncode}")
    peak = process.stdout.strip()
    return load_file(out), int(peak) * 1024 if peak.isdigit() else math.nan


def worst(got, want, names):
    """The largest difference over the spread."""
    shares = [((got[name] - want[name]).abs().max() / (want[name].max() - want[name].min())).item() for name in names]
    return max(shares)


def rms(got, want):
    return ((got - want).pow(2).mean().sqrt() / want.pow(2).mean().sqrt()).item()


def compare(args, name, shape, folder):
    torch.manual_seed(len(name))
    time, new = (64, 24) if shape["n_embd"] < 200 else (args.time, args.new)
    eos = shape["vocab_size"] - 1
    config = GPT2Config(**shape, bos_token_id=eos, eos_token_id=eos, attn_implementation="eager")
    model = make(config)
    model.save_pretrained(folder, max_shard_size="1GB" if name == "gpt2-medium" else "100GB")
    ids = torch.randint(config.vocab_size, (2, time))
    (folder / "ids.json").write_text(json.dumps(ids.tolist()))
    want = ask(model, ids, new)
    half = ask(model.to(torch.bfloat16), ids, 0)
    model = None
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    got, peak = ours(args, folder, "f32", new)
    near, _ = ours(args, folder, "bf16", 1)
    hidden = [key for key in want if key.startswith("hidden")]
    cache = 2 * 4 * config.n_layer * config.n_embd * (64 * math.ceil((time + new) / 64))
    row = dict(
        name=name,
        logits=worst(got, want, ["logits"]),
        hidden=worst(got, want, hidden),
        loss=abs(got["loss"] - want["loss"]).item(),
        same=(got["greedy"] == want["greedy"]).sum().item(),
        greedy=want["greedy"].numel(),
        bf16=rms(near["logits"], want["logits"]),
        torch_bf16=rms(half["logits"], want["logits"]),
        bf16_loss=abs(near["loss"] - want["loss"]).item(),
        torch_bf16_loss=abs(half["loss"] - want["loss"]).item(),
        peak=peak,
        share=peak / (size + cache),
    )
    return row


def line(row):
    memory = f"{row['peak'] / 1e9:.2f} GB, {row['share']:.2f}" if row["peak"] > 3e8 else "–"
    return (
        f"| {row['name']} | {row['logits']:.1e} | {row['hidden']:.1e} | {row['loss']:.1e} | {row['same']} of {row['greedy']} "
        f"| {row['bf16']:.2%} / {row['torch_bf16']:.2%} | {row['bf16_loss']:.1e} / {row['torch_bf16_loss']:.1e} | {memory} |"
    )


def is_fine(row):
    return (
        row["logits"] <= LOGITS
        and row["hidden"] <= LOGITS
        and row["loss"] <= LOSS
        and row["same"] == row["greedy"]
        and row["bf16"] <= BF16 * row["torch_bf16"]
        and (row["name"] != "gpt2-xl" or row["share"] <= MEMORY)  # in small ones the logits of all tokens count, too
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--forward", default="target/release/examples/forward", type=Path)
    parser.add_argument("--only", choices=["tiny", *PUBLISHED])
    parser.add_argument("--time", type=int, default=64, help="tokens of each of the two rows, published shapes")
    parser.add_argument("--new", type=int, default=32, help="greedy tokens after each, published shapes")
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    cases = {name: TINY | switches for name, switches in SWITCHES.items()} if args.only in (None, "tiny") else {}
    for name, shape in PUBLISHED.items():
        if args.only in (None, name):
            cases[name] = shape | dict(n_positions=1024, vocab_size=50257)
    print("| model | logits | hidden states | loss | greedy tokens | bf16 logits, ours / torch's | bf16 loss, the same | memory |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for name, shape in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compare(args, name, shape, Path(folder)))
        print(line(rows[-1]) + ("" if is_fine(rows[-1]) else " above the limit"), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    sys.exit(0 if all(map(is_fine, rows)) else 1)


if __name__ == "__main__":
    main()
