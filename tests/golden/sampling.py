"""Makes sampling.json beside it: which tokens transformers' processors leave, and how likely.

    python tests/golden/sampling.py        # needs torch, transformers; takes seconds

Each case has logits (exact in float32), the text so far, settings, and the tokens left with their probabilities.
The list of processors, and with it their order, is made by `generate` itself. Cases where rounding would decide
whether a token is kept, or where equal tokens lie on the border of top-p, are not made.
"""

import json
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation import GenerationConfig, RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

OFF = dict(
    temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, logit_bias=[], repetition=1.0, penalty_window=0,
    no_repeat_ngram=0, bad_words=[], min_new_tokens=0, stop_tokens=[],
)  # fmt: skip

FILTERS = [
    dict(),
    dict(temperature=0.8, top_k=40, top_p=0.95),
    dict(temperature=0.8, top_k=5, top_p=0.95),
    dict(temperature=0.3, top_p=0.9),
    dict(top_k=1),
    dict(top_p=0.01),
    dict(temperature=2.5, top_k=7, top_p=0.5),
    dict(temperature=1.7, top_k=1000, top_p=0.7),
    dict(temperature=0.05, top_k=3, top_p=0.999),
    dict(min_p=0.05),
    dict(min_p=1.0),
    dict(temperature=1.5, min_p=0.2),
    dict(temperature=0.7, top_k=20, min_p=0.1),
    dict(top_p=0.8, min_p=0.3),
    dict(typical_p=0.2),
    dict(typical_p=0.9),
    dict(temperature=0.6, typical_p=0.5),
    dict(temperature=1.3, top_k=12, typical_p=0.7),
    dict(min_p=0.3, typical_p=0.6),
    dict(temperature=1.6, top_k=30, min_p=0.2, typical_p=0.4),
    dict(temperature=2.5, top_p=0.95, min_p=0.3, typical_p=0.5),
    dict(temperature=1.5, min_p=0.1, typical_p=0.5),
    dict(temperature=2.5, min_p=0.4, typical_p=0.3),
    dict(top_p=0.7, typical_p=0.6),
    dict(temperature=1.2, top_k=30, top_p=0.9, min_p=0.02, typical_p=0.8),
]

# Tokens are below 8, which every row but the smallest has.
PROCESSORS = [
    dict(repetition=1.3),
    dict(repetition=0.7),
    dict(repetition=5.0, penalty_window=3),
    dict(no_repeat_ngram=1),
    dict(no_repeat_ngram=2),
    dict(no_repeat_ngram=3),
    dict(no_repeat_ngram=20),
    dict(bad_words=[[0], [2, 3], [3, 1, 4], [7, 7], [1, 1]]),
    dict(logit_bias=[[0, 2.5], [3, -1.25], [5, float("-inf")]]),
    dict(min_new_tokens=6),
    dict(min_new_tokens=5),
    dict(min_new_tokens=9, stop_tokens=[2, 4]),
    dict(bad_words=[[2], [5]], stop_tokens=[2]),
    dict(repetition=1.5, no_repeat_ngram=2, temperature=0.7, top_k=5, top_p=0.9),
    dict(logit_bias=[[1, 3.0], [4, 1.5]], repetition=1.8, temperature=1.4, min_p=0.1),
    dict(
        logit_bias=[[6, -2.0]], repetition=1.2, no_repeat_ngram=3, bad_words=[[1], [1, 3]], min_new_tokens=20,
        temperature=0.9, top_k=6, top_p=0.95, min_p=0.01, typical_p=0.95,
    ),
]  # fmt: skip

# Prompt and output.
TEXTS = [([3, 1, 2, 3], [1, 4, 3, 1, 2]), ([6], [5, 5, 1, 3, 1]), ([2, 3, 1, 1, 6, 2], [])]


def logits():
    """Rows of several sizes and spreads; the last has equal values, so that top-k meets them."""
    torch.manual_seed(1)
    rows = [torch.randn(n) * spread for n, spread in [(2, 1), (9, 3), (40, 1), (61, 2)]]
    rows.append(torch.tensor([1.0, 4.0, 2.5, 4.0, 2.5, -3.0, 2.5, 0.5]))
    return [(row * 64).round() / 64 for row in rows]


def processors(vocab_size, prompt, temperature, top_k, top_p, min_p, typical_p, **settings):
    """The processors that `generate` would use, end-of-text being the last token."""
    shape = dict(n_layer=1, n_head=1, n_embd=2, vocab_size=vocab_size)
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=vocab_size - 1))
    config = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p or None,
        typical_p=typical_p,
        sequence_bias=[[[id], bias] for id, bias in settings["logit_bias"]] or None,
        repetition_penalty=settings["repetition"],
        no_repeat_ngram_size=settings["no_repeat_ngram"],
        bad_words_ids=settings["bad_words"] or None,
        min_new_tokens=settings["min_new_tokens"],
        eos_token_id=settings["stop_tokens"] + [vocab_size - 1],
    )
    model._prepare_special_tokens(config, device="cpu")
    return model._get_logits_processor(config, input_ids_seq_length=len(prompt), device="cpu")


def process(row, prompt, generated, settings):
    """The scores after all processors, or nothing if equal tokens lie on the border of top-p."""
    ids, scores = torch.tensor([prompt + generated]), row[None]
    for processor in processors(len(row), prompt, **settings):
        before = scores
        window = settings["penalty_window"] if isinstance(processor, RepetitionPenaltyLogitsProcessor) else 0
        scores = processor(ids[:, -window:], before.clone())
        if isinstance(processor, TopPLogitsWarper):
            left = before[0][scores[0].isfinite()]
            lost = before[0][scores[0].isinf() & before[0].isfinite()]
            if len(lost) and left.min() == lost.max():
                return None
    return scores[0]


def case(row, prompt, generated, settings):
    settings = OFF | settings
    scores = process(row, prompt, generated, settings)
    if scores is None:
        return None
    kept = scores.isfinite()
    for name in ["top_p", "min_p", "typical_p"]:
        for factor in [1 - 1e-4, 1 + 1e-4]:
            if settings[name] not in (0.0, 1.0):
                near = process(row, prompt, generated, settings | {name: settings[name] * factor})
                if near is None or not torch.equal(near.isfinite(), kept):
                    return None
    assert kept.any(), settings
    return dict(
        logits=row.tolist(),
        prompt=prompt,
        generated=generated,
        settings={name: value for name, value in settings.items() if value != OFF[name]},
        ids=kept.nonzero().flatten().tolist(),
        probs=scores.double().softmax(-1)[kept].tolist(),
    )


def write(value):
    """JSON has no infinity: null stands for minus infinity."""
    return json.dumps(value).replace("-Infinity", "null")


cases = [case(row, [], [], settings) for row in logits() for settings in FILTERS]
for row in logits()[1:]:
    cases += [case(row, *text, settings) for text in TEXTS for settings in PROCESSORS]
made = [made for made in cases if made]
(Path(__file__).parent / "sampling.json").write_text("[\n" + ",\n".join(map(write, made)) + "\n]\n")
print(f"{len(made)} of {len(cases)} cases")
