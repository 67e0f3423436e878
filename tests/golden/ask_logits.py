"""Loads a model directory with transformers as it is, and says what it computes, for crates/models/tests/huggingface.rs.

    python tests/golden/ask_logits.py ID,ID,… DIR DIR …

Prints a line of JSON for each directory: its type, weights that did not match, and the logits of the last id, computed in
float64 from the weights as loaded.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging


@torch.no_grad()
def main(ids, folders):
    logging.disable_progress_bar()
    for folder in folders:
        model, report = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
        unmatched = {key: sorted(map(str, names)) for key, names in report.items() if key != "error_msgs" and names}
        dtype = str(model.dtype).removeprefix("torch.")
        logits = model.double().eval()(torch.tensor([ids])).logits[0, -1]
        print(json.dumps(dict(dtype=dtype, unmatched=unmatched, logits=logits.tolist())))


if __name__ == "__main__":
    main([int(i) for i in sys.argv[1].split(",")], sys.argv[2:])
