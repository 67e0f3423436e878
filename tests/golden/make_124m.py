"""Makes a golden case of GPT-2's released shape, with random weights: about 1.2 GB, so not committed.

    python tests/golden/make_124m.py /tmp/golden-124m
    GOLDEN_124M=/tmp/golden-124m cargo test -p models --test golden -- --nocapture
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from make import PAD, golden_batch, make_model, random_rows

SHAPE = dict(n_layer=12, n_head=12, n_embd=768, n_positions=1024, vocab_size=50257)


def main(folder):
    torch.manual_seed(124)
    model = make_model(SHAPE, spread=1.0)
    model.save_pretrained(folder)
    model = model.double().eval()
    tensors = {}
    batches = [golden_batch(model, "full", random_rows([256, 256], SHAPE["vocab_size"]), tensors)]
    save_file({key: t.detach().float().contiguous() for key, t in tensors.items()}, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps(dict(pad=PAD, batches=batches)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
