#!/usr/bin/env bash
# A chatbot in English and Chinese: the small base model learns from dialogues and instructions, and is tried on those it
# has not seen. A quarter of an hour on two cores.
#
#   runs/pretrain.sh && runs/chat.sh        writes out/runs/chat
source "$(dirname "$0")/common.sh"
need_data

parts=$OUT/parts
mkdir -p "$parts"
# The last dialogues of each file are held out, and so are the last instructions.
split "$DATA/en/dialogue-sgd.jsonl.gz" 85 "$parts/sgd.jsonl" "$parts/sgd-test.jsonl"
split "$DATA/zh/dialogue-crosswoz-test.jsonl" 40 "$parts/crosswoz.jsonl" "$parts/crosswoz-test.jsonl"
split "$DATA/zh/dialogue-kdconv-test.jsonl.gz" 40 "$parts/kdconv.jsonl" "$parts/kdconv-test.jsonl"
# One record a line: in this file a record begins at a brace of its own, indented by four.
tr -d '\n' <"$DATA/en/instructions.json" | sed 's/^\[ *//; s/ *\]$//; s/},    {/}\n{/g' >"$parts/all.jsonl"
split "$parts/all.jsonl" 60 "$parts/instructions.jsonl" "$parts/instructions-test.jsonl"
train=("$parts"/{sgd,crosswoz,kdconv,instructions}.jsonl)
test=("$parts"/{sgd,crosswoz,kdconv,instructions}-test.jsonl)

"$GPT2" finetune -m "$OUT/base" --out "$OUT/chat" --data "${train[@]}" --val "${test[@]}" \
    --epochs 2 --batch 16 --lr 1e-3 --dropout 0.1 --seed 1 "$@"
"$GPT2" eval -m "$OUT/chat" --answers "${test[@]}" --replies 100 --seed 1 --replies-out "$OUT/chat-replies.jsonl"
