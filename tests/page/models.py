"""Small models for the page's tests: one that has learnt answers and a summary by heart, and one that is slow.

With temperature 0 the first answers as TALK says, and summarises SOURCE as SUMMARY, in which 7 and Bob are new.
"""

import json
import subprocess

TALK = {"hello": "good morning", "who are you": "a red fox", "你好": "早上好", "what now": "we walk home"}
SOURCE = "The fox sold her old boat to the heron. The heron paid in silver, and sailed away."
SUMMARY = "The heron paid 7 to Bob for a boat."


def train(gpt2, folder):
    texts = [f"User: {question}\nAssistant: {answer}" for question, answer in TALK.items()]
    texts += ["\n" + text for text in texts]
    texts += [f"{SOURCE}\nTL;DR: {SUMMARY}"] * 2
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts * 30)
    (folder / "talk.jsonl").write_text(lines)
    learn(gpt2, folder, "talk", "--n-layer 2 --n-head 2 --n-embd 64 --n-ctx 1024 --batch 2 --lr 0.01 --max-steps 120")
    # So wide that a reply can be stopped while it is written.
    learn(gpt2, folder, "slow", "--n-layer 12 --n-head 8 --n-embd 512 --n-ctx 1024 --batch 1 --lr 0.0001 --max-steps 1")


def learn(gpt2, folder, name, flags):
    command = f"train --data talk.jsonl --val-fraction 0 --tokenizer bpe:300 --seed 3 --out {name} {flags}"
    done = subprocess.run([gpt2, *command.split()], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"gpt2 {command}\n{done.stdout}{done.stderr}")
