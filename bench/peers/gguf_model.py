"""Writes a model directory as GGUF, for llama.cpp: f32 here, bfloat16, 8 and 4 bits by its own `llama-quantize`.

    pip install gguf numpy safetensors                                # in a virtual environment
    python bench/peers/gguf_model.py -m DIR --out target/peers/gguf                        # DIR-f32.gguf
    python bench/peers/gguf_model.py -m DIR --out target/peers/gguf --llama BUILD/bin      # also bf16, q8_0, q4_0
    python bench/peers/gguf_model.py -m DIR --out target/peers/gguf --check

The tokenizer is GPT-2's vocab.json and merges.txt where DIR has them, else a placeholder of the right size: enough to
measure with. llama.cpp keeps matrices as (outputs, inputs), so Conv1D's are turned over; the output layer is the
embedding table. --check gives 64 tokens to each file written and to transformers, and prints how far the logits lie
apart; it needs torch, transformers and `pip install llama-cpp-python`. llama.cpp looks GELU up in a table of f16, so
in f32 too they lie about 1e-3 apart; a matrix in the wrong place moves them by whole units.
"""

import argparse
import collections
import json
import re
import subprocess
import sys
from pathlib import Path

QUANTISED = {"bf16": "BF16", "q8": "Q8_0", "q4": "Q4_0"}  # our name of a format: llama.cpp's
CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def path_of(model, folder, dtype):
    """Where the GGUF of a model directory lies, by our name of the format."""
    return Path(folder) / f"{Path(model).resolve().name}-{QUANTISED.get(dtype, dtype).lower()}.gguf"


def vocabulary(model, size):
    """Tokens, their types and merges."""
    import gguf

    normal, control, unused = (int(gguf.TokenType[name]) for name in ("NORMAL", "CONTROL", "UNUSED"))
    tokens, types = [f"<|unused {id}|>" for id in range(size)], [unused] * size
    if (model / "vocab.json").exists() and (model / "merges.txt").exists():
        for token, id in json.loads((model / "vocab.json").read_text("utf-8")).items():
            tokens[id], types[id] = token, control if token == "<|endoftext|>" else normal
        lines = (model / "merges.txt").read_text("utf-8").split("\n")
        return tokens, types, [line for line in lines if " " in line and not line.startswith("#version")]
    for id in range(min(94, size)):
        tokens[id], types[id] = chr(33 + id), normal
    return tokens, types, ["! !"]  # llama.cpp asks for a merge; it leads to no token, so it never applies


def write(model, path):
    """Writes `model` to `path` in f32."""
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    layers, size = config["n_layer"], config["vocab_size"]
    partial = path.with_suffix(".partial")
    out = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GPT2])
    out.add_name(model.resolve().name)
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_block_count(layers)
    out.add_head_count(config["n_head"])
    out.add_embedding_length(config["n_embd"])
    out.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    out.add_context_length(config.get("n_ctx") or config["n_positions"])
    out.add_layer_norm_eps(config["layer_norm_epsilon"])

    tokens, types, merges = vocabulary(model, size)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types(types)
    out.add_token_merges(merges)
    end = config.get("eos_token_id")
    end = end if isinstance(end, int) else size - 1
    out.add_bos_token_id(end)
    out.add_eos_token_id(end)
    out.add_add_bos_token(False)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, layers)
    for name, tensor in load_file(model / "model.safetensors").items():
        if name == "lm_head.weight" or name.endswith((".attn.bias", ".attn.masked_bias")):
            continue  # the embedding again, and masks
        name = "transformer." + name.removeprefix("transformer.")
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs, f"{name}: GGUF has no name for it"
        tensor = tensor.T if name.endswith(CONV1D) else tensor
        out.add_tensor(theirs, np.ascontiguousarray(tensor, dtype=np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    partial.rename(path)


def quantise(llama, source, path, dtype):
    """Makes a format of fewer bits with llama.cpp's program."""
    partial = path.with_suffix(".partial")
    done = subprocess.run([llama / "llama-quantize", source, partial, QUANTISED[dtype]], capture_output=True, text=True)
    assert done.returncode == 0, f"llama-quantize: {done.stderr.strip()[-500:]}"
    partial.rename(path)


def ensure(model, folder, dtypes, llama):
    """Writes those of the files that are missing or older than the model; returns their paths by format."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    born = (model / "model.safetensors").stat().st_mtime
    fresh = lambda path: path.exists() and path.stat().st_mtime >= born
    paths = {dtype: path_of(model, folder, dtype) for dtype in dtypes}
    source = path_of(model, folder, "f32")
    if not all(fresh(path) for path in paths.values()) and not fresh(source):
        write(model, source)
    for dtype, path in paths.items():
        if not fresh(path):
            quantise(Path(llama), source, path, dtype)
    return paths


def describe(path):
    """One line: bytes, and the types of the tensors with two dimensions."""
    import gguf

    tensors = gguf.GGUFReader(path).tensors
    bare = lambda name: re.sub(r"^blk\.\d+\.", "", name).removesuffix(".weight")
    types = collections.Counter((t.tensor_type.name, bare(t.name)) for t in tensors if len(t.shape) > 1)
    of = collections.defaultdict(list)
    for (kind, name), count in types.items():
        of[kind].append(f"{count} x {name}" if count > 1 else name)
    read = sum(int(t.n_bytes) for t in tensors if not t.name.startswith("position_embd"))
    rows = "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in of.items())
    return f"{path}: {path.stat().st_size} bytes, {read} of them weights read for a token\n    {rows}"


def check(model, paths, length=64):
    """Prints the largest distance between llama.cpp's logits and transformers', for each file."""
    import numpy as np
    import torch
    from llama_cpp import Llama
    from transformers import GPT2LMHeadModel

    config = json.loads((model / "config.json").read_text())
    ids = np.random.default_rng(1).integers(0, config["vocab_size"], length).tolist()
    with torch.inference_mode():
        peer = GPT2LMHeadModel.from_pretrained(model, dtype=torch.float32).eval()
        right = peer(torch.tensor([ids])).logits[0].numpy()
    for dtype, path in paths.items():
        f32 = 0  # the type of the cache; by default it is f16
        llama = Llama(str(path), n_ctx=length, n_batch=length, logits_all=True, type_k=f32, type_v=f32, verbose=False)
        llama.eval(ids)
        logits = np.array(llama.scores[:length])
        print(f"{dtype:5} max |dlogit| {abs(logits - right).max():.2e}, logits from {right.min():.2f} to "
              f"{right.max():.2f}, same greedy token in {(logits.argmax(1) == right.argmax(1)).sum()} of {length}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, type=Path, help="config.json and model.safetensors")
    parser.add_argument("--out", default="target/peers/gguf", type=Path, help="folder to write to")
    parser.add_argument("--llama", type=Path, help="folder with llama-quantize; without it only f32 is written")
    parser.add_argument("--dtypes", default="f32,bf16,q8,q4")
    parser.add_argument("--check", action="store_true", help="compare logits with transformers'")
    args = parser.parse_args()
    there = lambda dtype: dtype == "f32" or path_of(args.model, args.out, dtype).exists()
    dtypes = [dtype for dtype in args.dtypes.split(",") if args.llama or there(dtype)]
    try:
        paths = ensure(args.model, args.out, dtypes, args.llama)
    except (AssertionError, OSError) as error:
        sys.exit(f"error: {error}")
    for path in paths.values():
        print(describe(path))
    if args.check:
        check(args.model, paths)


if __name__ == "__main__":
    main()
