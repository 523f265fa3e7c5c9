#!/usr/bin/env bash
# How far predicted depthwise convolutions should be drawn towards orthogonal ones before a training: one epoch from
# predicted weights with several values of `foretell train --orthogonal`, on networks that no result is reported of.
#
#   experiments/orthogonal.sh OUT
#
# Settings by environment, with their defaults:
#   FORETELL="foretell"   the program
#   SHARES="0 0.5 1"      values of --orthogonal
#   IDS="small/4 small/5 small/6 small/7 small/10 small/11"   of 12 architectures of seed 1990
#   RATE=0.1 SEED=1991    learning rate and seed of the training
#
# Interrupted, the same command goes on: OUT/results.csv gets a row after every run (accuracies on validation images,
# before and after the epoch), and what has a row is not run again.
set -euo pipefail
OUT=${1:?usage: orthogonal.sh OUT}
FORETELL=${FORETELL:-foretell} SHARES=${SHARES:-0 0.5 1} RATE=${RATE:-0.1} SEED=${SEED:-1991}
IDS=${IDS:-small/4 small/5 small/6 small/7 small/10 small/11}

mkdir -p "$OUT"
$FORETELL space sample small --count 12 --seed 1990 > "$OUT/architectures.jsonl"
[ -s "$OUT/results.csv" ] || echo "architecture,orthogonal,lr,seed,before,after" > "$OUT/results.csv"
for share in $SHARES; do
    for id in $IDS; do
        key="$id,$share,$RATE,$SEED"
        ! grep -q "^$key," "$OUT/results.csv" || continue
        run="$OUT/runs/${id//\//-}-$share-lr$RATE-seed$SEED" resume=()
        [ -f "$run/checkpoint.safetensors" ] && resume=(--resume)
        [ -f "$run/result.csv" ] || $FORETELL train "$OUT/architectures.jsonl#$id" --init ghn --orthogonal "$share" --lr "$RATE" \
            --epochs 1 --batch 64 --seed "$SEED" --images fashion-mnist --eval-images 5000 --test-images 64 --out "$run" \
            ${resume[@]+"${resume[@]}"} > /dev/null
        # Column 8 is the validation accuracy; the first row is of epoch 0.
        echo "$key,$(awk -F, 'NR == 2 { printf "%.4f,", $8 } END { printf "%.4f", $8 }' "$run/metrics.csv")" >> "$OUT/results.csv"
    done
done

awk -F, '
    NR > 1 { if (!($2 in seen)) { seen[$2] = 1; order[++n] = $2 } before[$2] += $5; after[$2] += $6; count[$2]++ }
    END { for (i = 1; i <= n; i++) { s = order[i]
        printf "--orthogonal %s: %.1f %% before, %.1f %% after the epoch, means over %d runs\n", s, 100 * before[s] / count[s], 100 * after[s] / count[s], count[s] } }
' "$OUT/results.csv"
