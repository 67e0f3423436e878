#!/usr/bin/env bash
# A small bilingual model from nothing: a vocabulary of 8192, then 3.4 million parameters on English and Chinese novels and
# prose. A quarter of an hour on two cores. Without the texts it learns the built-in stories in both languages.
#
#   runs/pretrain.sh              writes out/runs/base
source "$(dirname "$0")/common.sh"

if [[ ! -d $DATA ]]; then
    echo "there are no texts in $DATA: learning the built-in stories" >&2
    exec "$GPT2" quickstart --lang both --minutes 10 --out "$OUT/base"
fi

novels=("$DATA"/en/gutenberg/*.txt "$DATA"/zh/novel-sanguo.txt "$DATA"/zh/novel-hongloumeng.txt.gz
    "$DATA"/zh/luxun-nahan-panghuang-hant.txt)
prose=("$DATA"/en/wikitext-2/valid.txt "$DATA"/zh/tech-d2l.txt)
# The vocabulary also sees today's news, articles and abstracts, whose words the novels lack.
"$GPT2" tokenizer train --size 8192 --out "$OUT/tokenizer" \
    --data "${novels[@]}" "${prose[@]}" "$DATA"/en/news-onestop.jsonl \
    "$DATA"/en/summ-scitldr-train.jsonl.gz "$DATA"/zh/wiki-cmrc2018-dev.jsonl
"$GPT2" train --out "$OUT/base" --tokenizer "$OUT/tokenizer" --data "${novels[@]}" "${prose[@]}" --val-fraction 0.02 \
    --n-layer 4 --n-head 3 --n-embd 192 --n-ctx 512 --batch 8 --max-steps 1200 \
    --optimizer muon --lr 5e-3 --min-lr 1e-4 --schedule linear --warmup-steps 100 --eval-interval 200 --seed 1 "$@"
