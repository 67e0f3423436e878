"""What PEFT computes with adapters: for crates/models/tests/peft.rs.

    ask_peft.py BASE CASES

BASE is a model directory. CASES is a JSON list of cases, each with "adapter", a directory. Where a case has "make", settings of
peft.LoraConfig, an adapter with random matrices is made and saved there first; otherwise the one that lies there is loaded.
Prints a JSON list with what each computes for IDS: logits (8, V), the loss of the next tokens, and its gradients by name,
as float32 on one thread.
"""

import json
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import GPT2LMHeadModel

IDS = [[3, 1, 4, 1, 5, 9, 2, 6]]
WTE = "base_model.model.transformer.wte.weight"


def made(base, settings, folder):
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return model


def loaded(base, folder):
    with safe_open(f"{folder}/adapter_model.safetensors", "pt") as file:
        if WTE in file.keys():
            base.resize_token_embeddings(file.get_slice(WTE).get_shape()[0], mean_resizing=False)
    return PeftModel.from_pretrained(base, folder, is_trainable=True)


def ask(base, case):
    base = GPT2LMHeadModel.from_pretrained(base)
    model = made(base, case["make"], case["adapter"]) if "make" in case else loaded(base, case["adapter"])
    model.eval()
    ids = torch.tensor(IDS)
    result = model(ids, labels=ids)
    result.loss.backward()
    grads = {name: weight.grad.flatten().tolist() for name, weight in model.named_parameters() if "lora_" in name}
    return {"logits": result.logits.flatten().tolist(), "loss": result.loss.item(), "grads": grads}


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    base, cases = sys.argv[1:]
    with open(cases) as file:
        print(json.dumps([ask(base, case) for case in json.load(file)]))


main()
