"""Makes tests/golden/switches: what transformers says about tiny GPT-2s with each switch of config.json that changes them.

    python tests/golden/make_switches.py            # needs torch, transformers; takes seconds

Each case is a model directory as transformers writes it, small enough to commit, with one file more:

    golden.safetensors   ids (B, T), logits (B, T, V) and loss, the mean over the T - 1 predictions of each row; hidden.I
                         (B, T, C), the stream into block I (after the last: the final norm); grad.NAME, the gradient of
                         the loss by each weight; greedy (B, N), the most likely tokens after the ids

Weights are stored in float32; the arithmetic is in float64 from there, so that the tests see our rounding alone.
"""

import shutil
from pathlib import Path

import torch
from make import make_model, name_of
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

HERE = Path(__file__).parent / "switches"
SHAPE = dict(n_layer=2, n_head=2, n_embd=8, n_positions=20, vocab_size=23, n_inner=20)
ROWS, TIME, NEW = 2, 12, 6

CASES = {
    "gelu": dict(activation_function="gelu"),
    "gelu_fast": dict(activation_function="gelu_fast"),
    "quick_gelu": dict(activation_function="quick_gelu"),
    "silu": dict(activation_function="silu"),
    "relu": dict(activation_function="relu"),
    "relu2": dict(activation_function="relu2"),
    "tanh": dict(activation_function="tanh"),
    "sigmoid": dict(activation_function="sigmoid"),
    "unscaled": dict(scale_attn_weights=False),
    "by_layer": dict(scale_attn_by_inverse_layer_idx=True),
    "untied": dict(tie_word_embeddings=False),
    "all": dict(
        activation_function="gelu_pytorch_tanh",
        scale_attn_weights=False,
        scale_attn_by_inverse_layer_idx=True,
        reorder_and_upcast_attn=True,
        tie_word_embeddings=False,
        layer_norm_epsilon=1e-2,
    ),
}


def greedy(model, ids):
    """The NEW most likely tokens after each row."""
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(NEW):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    return ids[:, start:]


def main():
    torch.manual_seed(3)
    shutil.rmtree(HERE, ignore_errors=True)
    for name, switches in CASES.items():
        model = make_model(SHAPE | switches, spread=1.5)
        model.save_pretrained(HERE / name)
        model = model.eval()
        # transformers computes the scores in float32 where it reorders; the function is the same.
        if switches.get("reorder_and_upcast_attn"):
            for block in model.transformer.h:
                block.attn.reorder_and_upcast_attn = False
        model = model.double()
        ids = torch.randint(SHAPE["vocab_size"], (ROWS, TIME))
        out = model(ids, output_hidden_states=True)
        loss = cross_entropy(out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        tensors = {f"grad.{name_of(key)}": p.grad for key, p in model.named_parameters()}
        tensors |= {f"hidden.{i}": hidden for i, hidden in enumerate(out.hidden_states)}
        tensors |= dict(ids=ids, logits=out.logits, loss=loss, greedy=greedy(model, ids))
        save_file({key: t.detach().float().contiguous() for key, t in tensors.items()}, HERE / name / "golden.safetensors")
        print(name, f"loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
