"""Makes sampling.json beside it: which tokens transformers' temperature, top-k and top-p leave, and how likely.

    python tests/golden/sampling.py        # needs torch, transformers; takes seconds

Each case has logits (exact in float32), settings, and the tokens left with their probabilities. Cases where
rounding would decide whether top-p keeps a token, or where equal tokens lie on that border, are not made.
"""

import json
from pathlib import Path

import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

SETTINGS = [
    dict(temperature=1.0, top_k=0, top_p=1.0),
    dict(temperature=0.8, top_k=40, top_p=0.95),
    dict(temperature=0.8, top_k=5, top_p=0.95),
    dict(temperature=0.3, top_k=0, top_p=0.9),
    dict(temperature=1.0, top_k=1, top_p=1.0),
    dict(temperature=1.0, top_k=0, top_p=0.01),
    dict(temperature=2.5, top_k=7, top_p=0.5),
    dict(temperature=1.7, top_k=1000, top_p=0.7),
    dict(temperature=0.05, top_k=3, top_p=0.999),
]


def logits():
    """Rows of several sizes and spreads; the last has equal values, so that top-k meets them."""
    torch.manual_seed(1)
    rows = [torch.randn(n) * spread for n, spread in [(2, 1), (9, 3), (40, 1), (61, 2)]]
    rows.append(torch.tensor([1.0, 4.0, 2.5, 4.0, 2.5, -3.0, 2.5, 0.5]))
    return [(row * 64).round() / 64 for row in rows]


def is_clear(scores, top_p):
    """Whether the border of top-p is further from every cumulative probability than rounding reaches."""
    cumulative = scores.double().softmax(-1).sort(descending=True).values.cumsum(-1)
    return top_p == 1.0 or (cumulative - top_p).abs().min() > 1e-4


def case(row, temperature, top_k, top_p):
    scores = TemperatureLogitsWarper(temperature)(None, row[None])
    if top_k > 0:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if not is_clear(scores[0], top_p):
        return None
    if top_p < 1.0:
        before = scores
        scores = TopPLogitsWarper(top_p)(None, scores)
        left, lost = before[0][scores[0].isfinite()], before[0][scores[0].isinf() & before[0].isfinite()]
        if len(lost) and left.min() == lost.max():
            return None
    kept = scores[0].isfinite().nonzero().flatten()
    return dict(
        logits=row.tolist(),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        ids=kept.tolist(),
        probs=scores[0].double().softmax(-1)[kept].tolist(),
    )


cases = [made for row in logits() for settings in SETTINGS if (made := case(row, **settings))]
lines = ",\n".join(json.dumps(made) for made in cases)
(Path(__file__).parent / "sampling.json").write_text(f"[\n{lines}\n]\n")
print(f"{len(cases)} cases")
