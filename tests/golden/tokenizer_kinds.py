"""Makes crates/tokenizer/tests/golden/kinds.json: what transformers and tokenizers say of vocabularies that are not GPT-2's.

    python tests/golden/tokenizer_kinds.py      # needs transformers, tokenizers, sentencepiece, protobuf

Small vocabularies of each kind that GPT-2s of other languages come with, as the files of a model directory; for each the
ids and the decoded text of TEXTS. `ids` finds special tokens by their names, `plain` takes those for text.
"""

import io
import json
import re
import tempfile
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

HERE = Path(__file__).parent
OUT = HERE / "../../crates/tokenizer/tests/golden/kinds.json"

TEXT = """The fox found a lantern. "Whose lantern is this?" said the fox to the owl.
The owl didn't know; the owl had found a lantern too, and two lanterns are better than one.
So they went together, the owl and the fox, through the dark and the rain and the dark again.
狐狸找到了一盏灯。“这是谁的灯？”狐狸问猫头鹰。猫头鹰不知道，猫头鹰也找到了一盏灯。
这是很久之前的事情了，那时候我用 Python 写了第3章，2019年12月。
きつねはランタンをみつけました。 여우가 등불을 찾았다.
"""

TEXTS = [
    "",
    " ",
    "a",
    "The fox found a lantern.",
    "这是很久之前的事情了",
    "我用Python写了第3章，fox 和 owl。",
    "Didn't the OWL know? It's 'so', \"quoted\" (and) [more]...",
    "one  two   three\n\nfour\t\tfive \r\n six  ",
    "  leading and trailing  ",
    "é e\u0301 Ä ñ ﬁ ² ①",
    "ＦＵＬＬ　ｗｉｄｔｈ１２３！",
    "👩‍👩‍👧 fox 😀😀",
    "x\0y\x01 \x7f\u200b\ufeff\u00a0z\u3000w",
    "鑫淼焱垚 fox 𠮷",
    "きつね ランタン 여우",
    "foxlantern lanternfox foxes",
    "z" * 150 + " fox",
    "[CLS] fox [SEP] 灯[MASK]x[UNK]",
    "<s>fox</s> a<unk>b <|endoftext|>",
    "the <new> fox<new>fox a <new>",
    "fox——owl……“灯”",
    "▁fox ▁▁ ##fox",
    "<0x41> <0xFF>",
]


def entry(name, files, folder, theirs):
    raw = Tokenizer.from_str(theirs.backend_tokenizer.to_str())
    raw.no_padding(), raw.no_truncation()
    ids = [raw.encode(text, add_special_tokens=False).ids for text in TEXTS]
    for text, row in zip(TEXTS, ids):
        assert row == theirs(text, add_special_tokens=False)["input_ids"], (name, text)
    raw.encode_special_tokens = True
    plain = [raw.encode(text, add_special_tokens=False).ids for text in TEXTS]
    texts = [raw.decode(row, skip_special_tokens=False) for row in ids]
    probe = [raw.encode(text, add_special_tokens=True).ids for text in ["fox"]][0]
    bare = raw.encode("fox", add_special_tokens=False).ids
    at = next(i for i in range(len(probe)) if probe[i : i + len(bare)] == bare)
    return {
        "name": name, "files": files, "size": len(theirs), "prefix": probe[:at],
        "unk": theirs.unk_token_id, "ids": ids, "plain": plain, "texts": texts,
    }


def make(name, files):
    """Files of a model directory, and what transformers makes of them."""
    with tempfile.TemporaryDirectory() as folder:
        for file, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            (Path(folder) / file).write_text(text, "utf-8", newline="\n")
        return entry(name, files, folder, AutoTokenizer.from_pretrained(folder))


def bert(lower):
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lower)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(TEXT.splitlines(), trainers.WordPieceTrainer(vocab_size=360, special_tokens=special, show_progress=False))
    vocab = sorted(made.get_vocab().items(), key=lambda item: item[1])
    config = {
        "tokenizer_class": "BertTokenizer", "do_lower_case": lower, "tokenize_chinese_chars": True, "strip_accents": None,
        "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]",
    }
    return "".join(token + "\n" for token, _ in vocab), config


