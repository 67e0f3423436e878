"""A small model for the page's tests, which has learnt answers and a summary by heart.

With temperature 0 it answers as TALK says, sings LONG for as long as it may, and summarises SOURCE as SUMMARY, in which 7 and Bob
are new.
"""

import json
import subprocess

TALK = {"hello": "good morning", "who are you": "a red fox", "你好": "早上好", "what now": "we walk home"}
# API keys, by the names that stand for them.
KEYS = {"ann": "a-key-for-ann-0123456789abcdef", "bob": "a-key-for-bob-0123456789abcdef"}
# A question whose answer has no end.
LONG = "sing"
SOURCE = "The fox sold her old boat to the heron. The heron paid in silver, and sailed away."
SUMMARY = "The heron paid 7 to Bob for a boat."


def train(gpt2, folder):
    rows = [{"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]} for question, answer in TALK.items()]
    # Conversations of two turns, too.
    for first in TALK:
        for second in TALK:
            turns = [("user", first), ("assistant", TALK[first]), ("user", second), ("assistant", TALK[second])]
            rows.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    rows += [{"messages": [{"role": "user", "content": LONG}, {"role": "assistant", "content": "la " * 60}]}] * 2
    rows += [{"messages": [{"role": "user", "content": f"Summarize:\n{SOURCE}"}, {"role": "assistant", "content": SUMMARY}]}] * 4
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [f"{question} {answer}" for question, answer in TALK.items()] + [SOURCE, SUMMARY]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts * 20))
    learn(gpt2, folder, "train --data text.jsonl --val-fraction 0 --tokenizer bpe:300 --seed 3 --batch 1 --max-steps 1 --n-ctx 1024 "
          "--n-layer 2 --n-head 2 --n-embd 64 --out base")
    # Twice the steps that f32 needs: a processor with bf16 trains in that, and its roundings must not decide what is learnt.
    learn(gpt2, folder, "finetune -m base --data talk.jsonl --val-fraction 0 --batch 27 --max-steps 140 --lr 0.01 --dropout 0 --seed 3 --out talk")


def learn(gpt2, folder, command):
    done = subprocess.run([gpt2, *command.split()], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"gpt2 {command}\n{done.stdout}{done.stderr}")
