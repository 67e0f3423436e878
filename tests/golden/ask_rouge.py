"""Scores again, with rouge-score, what `gpt2 summarize --json` wrote, for crates/cli/tests/summarize.rs.

    gpt2 summarize -m MODEL --json FILE.jsonl | python tests/golden/ask_rouge.py FILE.jsonl

The summaries of the model, the lead and the random sentences come from standard input, the references from FILE.jsonl; for
rougeLsum those from standard input, whose sentences stand on lines of their own. Prints how many texts there were, how much any
score differs at most, and the mean F1 of each.
"""

import json
import sys

from rouge import TYPES, Characters, Words
from rouge_score import rouge_scorer

FIELDS = ["precision", "recall", "fmeasure"]


def main(path):
    lines = [line for line in map(json.loads, sys.stdin) if "summary" in line]
    with open(path, encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    assert len(lines) == len(documents), (len(lines), len(documents))
    scorers = {
        "word": rouge_scorer.RougeScorer(TYPES),
        "char": rouge_scorer.RougeScorer(TYPES, tokenizer=Characters()),
        "chinese-word": rouge_scorer.RougeScorer(TYPES, tokenizer=Words()),
    }
    worst, sums = 0.0, {}
    for document, line in zip(documents, lines):
        rouge, given = line["rouge"], document.get("summaries") or [document["summary"]]
        for writer in ["summary", "lead", "random"]:
            scorer, text = scorers[rouge["units"]], rouge[writer]["lines"]
            whole, by_line = scorer.score_multi(given, text), scorer.score_multi(rouge["references"], text)
            for kind in TYPES:
                theirs = (by_line if kind == "rougeLsum" else whole)[kind]
                for field, name in zip(FIELDS, ["precision", "recall", "f1"]):
                    worst = max(worst, abs(getattr(theirs, field) - rouge[writer]["scores"][kind][name]))
                sums.setdefault(writer, dict.fromkeys(TYPES, 0.0))[kind] += theirs.fmeasure
    means = {writer: {kind: total / len(lines) for kind, total in kinds.items()} for writer, kinds in sums.items()}
    print(json.dumps(dict(n=len(lines), worst=worst, means=means)))


if __name__ == "__main__":
    main(sys.argv[1])
