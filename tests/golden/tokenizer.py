"""Makes crates/tokenizer/tests/golden: what tiktoken and Hugging Face's tokenizers say about our own texts.

    python tests/golden/tokenizer.py DIR      # DIR holds GPT-2's vocab.json and merges.txt; needs tiktoken, tokenizers

    gpt2.json      texts and their GPT-2 ids, on which both libraries agree
    trained.json   a byte-level BPE that `tokenizers` learnt from TEXT, and ids from variants of its tokenizer.json
"""

import json
import sys
from pathlib import Path

import tiktoken
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import Regex

HERE = Path(__file__).parent
OUT = HERE / "../../crates/tokenizer/tests/golden"
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
END = "<|endoftext|>"

TEXTS = [
    "",
    " ",
    "a",
    "The fox found a lantern, and the lantern found the fox.",
    "I'd say we've won; they're late, it's done, I'm off, you'll see, don't.",
    "I'D SAY WE'VE WON 'tis 'll' ''s 's's",
    "one  two   three    four\n\nfive \n six\t\tseven \r\n eight   ",
    " " * 3 + "x" + " " * 70,
    " " * 1000,
    "\n" * 300 + "end",
    "\t\u000b\u000c\u001c\u0085\u00a0\u1680\u180e\u2003\u200b\u2028\u2029\u202f\u205f\u3000\ufeffx",
    "狐狸找到了一盏灯，然后灯也找到了狐狸。",
    "第3章 他说：“你好 world！”——2026年１２月",
    "繁體字與简体字混排，𠮷野家、㐂び、豈",
    "ひらがなカタカナ漢字 한국어 조선말",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם. السلام عليكم ٣٤٥",
    "नमस्ते दुनिया संयुक्ताक्षर ไทยไม่มีช่องว่าง",
    "e\u0301 vs é, a\u0308\u0304, Z\u0351\u036b\u0343\u036a",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇨🇳🇫🇷 ☃️ ❤️‍🔥 😀😀😀",
    "3.14159 1,000,000 0xFF 1e-9 ½ ² Ⅻ ㊿ 〇 ௧௨",
    "x\0y\0\0 \x01\x7f\u0080",
    END,
    f"a{END}b {END}{END} <|endoftext |> <|im_start|>",
    "fn main() {\n    let x: Vec<u32> = (0..10).map(|i| i * i).collect();\n\t// done\n}\n",
    "def f(x):\n\treturn {'a': x**2, \"b\": [i for i in range(10) if i % 2 == 0]}\n",
    "https://example.com/a?b=c&d=%20#e user@example.org C:\\Users\\x ~/y",
    "_snake_case camelCase SCREAMING_CASE kebab-case $x @y #z",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "ab" * 200,
    "a" * 257,
    "=" * 100 + "-" * 99 + "." * 98,
    "好" * 100,
    "\u0627\u0653\u064b" * 30,
    "\ufffd\ufffe\uffff\U0010ffff\ue000",
    "ﬁ ﬂ ŉ ǅ ʰ ª º ⁿ № ™ ①",
    "«quoted» „so“ ‚so‘ …—–‐ ¿qué? ¡sí!",
    "\u200f\u202eabc\u202c \u2066x\u2069",
]

TEXT = """The fox found a lantern. "Whose lantern is this?" said the fox to the owl.
The owl didn't know; the owl had found a lantern too, and two lanterns are better than one.
So they went together, the owl and the fox, through the dark and the rain and the dark again.
狐狸找到了一盏灯。“这是谁的灯？”狐狸问猫头鹰。猫头鹰不知道，猫头鹰也找到了一盏灯。
for i in 0..10 { println!("{i} {i}"); } // 0 1 2 3 4 5 6 7 8 9
aaaa aaaaaa aa aaaaa abababab babababa ababab    aaaa
"""


def alphabet():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [byte for byte in range(256) if byte not in keep]
    return {chr(byte): byte for byte in keep} | {chr(256 + k): byte for k, byte in enumerate(other)}


def gpt2(folder):
    byte_of = alphabet()
    vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
    ranks = {bytes(byte_of[char] for char in token): id for token, id in vocab.items() if token != END}
    first = tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={END: vocab[END]})
    second = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    second.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cases = []
    for text in TEXTS:
        ids = first.encode_ordinary(text)
        assert ids == second.encode(text).ids, text
        cases.append({"text": text, "ids": ids})
    return cases


def train():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    # END comes last, as in GPT-2: the trainer would put it first.
    trainer = trainers.BpeTrainer(vocab_size=399, initial_alphabet=letters, show_progress=False)
    made.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    made.add_special_tokens([END])
    return made


def variants(made):
    """Other ways to say how text is cut, each a part of tokenizer.json."""
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    yield "plain", {}
    yield "prefix", {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)}
    yield "whole", {"pre_tokenizer": whole}
    yield "split", {"pre_tokenizer": pre_tokenizers.Sequence([split, whole])}
    yield "added", {"added": [AddedToken("lant", normalized=True), AddedToken("lantern", normalized=True)]}


def trained():
    made = train()
    base = json.loads(made.to_str())
    texts = TEXTS + [TEXT, "the lantern's lant lante rn", f"{END}lantern{END} fox"]
    result = []
    for name, change in variants(made):
        changed = Tokenizer.from_str(json.dumps(base))
        if "pre_tokenizer" in change:
            changed.pre_tokenizer = change["pre_tokenizer"]
        changed.add_tokens(change.get("added", []))
        theirs = json.loads(changed.to_str())
        parts = {key: theirs[key] for key in ("pre_tokenizer", "added_tokens")}
        # Special tokens are found here, as with our `encode_with_special`.
        ids = [changed.encode(text, add_special_tokens=False).ids for text in texts]
        result.append({"name": name, "parts": parts, "ids": ids})
    return {"text": TEXT, "vocab_size": 400, "tokenizer": base, "texts": texts, "variants": result}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, value in {"gpt2": gpt2(Path(sys.argv[1])), "trained": trained()}.items():
        text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
        (OUT / f"{name}.json").write_text(text + "\n", "ascii")


if __name__ == "__main__":
    main()
