"""Makes the files of PyTorch in `torch/` beside it: one tiny GPT-2 in every way that people have saved theirs.

    python tests/golden/torch_files.py     # needs torch, numpy, safetensors, transformers; takes seconds

    torch/config.json, model.safetensors   the model as Hugging Face writes it: what all of hf_*.bin and .pt must equal
    torch/hf_*                             state dicts of it: zip and legacy containers, types, views, wrappers
    torch/sharded/                         a directory of pytorch_model.bin in two parts with an index
    torch/nano_*.pt                        checkpoints as nanoGPT's train.py writes them
    torch/nano_*.safetensors               their weights under the same names, and `logits` (T, V) of `ids` (T)
    torch/meta.pkl                         the characters of nanoGPT's data/shakespeare_char
"""

import json
import math
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

OUT = Path(__file__).parent / "torch"
SHAPE = dict(n_layer=2, n_head=2, n_embd=8, vocab_size=19)
N_CTX = 10


def stir(module):
    """Random values in every bias and norm, too."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn_like(p) / math.sqrt(p.shape[-1]) if p.dim() > 1 else p + 0.2 * torch.randn_like(p))
    return module


# Hugging Face


def hugging_face():
    config = GPT2Config(**SHAPE, n_positions=N_CTX, bos_token_id=18, eos_token_id=18)
    model = stir(GPT2LMHeadModel(config))
    model.save_pretrained(OUT)
    (OUT / "generation_config.json").unlink()
    (OUT / "model.safetensors").chmod(0o644)
    state = OrderedDict(model.state_dict())
    state._metadata = model.state_dict()._metadata
    torch.save(state, OUT / "hf_zip.bin")
    torch.save(with_masks(state), OUT / "hf_legacy.bin", _use_new_zipfile_serialization=False)
    for name, dtype in dict(f16=torch.half, bf16=torch.bfloat16, f64=torch.double).items():
        torch.save({k: v.to(dtype) for k, v in state.items()}, OUT / f"hf_{name}.pt")
    bare = {k.removeprefix("transformer."): nn.Parameter(v) for k, v in state.items() if k != "lm_head.weight"}
    torch.save(bare, OUT / "hf_bare_parameters.pt", pickle_protocol=4)
    wrapped = {"epoch": 3, "args": {"lr": 1e-4}, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    torch.save(wrapped, OUT / "hf_wrapped_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(views_of(state), OUT / "hf_views.pt")
    sharded(state)


def with_masks(state):
    """The buffers that transformers saved until 2023."""
    masked = OrderedDict(state)
    for layer in range(SHAPE["n_layer"]):
        mask = torch.tril(torch.ones(N_CTX, N_CTX, dtype=torch.uint8)).view(1, 1, N_CTX, N_CTX)
        masked[f"transformer.h.{layer}.attn.bias"] = mask
        masked[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    return masked


def views_of(state):
    """The same values, most of them as views: turned, with gaps, of one storage, repeated by a stride of 0."""
    views = OrderedDict()
    flat = torch.cat([v.flatten() for k, v in state.items() if k != "lm_head.weight"])
    offset = 0
    for name, value in state.items():
        if name == "lm_head.weight":
            views[name] = views["transformer.wte.weight"]
        elif "c_fc.weight" in name:
            views[name] = value.t().contiguous().t()
        elif "c_attn.weight" in name:
            views[name] = torch.stack([value, -value], dim=-1)[..., 0]
        else:
            views[name] = flat[offset : offset + value.numel()].view(value.shape)
        offset += value.numel() if name != "lm_head.weight" else 0
    # Only here do all elements agree.
    views["transformer.h.0.attn.masked_bias"] = torch.tensor([-1e4]).expand(3)
    for name, value in state.items():
        assert torch.equal(views[name], value), name
    return views


def sharded(state):
    folder = OUT / "sharded"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text((OUT / "config.json").read_text())
    names = [name for name in state if name != "lm_head.weight"]
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    where = {}
    for part, names in enumerate(halves, start=1):
        file = f"pytorch_model-{part:05}-of-00002.bin"
        torch.save({name: state[name].clone() for name in names}, folder / file)
        where |= dict.fromkeys(names, file)
    size = sum(state[name].numel() * 4 for name in where)
    index = dict(metadata=dict(total_size=size), weight_map=where)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")


# nanoGPT: linear layers are (out, in), biases may be left out, GELU is exact, the table is the output layer


class Norm(nn.Module):
    def __init__(self, width, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Attn(nn.Module):
    def __init__(self, width, bias):
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width, bias=bias)
        self.c_proj = nn.Linear(width, width, bias=bias)

    def forward(self, x):
        time, width = x.shape
        q, k, v = (part.view(time, SHAPE["n_head"], -1).transpose(0, 1) for part in self.c_attn(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(0, 1).reshape(time, width))


class Mlp(nn.Module):
    def __init__(self, width, bias):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width, bias=bias)
        self.c_proj = nn.Linear(4 * width, width, bias=bias)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x)))


class Layer(nn.Module):
    def __init__(self, width, bias):
        super().__init__()
        self.ln_1, self.attn = Norm(width, bias), Attn(width, bias)
        self.ln_2, self.mlp = Norm(width, bias), Mlp(width, bias)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Nano(nn.Module):
    def __init__(self, bias):
        super().__init__()
        width = SHAPE["n_embd"]
        self.transformer = nn.ModuleDict(
            dict(
                wte=nn.Embedding(SHAPE["vocab_size"], width),
                wpe=nn.Embedding(N_CTX, width),
                h=nn.ModuleList(Layer(width, bias) for _ in range(SHAPE["n_layer"])),
                ln_f=Norm(width, bias),
            )
        )
        self.lm_head = nn.Linear(width, SHAPE["vocab_size"], bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, ids):
        x = self.transformer.wte(ids) + self.transformer.wpe.weight[: len(ids)]
        for layer in self.transformer.h:
            x = layer(x)
        return self.lm_head(self.transformer.ln_f(x))


def nano(bias):
    model = stir(Nano(bias))
    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    # One step, so that the optimiser has moments to save.
    with_momentum = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    optimizer = with_momentum if bias else adam
    F.cross_entropy(model(ids[:-1]), ids[1:]).backward()
    optimizer.step()
    state = model.state_dict()
    prefix = "" if bias else "_orig_mod."
    checkpoint = {
        "model": OrderedDict((prefix + name, value) for name, value in state.items()),
        "optimizer": optimizer.state_dict(),
        "model_args": dict(**SHAPE, block_size=N_CTX, bias=bias, dropout=0.2),
        "iter_num": 1,
        "best_val_loss": torch.tensor(2.5) if bias else np.float64(2.5),
        "config": dict(out_dir="out", dataset="shakespeare_char", compile=True, learning_rate=1e-3, eval_only=False),
    }
    name = f"nano_{'bias' if bias else 'no_bias'}"
    torch.save(checkpoint, OUT / f"{name}.pt")
    with torch.no_grad():
        answer = dict(ids=ids.float(), logits=model.double()(ids).float())
    weights = {k: v.float().contiguous() for k, v in state.items() if k != "lm_head.weight"}
    save_file(weights | answer, OUT / f"{name}.safetensors")
    (OUT / f"{name}.safetensors").chmod(0o644)


def meta():
    chars = sorted(set("\n !$&',-.3:;?é中文ABCabcxyz"))
    stoi = {char: i for i, char in enumerate(chars)}
    itos = {i: char for i, char in enumerate(chars)}
    with open(OUT / "meta.pkl", "wb") as file:
        pickle.dump(dict(vocab_size=len(chars), itos=itos, stoi=stoi), file)


if __name__ == "__main__":
    torch.manual_seed(5)
    OUT.mkdir(exist_ok=True)
    hugging_face()
    nano(bias=True)
    nano(bias=False)
    meta()
