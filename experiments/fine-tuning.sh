#!/usr/bin/env bash
# Predicted against random initial weights on the same schedule: trains every architecture from both, with several
# learning rates, for several lengths and numbers of images per class, and joins the results of all runs.
#
#   experiments/fine-tuning.sh OUT
#
# Settings by environment, with their defaults (the whole comparison, hours on two cores):
#   FORETELL="foretell"   the program
#   IMAGES=fashion-mnist TRAIN_ON=train SPACE=small ARCHS=20 SEED=2000
#   EPOCHS="1 5 20"       all training images
#   SHOTS="10 100"        images of each class, for SHOT_EPOCHS epochs
#   SHOT_EPOCHS=20 RATES="0.025 0.05 0.1" BATCH=64 TEST_IMAGES=10000 GHN=bundled
#
# Interrupted, the same command goes on. OUT/results.csv has a row for every run. The learning rate of an arm is to be
# chosen on the validation accuracy of its last epoch (column validation), never on the test.
set -euo pipefail
OUT=${1:?usage: fine-tuning.sh OUT}
FORETELL=${FORETELL:-foretell}
IMAGES=${IMAGES:-fashion-mnist} TRAIN_ON=${TRAIN_ON:-train} SPACE=${SPACE:-small}
ARCHS=${ARCHS:-20} SEED=${SEED:-2000}
EPOCHS=${EPOCHS-1 5 20} SHOTS=${SHOTS-10 100} SHOT_EPOCHS=${SHOT_EPOCHS:-20}
RATES=${RATES:-0.025 0.05 0.1} BATCH=${BATCH:-64} TEST_IMAGES=${TEST_IMAGES:-10000} GHN=${GHN:-bundled}

mkdir -p "$OUT"
$FORETELL space sample "$SPACE" --count "$ARCHS" --seed "$SEED" > "$OUT/architectures.jsonl"

one() { # id init rate epochs [shots]
    local id=$1 init=$2 rate=$3 epochs=$4 shots=${5:-}
    local run="$OUT/runs/${id//\//-}-$init-lr$rate-e$epochs${shots:+-shots$shots}"
    [ -f "$run/result.csv" ] && return 0
    local resume=()
    [ -f "$run/checkpoint.safetensors" ] && resume=(--resume)
    $FORETELL train "$OUT/architectures.jsonl#$id" --init "$init" --ghn "$GHN" --lr "$rate" --epochs "$epochs" \
        ${shots:+--shots "$shots"} --images "$IMAGES" --train-on "$TRAIN_ON" --batch "$BATCH" --seed "$SEED" \
        --test-images "$TEST_IMAGES" --out "$run" ${resume[@]+"${resume[@]}"} > /dev/null
}

for id in $(sed -E 's/^\{"id":"([^"]+)".*/\1/' "$OUT/architectures.jsonl"); do
    for init in he ghn; do
        for rate in $RATES; do
            for epochs in $EPOCHS; do one "$id" "$init" "$rate" "$epochs"; done
            for shots in $SHOTS; do one "$id" "$init" "$rate" "$SHOT_EPOCHS" "$shots"; done
        done
    done
done

joined=$OUT/results.csv.part
: > "$joined"
for run in "$OUT"/runs/*/; do
    [ -f "$run/result.csv" ] || continue
    [ -s "$joined" ] || echo "$(head -1 "$run/result.csv"),validation,seconds" > "$joined"
    echo "$(tail -1 "$run/result.csv"),$(tail -1 "$run/metrics.csv" | cut -d, -f8),$(awk -F, 'NR > 1 { s += $7 } END { printf "%.1f", s }' "$run/metrics.csv")" >> "$joined"
done
mv "$joined" "$OUT/results.csv"
echo "$OUT/results.csv: $(($(wc -l < "$OUT/results.csv") - 1)) runs"
