"""Loads a model directory with transformers and says what it computes, for crates/cli/tests/transformers.rs.

    python tests/golden/ask_transformers.py DIR TEXT_FILE PROMPT N

Prints JSON: the text's ids and what they decode to; the ids around an end-of-text token; -ln p of each token over
consecutive windows of the context; the ids of N greedy tokens after the prompt; weights that did not match.
"""

import json
import sys

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, GPT2LMHeadModel


def window_losses(model, ids):
    """ids[kT .. kT + T] predict the ids one later; the last window may be shorter."""
    time = model.config.n_positions
    losses = []
    for start in range(0, len(ids) - 1, time):
        end = min(start + time, len(ids) - 1)
        logits = model(torch.tensor([ids[start:end]])).logits[0]
        losses += cross_entropy(logits, torch.tensor(ids[start + 1 : end + 1]), reduction="none").tolist()
    return losses


def greedy(model, ids, n):
    """The n ids that follow, each the most likely one."""
    prompt = len(ids)
    for _ in range(n):
        ids = ids + [model(torch.tensor([ids])).logits[0, -1].argmax().item()]
    return ids[prompt:]


@torch.no_grad()
def main(folder, text_file, prompt, n):
    model, report = GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    unmatched = {key: sorted(names) for key, names in report.items() if key != "error_msgs" and names}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = model.double().eval()
    with open(text_file, encoding="utf-8", newline="") as file:
        text = file.read()
    ids = tokenizer.encode(text, add_special_tokens=False)
    answer = dict(
        unmatched=unmatched,
        eos=tokenizer.eos_token_id,
        ids=ids,
        decoded=tokenizer.decode(ids, clean_up_tokenization_spaces=False),
        special=tokenizer.encode(prompt + tokenizer.eos_token + prompt, add_special_tokens=False),
        losses=window_losses(model, ids),
        greedy=greedy(model, tokenizer.encode(prompt, add_special_tokens=False), n),
    )
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
