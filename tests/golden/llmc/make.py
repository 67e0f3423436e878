"""Makes the golden files beside it: a tiny GPT-2 as llm.c's train_gpt2.py lays it out, in both versions.

    pip install numpy                            # in a virtual environment
    python tests/golden/llmc/make.py

    source.safetensors   the weights, in float32, under our names and shapes
    f32.bin, bf16.bin    versions 3 and 5: 256 int32 (magic, version, context, vocabulary, layers, heads, channels, padded
                         vocabulary), then wte with zeros for padding, wpe, each kind of weight for all blocks, ln_f;
                         linear layers as (outputs, inputs)
"""

import json
import struct
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
C, LAYERS, HEADS, CONTEXT, VOCAB, PADDED = 16, 3, 2, 9, 130, 256
KINDS = {
    "ln_1.weight": (C,), "ln_1.bias": (C,), "attn.c_attn.weight": (C, 3 * C), "attn.c_attn.bias": (3 * C,),
    "attn.c_proj.weight": (C, C), "attn.c_proj.bias": (C,), "ln_2.weight": (C,), "ln_2.bias": (C,),
    "mlp.c_fc.weight": (C, 4 * C), "mlp.c_fc.bias": (4 * C,), "mlp.c_proj.weight": (4 * C, C), "mlp.c_proj.bias": (C,),
}


def main():
    random = np.random.default_rng(6)
    draw = lambda shape: (random.standard_normal(shape) * 0.2).astype(np.float32)
    source = {"wte.weight": draw((VOCAB, C)), "wpe.weight": draw((CONTEXT, C))}
    source |= {f"h.{i}.{kind}": draw(shape) for i in range(LAYERS) for kind, shape in KINDS.items()}
    source |= {"ln_f.weight": draw((C,)), "ln_f.bias": draw((C,))}

    rows = [np.pad(source["wte.weight"], ((0, PADDED - VOCAB), (0, 0))), source["wpe.weight"]]
    for kind in KINDS:
        tensors = [source[f"h.{i}.{kind}"] for i in range(LAYERS)]
        rows += [np.ascontiguousarray(t.T) if t.ndim == 2 else t for t in tensors]
    rows += [source["ln_f.weight"], source["ln_f.bias"]]
    values = np.concatenate([row.ravel() for row in rows])
    bits = values.view(np.uint32)
    halves = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even
    for name, version, data in [("f32", 3, values), ("bf16", 5, halves)]:
        header = np.zeros(256, np.int32)
        header[:8] = [20240326, version, CONTEXT, VOCAB, LAYERS, HEADS, C, PADDED]
        (HERE / f"{name}.bin").write_bytes(header.tobytes() + data.tobytes())

    header, at = {}, 0
    for name, tensor in source.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header).encode()
    body = b"".join(tensor.tobytes() for tensor in source.values())
    (HERE / "source.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


if __name__ == "__main__":
    main()
