"""Loads a model, its conversion and its state dict with transformers and torch, for crates/cli/tests/convert.rs.

    python tests/golden/ask_converted.py DIR CONVERTED_DIR STATE_DICT

Prints JSON: weights that did not match; the largest differences of logits, of the conversion and of a model with the state
dict; the ids of 12 greedy tokens after "Once".
"""

import json
import sys

import torch
from transformers import AutoTokenizer, GPT2LMHeadModel


@torch.no_grad()
def main(folder, converted, state_dict):
    original = GPT2LMHeadModel.from_pretrained(folder).eval()
    model, report = GPT2LMHeadModel.from_pretrained(converted, output_loading_info=True)
    unmatched = [name for key, names in report.items() if key != "error_msgs" for name in map(str, names)]
    other = GPT2LMHeadModel(original.config).eval()
    missing, unknown = other.load_state_dict(torch.load(state_dict, weights_only=True), strict=False)
    unmatched += [name for name in missing + unknown if name != "lm_head.weight"]
    tokenizer = AutoTokenizer.from_pretrained(converted)
    ids = tokenizer.encode("Once upon a time there was a fox.")[: original.config.n_positions]
    logits = [m.eval()(torch.tensor([ids])).logits for m in (original, model, other)]
    greedy, start = (tokenizer.encode("Once"),) * 2
    for _ in range(12):
        greedy = greedy + [model(torch.tensor([greedy])).logits[0, -1].argmax().item()]
    print(
        json.dumps(
            dict(
                unmatched=unmatched,
                max_logit_difference=(logits[0] - logits[1]).abs().max().item(),
                state_dict_difference=(logits[0] - logits[2]).abs().max().item(),
                greedy=greedy[len(start) :],
            )
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
