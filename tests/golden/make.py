"""Makes the golden files beside it: what PyTorch and transformers say about tiny GPT-2 models.

    python tests/golden/make.py            # needs torch, transformers; takes seconds

Each case is a model directory as transformers writes it, with two files more:

    golden.json          batches (rows of tokens), their mean losses, and ten optimiser steps
    golden.safetensors   BATCH.logits (B, T, V) and BATCH.grad.NAME, the gradient of the mean loss by each weight

A row of n + 1 tokens feeds its first n and is asked for its last n. Rows shorter than the longest are padded on
the right with PAD, masked in attention and left out of the loss. Weights are stored in float32; all arithmetic is
in float64 from there, so that the tests see our rounding and not PyTorch's.
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).parent
PAD = 5
IGNORE = -100

CASES = {
    "odd": dict(n_layer=2, n_head=3, n_embd=15, n_positions=13, vocab_size=37),
    "deep": dict(n_layer=3, n_head=1, n_embd=8, n_positions=33, vocab_size=129, n_inner=21, layer_norm_epsilon=1e-3),
    "wide": dict(n_layer=1, n_head=2, n_embd=46, n_positions=70, vocab_size=601),
}

STEPS = dict(
    n=10, lr=1e-2, min_lr=1e-3, warmup_steps=3, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1, clip_norm=1.0
)


def make_model(shape, spread):
    """A model whose every bias and norm matters, with weights large enough for attention to choose."""
    config = GPT2Config(
        **shape,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=shape["vocab_size"] - 1,
        eos_token_id=shape["vocab_size"] - 1,
        attn_implementation="eager",
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.randn_like(p))
            else:
                p.copy_(spread / math.sqrt(p.shape[-1]) * torch.randn_like(p))
    return model


def random_rows(lens, vocab_size):
    return [torch.randint(vocab_size, (n + 1,)).tolist() for n in lens]


def forward(model, rows):
    """The logits (B, T, V) and the mean loss over what is not padding."""
    longest = max(len(row) for row in rows) - 1
    pad = [longest + 1 - len(row) for row in rows]
    ids = torch.tensor([row[:-1] + [PAD] * n for row, n in zip(rows, pad)])
    targets = torch.tensor([row[1:] + [IGNORE] * n for row, n in zip(rows, pad)])
    logits = model(ids, attention_mask=(targets != IGNORE).long()).logits
    return logits, cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


def name_of(parameter):
    return parameter.removeprefix("transformer.")


def golden_batch(model, name, rows, tensors):
    """Adds a batch's logits and gradients to `tensors`, and says what was fed and lost."""
    model.zero_grad()
    logits, loss = forward(model, rows)
    loss.backward()
    tensors[f"{name}.logits"] = logits
    for parameter, p in model.named_parameters():
        tensors[f"{name}.grad.{name_of(parameter)}"] = p.grad
    return dict(name=name, rows=rows, loss=loss.item())


def learning_rate(step):
    """Linear warm-up to `lr`, then half a cosine that would reach `min_lr` after the last step."""
    lr, min_lr, warmup, n = (STEPS[key] for key in ("lr", "min_lr", "warmup_steps", "n"))
    if step < warmup:
        return lr * (step + 1) / warmup
    return min_lr + 0.5 * (1 + math.cos(math.pi * (step - warmup) / (n - warmup))) * (lr - min_lr)


def ten_steps(model, shape):
    """AdamW with decay on matrices only, clipping and schedule, on a new batch each step."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [dict(params=matrices, weight_decay=STEPS["weight_decay"]), dict(params=vectors, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, betas=STEPS["betas"], eps=STEPS["eps"])
    time, vocab_size = shape["n_positions"], shape["vocab_size"]
    taken = []
    for step in range(STEPS["n"]):
        rows = random_rows([time, time - 3 * (step % 3)], vocab_size // 4)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.zero_grad()
        _, loss = forward(model, rows)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), STEPS["clip_norm"])
        optimizer.step()
        taken.append(dict(rows=rows, lr=learning_rate(step), loss=loss.item(), grad_norm=norm.item()))
    norms = {name_of(name): norm_of(name, p) for name, p in model.named_parameters()}
    return dict(settings=STEPS, taken=taken, final_norms=norms)


def norm_of(name, p):
    """The Euclidean norm. A bias on the keys moves all scores of a query alike and so does nothing: its true
    gradient is zero, Adam makes steps of the rounding error, and it is left out."""
    if name.endswith("c_attn.bias"):
        n = p.numel() // 3
        p = torch.cat([p[:n], p[2 * n :]])
    return p.norm().item()


def main():
    torch.manual_seed(1)
    for name, shape in CASES.items():
        folder = HERE / name
        model = make_model(shape, spread=1.0)
        model.save_pretrained(folder)
        model = model.double().eval()
        time, vocab_size = shape["n_positions"], shape["vocab_size"]
        tensors = {}
        batches = [golden_batch(model, "full", random_rows([time, time], vocab_size), tensors)]
        if name != "wide":
            lens = [time - 4, time - 1, 1]
            batches.append(golden_batch(model, "padded", random_rows(lens, vocab_size), tensors))
        golden = dict(pad=PAD, batches=batches, steps=ten_steps(model, shape))
        save_file({key: t.detach().float().contiguous() for key, t in tensors.items()}, folder / "golden.safetensors")
        (folder / "golden.json").write_text(json.dumps(golden) + "\n")
        losses = [round(step["loss"], 4) for step in golden["steps"]["taken"]]
        norms = [round(step["grad_norm"], 2) for step in golden["steps"]["taken"]]
        print(f"{name}: {model.num_parameters()} weights, losses {losses}, norms {norms}", file=sys.stderr)


if __name__ == "__main__":
    main()
