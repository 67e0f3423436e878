"""Measures how far PyTorch's bfloat16 autocast is from exact arithmetic, on the golden models beside it.

    python tests/golden/autocast.py [DIR …]     # needs torch, transformers; takes seconds

For each folder with golden files (those that are committed, or DIR, such as one made by make_124m.py) it writes
`autocast.json`: for each batch the error of the logits and of the gradients, as shares of their Euclidean norms. Our
own bfloat16 training is held to 1.5 times these figures (crates/models/tests/golden.rs).
"""

import json
import sys
from pathlib import Path

import torch
from make import CASES, HERE, IGNORE, PAD, forward, name_of
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel


def relative(differences, wanted):
    norm = lambda tensors: sum(t.double().square().sum() for t in tensors).sqrt()
    return (norm(differences) / norm(wanted)).item()


def measure(folder):
    golden = json.loads((folder / "golden.json").read_text())
    tensors = load_file(folder / "golden.safetensors")
    model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    found = {}
    for batch in golden["batches"]:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, loss = forward(model, batch["rows"])
        loss.backward()
        # Padding does not count.
        longest = max(len(row) for row in batch["rows"]) - 1
        real = torch.tensor([[i < len(row) - 1 for i in range(longest)] for row in batch["rows"]])
        want = tensors[f"{batch['name']}.logits"]
        wanted = {name_of(name): tensors[f"{batch['name']}.grad.{name_of(name)}"] for name, _ in model.named_parameters()}
        errors = {name_of(name): p.grad - wanted[name_of(name)] for name, p in model.named_parameters()}
        found[batch["name"]] = dict(
            logits=relative([(logits.float() - want)[real]], [want[real]]),
            gradients=relative(errors.values(), wanted.values()),
        )
    return found


def main():
    assert (PAD, IGNORE) == (5, -100)
    folders = [Path(name) for name in sys.argv[1:]] or [HERE / name for name in CASES]
    for folder in folders:
        found = measure(folder)
        (folder / "autocast.json").write_text(json.dumps(found, indent=1) + "\n")
        print(folder.name, found, file=sys.stderr)


if __name__ == "__main__":
    main()
