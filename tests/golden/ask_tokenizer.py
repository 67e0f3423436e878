"""What Hugging Face's libraries make of tokenizers that we saved.

    python tests/golden/ask_tokenizer.py TEXTS.JSON DIR...

Prints, for each directory, the ids and the decoded text of each text by `tokenizers`, by AutoTokenizer and, where
there is a vocab.json, by GPT2TokenizerFast, as JSON.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, GPT2TokenizerFast


def ask_raw(folder, texts):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [tokenizer.encode(text).ids for text in texts]
    return {"ids": ids, "texts": [tokenizer.decode(row, skip_special_tokens=False) for row in ids]}


def ask(tokenizer, texts):
    ids = [tokenizer(text)["input_ids"] for text in texts]
    return {"ids": ids, "texts": [tokenizer.decode(row) for row in ids], "eos": tokenizer.eos_token_id}


def main():
    texts = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    answers = []
    for folder in map(Path, sys.argv[2:]):
        answer = {"tokenizers": ask_raw(folder, texts), "AutoTokenizer": ask(AutoTokenizer.from_pretrained(folder), texts)}
        if (folder / "vocab.json").exists():
            answer["GPT2TokenizerFast"] = ask(GPT2TokenizerFast.from_pretrained(folder), texts)
        answers.append(answer)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
