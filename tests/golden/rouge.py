"""Makes rouge.json beside it: what Python's rouge-score says of pairs of texts.

    python tests/golden/rouge.py            # needs rouge-score 0.1.2 and jieba 0.42.1; takes seconds

With units "char", rouge-score is given a tokenizer that cuts each Han character by itself, and runs of other letters and
digits, as eval::rouge::Units::Char documents it; with "chinese-word", one that asks jieba for the words of each run of Han
characters. Scores are [precision, recall, F1] of rouge1, rouge2, rougeL, rougeLsum, the best of several references as
`score_multi` takes it.
"""

import itertools
import json
import random
from pathlib import Path

import jieba
from rouge_score import rouge_scorer, tokenizers

TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
HAN = [(0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)]


class Characters(tokenizers.Tokenizer):
    def tokenize(self, text):
        units, is_open = [], False
        for c in text.lower():
            is_han = any(low <= ord(c) <= high for low, high in HAN)
            grows = not is_han and (c.isalpha() or c.isnumeric())
            if grows and is_open:
                units[-1] += c
            elif grows or is_han:
                units.append(c)
            is_open = grows
        return units


class Words(tokenizers.Tokenizer):
    """Runs of the characters that jieba knows by jieba, all else as with characters."""

    def tokenize(self, text):
        units = []
        for is_known, run in itertools.groupby(text, lambda c: 0x4E00 <= ord(c) <= 0x9FD5):
            run = "".join(run)
            units += jieba.cut(run, HMM=True) if is_known else Characters().tokenize(run)
        return units


def scrambled(rng, words, n, per_line):
    chosen = [rng.choice(words) for _ in range(n)]
    return "\n".join(" ".join(chosen[i : i + per_line]) for i in range(0, n, per_line))


def main():
    rng = random.Random(1)
    words = "the a fox ran home and saw its den in snow while crows sang of 7 old trees".split()
    english = [
        (["the cat was found under the bed"], "the cat was under the bed"),
        (["police killed the gunman"], "the gunman police killed"),
        (["The quick brown fox jumps over the lazy dog"], "The quick brown dog jumps on the log."),
        ([""], ""),
        ([""], "something"),
        (["something"], ""),
        (["... !? --"], "..."),
        (["one"], "one"),
        (["one two"], "one"),
        (["a a a a b"], "a a b b b"),
        (["In 2019, 1,234.5 people paid $3.50 (or 20%)."], "In 2019 about 1234.5 people paid 3.50 dollars, 20 %"),
        (["naïve café İstanbul STRASSE ΣΑΣ \u212aelvin"], "naive cafe istanbul straße σας kelvin"),
        (["don't stop; it's John's well-known e-mail_address"], "dont stop its Johns well known email address"),
        (["first line here\nsecond line there\n\nthird"], "second line here\nfirst line there"),
        (["w1 w2 w3 w4 w5"], "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"),
        (["a b c a b c\na b c"], "c b a\na b c\nb b b"),
        (["tab\tand\u00a0nbsp\r\nand crlf"], "tab and nbsp\nand crlf"),
        (["the fox ran", "a fox was running home", "foxes"], "the fox was running"),
        (["x y", "y x", "x y"], "y x z"),
        ([scrambled(rng, words, 400, 23)], scrambled(rng, words, 300, 31)),
        ([scrambled(rng, words, 150, 150)], scrambled(rng, words, 130, 130)),
        ([scrambled(rng, words, 90, 9), scrambled(rng, words, 70, 11)], scrambled(rng, words, 80, 8)),
        (["running runner ran generously policies"], "run runs generous policy"),
    ]
    chinese = [
        (["狐狸在森林里找到了一颗苹果。"], "狐狸找到苹果。"),
        (["GPT-2 是 OpenAI 在2019年发布的语言模型。"], "OpenAI于2019年发布了gpt-2模型"),
        (["他说：“早上好！”\n然后走了。"], "早上好\n他走了"),
        (["天天向上", "好好学习天天向上"], "好好学习，天天向上！"),
        (["。，！"], "，"),
        (["二〇二〇年 人々 㐀𠀀"], "二〇二〇 人々 𠀀"),
        (["カタカナ and 漢字 mixed، عربي ١٢"], "漢字 カタカナ عربي ١٢ mixed"),
        (["红楼梦是中国古典小说\n作者曹雪芹"], "作者是曹雪芹\n红楼梦小说"),
    ]
    prose = [
        (
            ["今天天气很好，我们去北京大学图书馆借了三本关于人工智能的书。"],
            "今天我们在北京大学的图书馆借书，书是讲人工智能的。",
        ),
        (
            ["GPT-2 是 OpenAI 在2019年发布的语言模型，有15亿个参数。", "语言模型GPT-2由OpenAI发布"],
            "OpenAI于2019年发布了gpt-2语言模型，参数达1.5B。",
        ),
        (["小明硕士毕业于中国科学院计算所，后在日本京都大学深造"], "小明从中国科学院计算所硕士毕业，又到京都大学深造"),
        (["乔丹·布鲁克斯说：“杭研大厦在哪里？”\n他来到了网易。"], "他来到网易杭研大厦\n乔丹说话了"),
        (["曹雪芹披阅十载，增删五次。\n红楼梦一百二十回"], "红楼梦有一百二十回\n曹雪芹增删五次"),
        (["T恤 AA制 C++ .NET 100% 3.14 a_b x-y"], "t恤、aa制、c++、.net、100%、3.14、A_B、X-Y"),
    ]
    cases = []
    scorers = {
        "word": rouge_scorer.RougeScorer(TYPES),
        "char": rouge_scorer.RougeScorer(TYPES, tokenizer=Characters()),
        "chinese-word": rouge_scorer.RougeScorer(TYPES, tokenizer=Words()),
    }
    chosen = [("word", english + chinese), ("char", chinese + english[:20]), ("chinese-word", prose + chinese + english[:14])]
    for units, pairs in chosen:
        for references, summary in pairs:
            scores = scorers[units].score_multi(references, summary)
            cases.append(
                dict(units=units, references=references, summary=summary, scores=[list(scores[t]) for t in TYPES])
            )
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (Path(__file__).parent / "rouge.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
