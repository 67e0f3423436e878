"""Makes the golden files beside it: tiny GPT-2 models as the `gguf` package writes them, and what it decodes blocks to.

    pip install gguf numpy llama-cpp-python      # in a virtual environment
    python tests/golden/gguf/make.py             # takes seconds

    source.safetensors   the weights, in float32, under our names and shapes: what the models were made from
    TYPE.gguf            the model with its matrices in TYPE, quantised by the package
    quants.gguf          for each type of ggml's: random blocks (`TYPE`) and the values that the package decodes them to
                         (`TYPE.f32`); `source`, and `source.TYPE`, which the package makes of it
    tokens.json          texts, and the ids that llama.cpp makes of them with the tiny vocabulary, by its `parse_special`
"""

import json
import struct
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

HERE = Path(__file__).parent
C, INNER, LAYERS, HEADS, CONTEXT = 32, 32, 2, 4, 12
MERGES = ["Ġ t", "h e", "i n", "Ġt he", "a n", "Ġ a", "e r", "1 2", "' s", "Ġ Ġ", "ä ¸", "Ċ Ċ", "Ġa n"]
MODELS = [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0]
BLOCKS = [Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q4_K, Type.Q5_K, Type.Q6_K]
HALVES = {Type.Q4_1: [0, 2], Type.Q5_1: [0, 2], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}
TEXTS = [
    "", "the", " the then\n\nan ", "it's 1212  \t\r\n", "中文 ä", "👩‍👩‍👧 \u00a0x", "<|endoftext|>the", "a<|endoftext|>\n\n<|endoftext|>",
    "\x00\x01\x7f", "we'll they'RE 12,123 ½ x²", "   ", "\n \n  \n",
]


def alphabet():
    """GPT-2's printable characters for the bytes, in its order of bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in chars:
            chars[byte] = chr(256 + len(chars) - len(printable))
    return list(chars.values())


def weights(random, vocab):
    """Weights under our names, with matrices as (inputs, outputs)."""
    shapes = {"wte.weight": (vocab, C), "wpe.weight": (CONTEXT, C)}
    for i in range(LAYERS):
        layers = {"ln_1": (C,), "attn.c_attn": (C, 3 * C), "attn.c_proj": (C, C), "ln_2": (C,), "mlp.c_fc": (C, INNER),
                  "mlp.c_proj": (INNER, C)}
        for name, shape in layers.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[-1:]}
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    draw = lambda shape: (random.standard_normal(shape) * (0.5 if len(shape) == 1 else 0.2)).astype(np.float32)
    return {name: draw(shape) for name, shape in shapes.items()}


def write_model(path, kind, source, tokens, types):
    out = gguf.GGUFWriter(path, "gpt2")
    out.add_name("tiny")
    out.add_block_count(LAYERS)
    out.add_context_length(CONTEXT)
    out.add_embedding_length(C)
    out.add_feed_forward_length(INNER)
    out.add_head_count(HEADS)
    out.add_layer_norm_eps(1e-5)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types(types)
    out.add_token_merges(MERGES)
    out.add_bos_token_id(len(tokens) - 1)
    out.add_eos_token_id(len(tokens) - 1)
    out.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, LAYERS)
    for name, tensor in source.items():
        theirs = names.get_name("transformer." + name, try_suffixes=(".weight", ".bias"))
        is_matrix = tensor.ndim == 2 and name != "wpe.weight"
        lies = np.ascontiguousarray(tensor.T if name.startswith("h.") and is_matrix else tensor)
        if not is_matrix or kind == Type.F32:
            out.add_tensor(theirs, lies)
        else:
            of = Type.Q8_0 if kind == Type.Q4_0 and name == "wte.weight" else kind
            out.add_tensor(theirs, gguf.quants.quantize(lies, of), raw_dtype=of)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def write_quants(path, random):
    out = gguf.GGUFWriter(path, "golden")
    for kind in BLOCKS:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        rows = random.integers(0, 256, (2, 512 // block * size), dtype=np.uint8)
        blocks = rows.reshape(-1, size)
        for at in HALVES.get(kind, [0]):
            halves = (random.standard_normal(len(blocks)) * 0.01).astype(np.float16)
            blocks[:, at : at + 2] = halves.view(np.uint8).reshape(-1, 2)
        out.add_tensor(kind.name, rows, raw_dtype=kind)
        out.add_tensor(kind.name + ".f32", gguf.quants.dequantize(rows, kind))
    source = (random.standard_normal((6, 512)) * 10.0 ** random.integers(-3, 3, (6, 1))).astype(np.float32)
    source[0, :40] = 0  # a block of zeros
    source[1, :64] = np.round(source[1, :64]) + 0.0  # ties; and no negative zeros, of which numpy and ggml make other zeros
    out.add_tensor("source", source)
    for kind in [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0]:
        made = gguf.quants.quantize(source, kind)
        out.add_tensor("source." + kind.name, made, raw_dtype=None if kind == Type.F16 else kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t.tobytes() for t in tensors.values()))


def write_tokens(path, model):
    from llama_cpp import Llama

    llama = Llama(str(model), vocab_only=True, verbose=False)
    ids = lambda text, special: llama.tokenize(text.encode(), add_bos=False, special=special)
    rows = [{"text": text, "ids": ids(text, False), "special": ids(text, True)} for text in TEXTS]
    path.write_text(json.dumps(rows, indent=1) + "\n")


def main():
    random = np.random.default_rng(5)
    tokens = alphabet() + [merge.replace(" ", "") for merge in MERGES] + ["<|endoftext|>"]
    normal, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    source = weights(random, len(tokens))
    write_safetensors(HERE / "source.safetensors", source)
    for kind in MODELS:
        write_model(HERE / f"{kind.name.lower()}.gguf", kind, source, tokens, [normal] * (len(tokens) - 1) + [control])
    write_quants(HERE / "quants.gguf", random)
    write_tokens(HERE / "tokens.json", HERE / "f32.gguf")


if __name__ == "__main__":
    main()