def unigram(normalizer=None):
    """What sentencepiece learns, as tokenizer.json."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        changes = [*zip("ＦＵＬＬｗｉｄｔｈ\u3000", "FULLwidth "), ("ﬁ", "fi"), ("²", "2")]
        points = lambda text: " ".join(f"{ord(char):X}" for char in text)
        rules.write("".join(f"{points(a)}\t{points(b)}\n" for a, b in changes))
        rules.flush()
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT.splitlines() * 3), model_writer=model, vocab_size=125, model_type="unigram",
            normalization_rule_tsv=rules.name, character_coverage=1.0, minloglevel=2,
            unk_id=0, bos_id=1, eos_id=2,
        )
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    made = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=0, byte_fallback=False))
    charsmap = proto.normalizer_spec.precompiled_charsmap
    made.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing("$A </s>", "$A $B </s>", [("</s>", 2)])
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ["<unk>", "<s>", "</s>"]])
    return made


def learn_bpe(normalizer, pre_tokenizer, special, alphabet=(), size=300):
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    if normalizer is not None:
        made.normalizer = normalizer
    if pre_tokenizer is not None:
        made.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=list(alphabet), show_progress=False)
    made.train_from_iterator(TEXT.replace(" ", "\n ").splitlines() if pre_tokenizer is None else TEXT.splitlines(), trainer)
    return json.loads(made.to_str())


def llama():
    """BPE on characters, and bytes for the others."""
    mark = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    learnt = learn_bpe(mark, None, special + [f"<0x{byte:02X}>" for byte in range(256)], size=430)
    learnt["added_tokens"] = [token for token in learnt["added_tokens"] if token["content"] in special]
    learnt["model"].update(byte_fallback=True, fuse_unk=True)
    made = Tokenizer.from_str(json.dumps(learnt))
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return made


def metaspace_bpe():
    """BPE on characters, with a token for the unknown."""
    learnt = learn_bpe(normalizers.NFKC(), pre_tokenizers.Metaspace(prepend_scheme="first"), ["<unk>", "<s>", "</s>"])
    made = Tokenizer.from_str(json.dumps(learnt))
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    made.add_tokens([AddedToken("<new>", normalized=True, single_word=False)])
    return made


def byte_level(normalizer, pre_tokenizer, added):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        made.normalizer = normalizer
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    made.add_special_tokens(["<|endoftext|>"])
    made.add_tokens(added)
    return made


def variants():
    for name, lower in [("bert", True), ("bert cased", False)]:
        vocab, config = bert(lower)
        yield name, {"vocab.txt": vocab, "tokenizer_config.json": config}
    more = {"vocab.txt": vocab, "tokenizer_config.json": config}
    more["added_tokens.json"] = {"<new>": vocab.count("\n")}
    yield "bert with an added token", more
    fast = {"tokenizer_class": "PreTrainedTokenizerFast"}
    t5 = fast | {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    yield "unigram", {"tokenizer.json": unigram(), "tokenizer_config.json": t5}
    yield "byte fallback", {"tokenizer.json": llama(), "tokenizer_config.json": t5}
    yield "metaspace bpe", {"tokenizer.json": metaspace_bpe(), "tokenizer_config.json": t5}
    end = fast | {"eos_token": "<|endoftext|>"}
    greedy = AddedToken("<new>", lstrip=True, rstrip=True, normalized=False)
    word = AddedToken("fox", single_word=True, normalized=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    yield "added tokens with spaces", {"tokenizer.json": byte_level(None, gpt2, [greedy, word]), "tokenizer_config.json": end}
    split = pre_tokenizers.Split(Regex(r"\p{N}{1,2}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    other = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    yield "another pattern", {"tokenizer.json": byte_level(normalizers.NFC(), other, []), "tokenizer_config.json": end}


def main():
    kinds = []
    for name, files in variants():
        files = {file: json.loads(made.to_str()) if isinstance(made, Tokenizer) else made for file, made in files.items()}
        kinds.append(make(name, files))
    text = json.dumps({"texts": TEXTS, "kinds": kinds}, ensure_ascii=True, separators=(",", ":"))
    OUT.write_text(text + "\n", "ascii")


if __name__ == "__main__":
    main()
