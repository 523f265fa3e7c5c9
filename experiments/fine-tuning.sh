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
#   SHOT_EPOCHS=20 BATCH=64 TEST_IMAGES=10000 GHN=bundled
#   ORTHOGONAL=0.5        of predicted weights (foretell train --orthogonal); another value needs another OUT
#   RATES="0.05 0.1"      learning rates; while the best of an arm is the highest or the lowest, twice or half of it
#                         is tried too
#   IDS="small/0 small/1" only these of the architectures, e.g. to share them between machines or processes
#
# Interrupted, the same command goes on: OUT/results.csv gets a row after every run, and what has a row is not run again
# (the folder of a run may be removed). OUT/arms.csv has one for every pair of arms, each at the learning rate with its
# highest validation accuracy after the last epoch. The test chooses nothing.
set -euo pipefail
OUT=${1:?usage: fine-tuning.sh OUT}
FORETELL=${FORETELL:-foretell}
IMAGES=${IMAGES:-fashion-mnist} TRAIN_ON=${TRAIN_ON:-train} SPACE=${SPACE:-small}
ARCHS=${ARCHS:-20} SEED=${SEED:-2000}
EPOCHS=${EPOCHS-1 5 20} SHOTS=${SHOTS-10 100} SHOT_EPOCHS=${SHOT_EPOCHS:-20}
RATES=${RATES:-0.05 0.1} BATCH=${BATCH:-64} TEST_IMAGES=${TEST_IMAGES:-10000} GHN=${GHN:-bundled}
ORTHOGONAL=${ORTHOGONAL:-0.5}

mkdir -p "$OUT"
$FORETELL space sample "$SPACE" --count "$ARCHS" --seed "$SEED" > "$OUT/architectures.jsonl"

# The row of results.csv of a run, if it is there.
row() { # id init rate epochs [shots]
    [ -f "$OUT/results.csv" ] || return 0
    awk -F, -v id="$1" -v init="$2" -v rate="$3" -v epochs="$4" -v shots="${5:-}" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        { split($at["init"], words, " ") }
        $at["architecture"] == id && words[1] == init && $at["lr"] == rate && $at["epochs"] == epochs && $at["shots"] == shots
    ' "$OUT/results.csv" | head -1
}

one() { # id init rate epochs [shots]
    local id=$1 init=$2 rate=$3 epochs=$4 shots=${5:-}
    [ -z "$(row "$@")" ] || return 0
    local run="$OUT/runs/${id//\//-}-$init-lr$rate-e$epochs${shots:+-shots$shots}" resume=()
    if [ ! -f "$run/result.csv" ]; then
        [ -f "$run/checkpoint.safetensors" ] && resume=(--resume)
        $FORETELL train "$OUT/architectures.jsonl#$id" --init "$init" --ghn "$GHN" --orthogonal "$ORTHOGONAL" --lr "$rate" --epochs "$epochs" \
            ${shots:+--shots "$shots"} --images "$IMAGES" --train-on "$TRAIN_ON" --batch "$BATCH" --seed "$SEED" \
            --test-images "$TEST_IMAGES" --out "$run" ${resume[@]+"${resume[@]}"} > /dev/null
    fi
    [ -s "$OUT/results.csv" ] || echo "$(head -1 "$run/result.csv"),validation,seconds" > "$OUT/results.csv"
    echo "$(tail -1 "$run/result.csv"),$(tail -1 "$run/metrics.csv" | cut -d, -f8),$(awk -F, 'NR > 1 { s += $7 } END { printf "%.1f", s }' "$run/metrics.csv")" >> "$OUT/results.csv"
}

arm() { # id init epochs [shots]: all learning rates, until the best lies between two others
    local id=$1 init=$2 epochs=$3 shots=${4:-} rates=$RATES rate next
    while :; do
        for rate in $rates; do one "$id" "$init" "$rate" "$epochs" "$shots"; done
        # The last column but one is the validation accuracy.
        next=$(for rate in $rates; do
            echo "$rate,$(row "$id" "$init" "$rate" "$epochs" "$shots")"
        done | LC_ALL=C sort -g | awk -F, '{ rate[NR] = $1; if (NR == 1 || $(NF - 1) > most) { most = $(NF - 1); best = NR } }
            END { if (best == NR) print rate[best] * 2; else if (best == 1) print rate[best] / 2 }')
        [ -n "$next" ] || return 0
        rates="$rates $next"
    done
}

for id in ${IDS:-$(sed -E 's/^\{"id":"([^"]+)".*/\1/' "$OUT/architectures.jsonl")}; do
    for init in he ghn; do
        for epochs in $EPOCHS; do arm "$id" "$init" "$epochs"; done
        for shots in $SHOTS; do arm "$id" "$init" "$SHOT_EPOCHS" "$shots"; done
    done
done

# Columns of results.csv by name, so that a new one does no harm.
awk -F, '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    {
        split($at["init"], words, " ")
        key = $at["architecture"] "," $at["epochs"] "," $at["shots"]
        if (!(key in seen)) { seen[key] = 1; order[++n] = key }
        arm = key SUBSEP words[1]
        if (!(arm in validation) || $at["validation"] > validation[arm]) {
            validation[arm] = $at["validation"]; lr[arm] = $at["lr"]; accuracy[arm] = $at["accuracy"]
        }
    }
    END {
        print "architecture,epochs,shots,he_lr,he_accuracy,ghn_lr,ghn_accuracy,ahead"
        for (i = 1; i <= n; i++) {
            he = order[i] SUBSEP "he"; ghn = order[i] SUBSEP "ghn"
            if (!(he in accuracy) || !(ghn in accuracy)) continue
            printf "%s,%s,%.4f,%s,%.4f,%d\n", order[i], lr[he], accuracy[he], lr[ghn], accuracy[ghn], (accuracy[ghn] > accuracy[he])
        }
    }' "$OUT/results.csv" > "$OUT/arms.csv.part"
mv "$OUT/arms.csv.part" "$OUT/arms.csv"
echo "$OUT/results.csv: $(($(wc -l < "$OUT/results.csv") - 1)) runs; $OUT/arms.csv: predicted ahead in $(awk -F, 'NR > 1 { n += $8 } END { print n + 0 }' "$OUT/arms.csv") of $(($(wc -l < "$OUT/arms.csv") - 1))"
