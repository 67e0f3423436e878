"""Where transformers' `generate` ends a text, for crates/cli/tests/ends.rs.

    python tests/golden/ask_ends.py IDS N DIR ...

Prints JSON: for each model directory the ids of at most N greedy tokens that follow IDS, with the one that ended them.
"""

import json
import sys

import torch
from transformers import GPT2LMHeadModel


def written(folder, ids, n):
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    given = torch.tensor([ids])
    out = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=n, do_sample=False)
    return out[0, len(ids) :].tolist()


if __name__ == "__main__":
    ids, n, *folders = sys.argv[1:]
    print(json.dumps([written(folder, json.loads(ids), int(n)) for folder in folders]))
