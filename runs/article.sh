#!/usr/bin/env bash
# Headline → article, in English and Chinese: the small base model learns from news and encyclopaedia articles with
# their titles. Ten minutes on two cores.
#
#   runs/pretrain.sh && runs/article.sh     writes out/runs/article
source "$(dirname "$0")/common.sh"
need_data

parts=$OUT/parts
mkdir -p "$parts"
split "$DATA/en/news-wikinews-2020.jsonl" 12 "$parts/wikinews.jsonl" "$parts/wikinews-test.jsonl"
split "$DATA/en/news-onestop.jsonl" 30 "$parts/onestop.jsonl" "$parts/onestop-test.jsonl"
split "$DATA/zh/wiki-cmrc2018-dev.jsonl" 48 "$parts/cmrc.jsonl" "$parts/cmrc-test.jsonl"
train=("$parts"/{wikinews,onestop,cmrc}.jsonl)
test=("$parts"/{wikinews,onestop,cmrc}-test.jsonl)

"$GPT2" finetune -m "$OUT/base" --out "$OUT/article" --data "${train[@]}" --val "${test[@]}" --cut-long \
    --epochs 3 --batch 8 --lr 1e-3 --dropout 0.1 --seed 1 "$@"
for topic in "the price of bread" "a storm on the coast" "长江的桥" "一部关于狐狸的电影"; do
    "$GPT2" write headline-article -m "$OUT/article" --topic "$topic" --seed 1
done
