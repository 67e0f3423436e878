"""Packs GPT-2's merges.txt into gpt2-merges.bin, the file beside this script.

    python crates/tokenizer/data/make.py MERGES.TXT

The file holds 50,000 merges of two token ids, each id as a little-endian u16. Tokens 0 to 255 are the bytes in GPT-2's
order; merge k makes token 256 + k. That is the whole vocabulary but for <|endoftext|>, which is 50256.
"""

import struct
import sys
from pathlib import Path

printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
names = [chr(byte) for byte in printable] + [chr(256 + k) for k in range(256 - len(printable))]
ids = {name: id for id, name in enumerate(names)}

packed = b""
with open(sys.argv[1], encoding="utf-8", newline="\n") as file:
    assert next(file).startswith("#version")
    for line in file:
        left, right = line.rstrip("\n").split(" ")
        packed += struct.pack("<HH", ids[left], ids[right])
        assert left + right not in ids
        ids[left + right] = len(ids)
assert len(ids) == 50256
Path(__file__).with_name("gpt2-merges.bin").write_bytes(packed)
