"""Makes ids.json and bpe/tokenizer.json: what Hugging Face's `tokenizers` makes of awkward texts.

    python tests/golden/make_ids.py FOLDER    # with GPT-2's vocab.json and merges.txt

Each text is encoded with GPT-2's vocabulary, and with one of 420 tokens trained here, both without special tokens.
"""

import json
import sys
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\r\n\r\n \t\n",
    "Hello world",
    " Hello  world ",
    "a" * 100,
    " " * 37 + "x",
    "ab" * 33 + "\n" + "ba" * 33,
    "It's we'll I'm they're you've he'd can't 'tis IT'S WE'LL ' s",
    "'s't're've'm'll'd''",
    "It’s typographic",
    "1234567890 12,345.678 3.14e-10 ½ ² Ⅷ ٣ ४",
    "!!!??? ... --- ___ === ((())) [[]] {{}} <<>> ~~ `` @@ ## $$ %% ^^ && ** ++ ||",
    "<|endoftext|>",
    "one<|endoftext|>two <|endoftext|>",
    "naïve café Übergröße Þórður İstanbul ﬁne",
    "cafe\u0301 vs café",
    "Привет, мир! Γειά σου κόσμε",
    "我们一起去公园玩，好不好？“好！”她说。",
    "混合 mixed 文字 and English，二〇二六年。",
    "日本語のテキスト、カタカナ 한국어 텍스트",
    "שלום עולם مرحبا بالعالم नमस्ते दुनिया ภาษาไทย",
    "🦊🦉 family: 👨‍👩‍👧‍👦 flag: 🇨🇳 skin: 👍🏽",
    "zero\u200bwidth\u00a0nbsp\u3000ideographic\u2028line\u2029paragraph\u0085next\ufeffbom",
    "null\x00 bell\x07 escape\x1b[0m delete\x7f \x1c\x1d\x1e\x1f",
    "\U00010000 \U0010ffff \ud7ff \ue000 \ufffd",
    "fn main() {\n    println!(\"{}\", x[0] as f32 / 2.0); // half\n\t}\n",
    "https://example.org/a_b-c?d=e&f=%20#g user@example.org",
    "snake_case camelCase SCREAMING_CASE kebab-case x1y2z3",
    "trailing spaces   \n   leading spaces\n\n\n   both   ",
    "Once upon a time there was a fox who wanted to see the sea.",
    "the the the The THE thethe",
]


def train_bpe():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 2, trainer)
    return tokenizer


def main(folder):
    gpt2 = ByteLevelBPETokenizer(f"{folder}/vocab.json", f"{folder}/merges.txt", add_prefix_space=False)
    bpe = train_bpe()
    bpe.encode_special_tokens = True  # special tokens in a text stay text
    (HERE / "bpe").mkdir(exist_ok=True)
    bpe.save(str(HERE / "bpe" / "tokenizer.json"))
    cases = [dict(text=text, gpt2=gpt2.encode(text).ids, bpe=bpe.encode(text).ids) for text in TEXTS]
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "ids.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
