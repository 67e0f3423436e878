"""Makes beam.json beside it: what transformers' `generate` writes with beams, and greedily.

    python tests/golden/beam.py            # needs torch, transformers; takes seconds

The models are those that make.py made beside it, computed in float64. End-of-text is set to tokens that they like to
write, so that some texts end before they must, and some do not. Scores are sums of log-probabilities over
length ^ length_penalty.
"""

import json
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel

HERE = Path(__file__).parent
OFF = dict(
    num_beams=4, num_return=4, length_penalty=1.0, early_stopping=False, repetition=1.0, no_repeat_ngram=0,
    bad_words=[], min_new_tokens=0,
)  # fmt: skip

SETTINGS = [
    dict(),
    dict(num_beams=1, num_return=1),
    dict(num_beams=1, num_return=1, repetition=1.4, no_repeat_ngram=2),
    dict(num_beams=2, num_return=1),
    dict(num_beams=3, num_return=2, early_stopping=True),
    dict(num_beams=5, num_return=5, early_stopping="never"),
    dict(num_beams=4, length_penalty=0.0),
    dict(num_beams=4, length_penalty=2.0, early_stopping=True),
    dict(num_beams=4, length_penalty=2.0, early_stopping="never"),
    dict(num_beams=4, length_penalty=-1.0),
    dict(num_beams=4, length_penalty=-1.0, early_stopping="never"),
    dict(num_beams=9, num_return=9, min_new_tokens=4),
    dict(num_beams=3, num_return=3, repetition=1.5),
    dict(num_beams=3, num_return=3, no_repeat_ngram=2, early_stopping=True),
    dict(num_beams=6, num_return=6, bad_words=[[2], [4], [9, 5], [17, 3]], length_penalty=0.3),
    dict(num_beams=3, num_return=3, min_new_tokens=3, repetition=1.2, no_repeat_ngram=3, length_penalty=0.6),
]
MODELS = {"deep": [[1, 2, 3], [77], [5, 9, 5, 9, 5]], "odd": [[4, 4], [30, 2, 8]], "wide": [[600], [17, 400, 3, 17]]}
# Where the beams that "never" stops early find better texts: (model, prompt, end-of-text, settings).
PATIENT = [
    ("odd", [3, 24], 30, dict(num_beams=2, num_return=2, length_penalty=2.0)),
    ("odd", [12, 13], 30, dict(num_beams=3, num_return=3)),
    ("deep", [10, 73], 32, dict(num_beams=5, num_return=5)),
    ("deep", [60, 36], 120, dict(num_beams=3, num_return=3)),
]
LENGTHS = {"deep": 14, "odd": 8, "wide": 20}


def generate(model, prompt, ends, max_new_tokens, settings):
    beams = settings["num_beams"] > 1
    return model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        num_beams=settings["num_beams"],
        num_return_sequences=settings["num_return"],
        **(dict(length_penalty=settings["length_penalty"], early_stopping=settings["early_stopping"]) if beams else {}),
        max_new_tokens=max_new_tokens,
        min_new_tokens=settings["min_new_tokens"],
        repetition_penalty=settings["repetition"],
        no_repeat_ngram_size=settings["no_repeat_ngram"],
        bad_words_ids=settings["bad_words"] or None,
        eos_token_id=ends,
        pad_token_id=ends[0],
        output_scores=True,
        return_dict_in_generate=True,
    )


def until_end(ids, ends):
    """The tokens up to the first that ends the text; what follows is padding."""
    at = next((at for at, id in enumerate(ids) if id in ends), len(ids))
    return ids[: at + 1]


def case(name, model, prompt, ends, settings):
    settings = OFF | settings
    out = generate(model, prompt, ends, LENGTHS[name], settings)
    texts = [until_end(row[len(prompt) :].tolist(), ends) for row in out.sequences]
    scores = out.sequences_scores.tolist() if settings["num_beams"] > 1 else None
    return dict(
        model=name, prompt=prompt, ends=ends, max_new_tokens=LENGTHS[name], **settings, texts=texts, scores=scores
    )


def liked(model, prompt, n):
    """Tokens near the top somewhere in a greedy text."""
    ids = generate(model, prompt, [10**6], 6, OFF | dict(num_beams=1, num_return=1)).sequences
    return model(ids).logits[0, -3].topk(n).indices.tolist()[1:]


@torch.no_grad()
def main():
    cases = []
    for name, prompts in MODELS.items():
        model = GPT2LMHeadModel.from_pretrained(HERE / name).double().eval()
        for prompt in prompts:
            rare = [model.config.vocab_size - 1]
            for at, settings in enumerate(SETTINGS):
                ends = [liked(model, prompt, 3)[:1], liked(model, prompt, 4)[1:], rare][at % 3]
                cases.append(case(name, model, prompt, ends, settings))
        for _, prompt, end, settings in (patient for patient in PATIENT if patient[0] == name):
            pair = [case(name, model, prompt, [end], settings | dict(early_stopping=e)) for e in [False, "never"]]
            assert pair[0]["texts"] != pair[1]["texts"], pair
            cases += pair
    ended = sum(text[-1] in case["ends"] for case in cases for text in case["texts"])
    print(f"{len(cases)} cases, {ended} of {sum(len(case['texts']) for case in cases)} texts ended")
    (HERE / "beam.json").write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n")


main()
