"""Makes dpo.json beside it: ten steps of direct preference optimisation in plain PyTorch, for crates/train/tests/dpo.rs.

    python tests/golden/dpo.py            # needs torch, transformers; takes seconds

The model is the one that make.py made in `deep`, computed in float64. Each step sees all pairs. The loss is equation 7
of Rafailov et al. (2023), each pair computed by itself, without padding.
"""

import copy
import json
import random
from pathlib import Path

import torch
from torch.nn.functional import logsigmoid
from transformers import GPT2LMHeadModel

HERE = Path(__file__).parent
SETTINGS = dict(beta=0.5, lr=2e-3, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1)
STEPS = 10


def logprob(model, prompt, answer):
    """ln p of an answer, of which the first token is predicted by the prompt's last."""
    ids = torch.tensor([prompt + answer])
    each = model(ids[:, :-1]).logits.log_softmax(-1).gather(2, ids[:, 1:, None])
    return each[0, len(prompt) - 1 :].sum()


def pairs(vocab_size, n_ctx):
    draw = random.Random(6)

    def tokens(least, most):
        return [draw.randrange(vocab_size) for _ in range(draw.randint(least, most))]

    made = [dict(prompt=tokens(1, 12), chosen=tokens(1, 12), rejected=tokens(1, 12)) for _ in range(8)]
    made[0]["prompt"] = tokens(n_ctx - 1, n_ctx - 1)  # to the end of the context
    made[0]["chosen"], made[0]["rejected"] = tokens(2, 2), tokens(1, 1)
    made[7] = dict(prompt=made[6]["prompt"], chosen=made[6]["rejected"], rejected=made[6]["chosen"])  # of two minds
    return made


def main():
    torch.manual_seed(0)
    model = GPT2LMHeadModel.from_pretrained(HERE / "deep").double().train()
    start = copy.deepcopy(model).eval()
    made = pairs(model.config.vocab_size, model.config.n_positions)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [dict(params=matrices), dict(params=others, weight_decay=0.0)]
    adam = {name: SETTINGS[name] for name in ["lr", "betas", "eps", "weight_decay"]}
    optimizer = torch.optim.AdamW(groups, **adam)
    taken = []
    for _ in range(STEPS):
        losses, margins = [], []
        for pair in made:
            rewards = []
            for answer in [pair["chosen"], pair["rejected"]]:
                with torch.no_grad():
                    before = logprob(start, pair["prompt"], answer)
                rewards.append(SETTINGS["beta"] * (logprob(model, pair["prompt"], answer) - before))
            margins.append((rewards[0] - rewards[1]).item())
            losses.append(-logsigmoid(rewards[0] - rewards[1]))
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt()
        optimizer.step()
        taken.append(
            dict(
                loss=loss.item(),
                accuracy=sum(margin > 0 for margin in margins) / len(margins),
                margin=sum(margins) / len(margins),
                grad_norm=norm.item(),
            )
        )
        print(taken[-1])
    lines = [f'"settings": {json.dumps(SETTINGS)}']
    for name, rows in [("pairs", made), ("steps", taken)]:
        lines.append(f'"{name}": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n]")
    (HERE / "dpo.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
