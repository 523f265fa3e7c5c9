#!/bin/sh
# Compares training recipes of the GHN in short runs of equal compute: every run sees the same number of pairs of
# network and image (steps x meta-batch x batch). One row per run goes to OUT/recipes.csv; finished runs are kept, and
# an interrupted one is resumed.
#   FORETELL=target/release/foretell OUT=runs/recipes SEEDS="1 2" STEPS=800 sh experiments/recipes.sh [NAME...]
set -eu
here=$(dirname "$0")
foretell=${FORETELL:-foretell} out=${OUT:-runs/recipes} seeds=${SEEDS:-1} steps=${STEPS:-800}
only="$*"
mkdir -p "$out"

# run NAME STEPS SED-EXPRESSION: recipes.toml, changed.
run() {
    case " $only " in "  " | *" $1 "*) ;; *) return 0 ;; esac
    for seed in $seeds; do
        dir="$out/$1-$seed"
        [ -e "$dir/best.safetensors" ] && [ -e "$dir/done" ] && continue
        sed -e "s/^seed = .*/seed = $seed/" -e "s/^steps = .*/steps = $2/" -e 's/^warmup = .*/warmup = 50/' \
            -e "s/^every = .*/every = $(($2 / 2))/" -e 's/^architectures = .*/architectures = 48/' \
            -e "$3" "$here/recipes.toml" > "$out/$1-$seed.toml"
        resume=; [ -e "$dir" ] && resume=--resume
        "$foretell" train-ghn --config "$out/$1-$seed.toml" --out "$dir" $resume
        touch "$dir/done"
    done
}

run base                 "$steps"       's/^$//'
run lr-2e-3              "$steps"       's/^lr = .*/lr = 2e-3/'
run lr-4e-3              "$steps"       's/^lr = .*/lr = 4e-3/'
run lr-2e-3-meta-2       $((steps * 2)) 's/^lr = .*/lr = 2e-3/; s/^meta_batch = .*/meta_batch = 2/'
run lr-2e-3-meta-1       $((steps * 4)) 's/^lr = .*/lr = 2e-3/; s/^meta_batch = .*/meta_batch = 1/'
run lr-4e-3-meta-2       $((steps * 2)) 's/^lr = .*/lr = 4e-3/; s/^meta_batch = .*/meta_batch = 2/'
run lr-2e-3-meta-4-b32   $((steps * 2)) 's/^lr = .*/lr = 2e-3/; s/^batch = .*/batch = 32/'
run lr-2e-3-adamw        "$steps"       's/^lr = .*/lr = 2e-3/; s/^weight_decay = .*/weight_decay = 1e-2\ndecoupled = true/'
run lr-2e-3-clip-network "$steps"       's/^lr = .*/lr = 2e-3/; s/^clip_norm = .*/clip_norm = 5.0\nclip_network = 1.0/'
run lr-2e-3-average      "$steps"       's/^lr = .*/lr = 2e-3/; s/^clip_norm = .*/clip_norm = 5.0\naverage = 0.99/'
run lr-2e-3-plain        "$steps"       's/^lr = .*/lr = 2e-3/; s/^augment = .*/augment = false/'
run lr-2e-3-warm-up      "$steps"       "s/^lr = .*/lr = 2e-3/; s/^warmup = .*/warmup = $((steps / 4))/"
run lr-2e-3-constant     "$steps"       's/^lr = .*/lr = 2e-3/; s/^kind = .*/kind = "constant"/; /^warmup = /d; /^floor = /d'
run lr-2e-3-small-first  "$steps"       's/^lr = .*/lr = 2e-3/; s/^meta_batch = .*/meta_batch = 4\nsmall_first = 0.5/'
# What helped most, together; and with a shorter memory of Adam's second moment.
together='s/^lr = .*/lr = 2e-3/; s/^meta_batch = .*/meta_batch = 2/; s/^augment = .*/augment = false/
    s/^clip_norm = .*/clip_norm = 5.0\nclip_network = 1.0/'
run lr-2e-3-together     $((steps * 2)) "$together"
run lr-2e-3-together-b98 $((steps * 2)) "$together; s/^weight_decay = .*/weight_decay = 1e-5\nbetas = [0.9, 0.98]/"
# The paper's baselines, with the recipe that was best; GHN-1 sees one network a step, and half the networks.
run ghn1                 $((steps * 2)) 's/^lr = .*/lr = 2e-3/; s/^meta_batch = .*/meta_batch = 1/
    s/^weight_norm = .*/weight_norm = false/; s/^ve = .*/ve = false/; s/^layernorm = .*/layernorm = false/'
run mlp                  $((steps * 2)) 's/^lr = .*/lr = 2e-3/; s/^meta_batch = .*/meta_batch = 2/
    s/^hypernet = .*/hypernet = "mlp"/'

part="$out/recipes.csv.part"
echo name,seed,steps,meta_batch,batch,lr,loss_last_100,held_out_mean,held_out_se,held_out_best,seconds > "$part"
for dir in "$out"/*/; do
    [ -e "$dir/done" ] || continue
    run=$(basename "$dir")
    value() { sed -n "s/^$1 = //p" "$out/$run.toml" | head -1; }
    tail -100 "$dir/metrics.csv" | awk -F, -v OFS=, -v head="${run%-*},$(value seed),$(value steps),$(value meta_batch),$(value batch),$(value lr)" \
        -v seconds="$(awk -F, 'NR > 1 { s += $9 } END { printf "%.0f", s }' "$dir/metrics.csv")" \
        '{ loss += $3; n++ } END { print head, sprintf("%.4f", loss / n), $10, $11, $12, seconds }' >> "$part"
done
mv "$part" "$out/recipes.csv"
cat "$out/recipes.csv"
