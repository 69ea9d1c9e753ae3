#!/usr/bin/env bash
# Makes the embedded model from nothing, in the folder $WORK (default out/toonhead). Every step is left out whose result
# is there, and an interrupted training goes on, so the script may be stopped and started again at any time. On two CPU
# cores it takes several hours, and another day for the last 915,200 pictures, which took a GPU three minutes; fewer of
# them (LAST_IMAGES) do too. LABELMINT_EXPORT may name the program, TORCH_THREADS its threads.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
WORK=${WORK:-out/toonhead}
run() { "${LABELMINT_EXPORT:-.venv-dev/bin/labelmint-export}" "$@"; }
threads=(--threads "${TORCH_THREADS:-2}")
mkdir -p "$WORK/reports"

# Pictures for the generator; pictures with true labels for the oracle, the test ones of held-out combinations.
[ -e "$WORK/train.npy" ] || run render --pose-range 0.4 --count 40000 --out "$WORK/train.npy"
[ -e "$WORK/oracle-train.npz" ] || run render --labels --seed 7 --count 16000 --out "$WORK/oracle-train.npz"
[ -e "$WORK/oracle-test.npz" ] || run render --labels --split test --seed 1 --count 1000 --out "$WORK/oracle-test.npz"

# The oracle in three goes: masks first; then its keypoints, whose heatmaps a small weight had left flat.
[ -e "$WORK/features.safetensors" ] || run train-oracle --train "$WORK/oracle-train.npz" --test "$WORK/oracle-test.npz" \
	--steps 3500 --heatmap-weight 20 --out "$WORK/features.safetensors" "${threads[@]}"
[ -e "$WORK/points.npz" ] || run render --labels --seed 8 --count 6000 --out "$WORK/points.npz"
more=(--train "$WORK/points.npz" --test "$WORK/oracle-test.npz" "${threads[@]}")
[ -e "$WORK/points.safetensors" ] || run train-oracle "${more[@]}" --start-from "$WORK/features.safetensors" \
	--steps 700 --learning-rate 0.0015 --out "$WORK/points.safetensors"
[ -e "$WORK/oracle.safetensors" ] || run train-oracle "${more[@]}" --start-from "$WORK/points.safetensors" \
	--steps 1000 --learning-rate 0.002 --out "$WORK/oracle.safetensors" >"$WORK/reports/oracle.partial"
[ ! -e "$WORK/reports/oracle.partial" ] || mv "$WORK/reports/oracle".{partial,json}

# The generator. First an autoencoder at three resolutions, each grown out of the one before, whose decoder is synthesis:
# reconstructions tell a young generator where every part belongs. Then each of 20,000 pictures gets a w of its own, which
# descends together with synthesis: what an encoder overlooks, eyebrows above all, comes out. Three more stages like it let
# the w move a fifth as fast: synthesis then sees them where they are, and paints finer. At the end the mapping learns where
# the pictures of the set are; the one step that synthesis takes there does not move it.
channels=4:128,8:128,16:128,32:96,64:48,128:24
of_discriminator=4:128,8:128,16:128,32:64,64:32,128:16
stage() { # name, resolution, pictures, further settings
	[ -e "$WORK/$1/done" ] && return
	run train-gan --pictures "$WORK/train.npy" --out "$WORK/$1" --resolution "$2" --total-images "$3" \
		--channels "$channels" --discriminator-channels "$of_discriminator" --mapping-layers 6 --hidden-dim 256 \
		--ada-target 0 --seed 3 --snapshot-images 6000 "${threads[@]}" "${@:4}"
	touch "$WORK/$1/done"
}
auto() { # resolution, pictures, learning rate, further settings
	stage "auto$1" "$1" "$2" --autoencoder-images "$2" --learning-rate "$3" "${@:4}"
}
auto 32 52000 0.008
auto 64 114000 0.006 --start-from "$WORK/auto32"
auto 128 "${PICTURES_AT_128:-235000}" 0.005 --start-from "$WORK/auto64"
stage codes 128 "${CODE_IMAGES:-240000}" --start-from "$WORK/auto128" --code-images "${CODE_IMAGES:-240000}" \
	--learning-rate 0.003 --prior-steps 1
stage codes-finer 128 "${FINER_IMAGES:-240000}" --start-from "$WORK/codes" --code-images "${FINER_IMAGES:-240000}" \
	--learning-rate 0.002 --code-rate 0.01 --prior-steps 1
stage codes-finest 128 "${FINEST_IMAGES:-160000}" --start-from "$WORK/codes-finer" --code-images "${FINEST_IMAGES:-160000}" \
	--learning-rate 0.002 --code-rate 0.01 --prior-steps 1
stage codes-last 128 "${LAST_IMAGES:-915200}" --start-from "$WORK/codes-finest" --code-images "${LAST_IMAGES:-915200}" \
	--learning-rate 0.0025 --code-rate 0.01 --batch-size 160 --prior-steps 1
stage mapping 128 16 --start-from "$WORK/codes-last" --code-images 16 \
	--learning-rate 1e-9 --code-rate 1e-9 --prior-steps 6000

# Sixteen labelled pictures, chosen by eye from the first 64 of a seed (`sample --seed 7 --count 64` writes those): every kind
# of beard is among them, and eyes that are open, closed and winking, on bright skin and on dark. Another generator needs another choice.
generator=(--generator "$WORK/mapping/generator.safetensors")
oracle=(--oracle "$WORK/oracle.safetensors")
annotations=(--annotations "$WORK/annotations")
interpreter=(--interpreter "$WORK/interpreter.safetensors")
[ -e "$WORK/annotations" ] || run label "${generator[@]}" "${oracle[@]}" --seed 7 \
	--pick 3 5 8 13 15 19 23 25 29 32 37 39 43 48 53 61 --out "$WORK/annotations"

# The interpreter, and what the oracle says of it on pictures that nobody labelled. Without the two coarsest layers, which
# know nothing of parts: the bundle has to stay below 12 MB.
[ -e "$WORK/interpreter.safetensors" ] || run train-interpreter "${generator[@]}" "${annotations[@]}" \
	--taps b8.conv1 b{16,32,64,128}.conv{0,1} --out "$WORK/interpreter.safetensors" "${threads[@]}"

report() { # name, command
	[ -e "$WORK/reports/$1.json" ] || { run "${@:2}" >"$WORK/reports/$1.partial" && mv "$WORK/reports/$1".{partial,json}; }
}
report interpreter report "${generator[@]}" "${interpreter[@]}" "${annotations[@]}" "${oracle[@]}"
report frechet frechet "${generator[@]}" --pictures "$WORK/train.npy" --feature-network "$WORK/oracle.safetensors"
[ -e "$WORK/nearest.png" ] || run nearest "${generator[@]}" --pictures "$WORK/train.npy" --count 40000 \
	--feature-network "$WORK/oracle.safetensors" --out "$WORK/nearest.png"
run curve --logs "$WORK"/{auto{32,64,128},codes,codes-fine{r,st},codes-last}/log.jsonl --out "$WORK/curve.png"

attribution='Remix of "ToonHead" (https://www.figma.com/community/file/1589627891082866389) by Johan Melin (https://www.johanmelin.com), licensed under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/), drawn with DiceBear (https://www.dicebear.com). Changes: pose and colours were varied, a generative model was trained on the pictures and paints these.'
[ -e "$WORK/bundle" ] || run build "${generator[@]}" "${interpreter[@]}" "${annotations[@]}" --out "$WORK/bundle" \
	--name toonhead --description "Cartoon heads, 128 x 128: nine classes and nine keypoints." \
	--weights-licence CC-BY-4.0 --data-licence CC-BY-4.0 --attribution "$attribution" \
	--url https://creativecommons.org/licenses/by/4.0/ --commit "$(git rev-parse HEAD 2>/dev/null || echo unknown)"

# export/toonhead.sh install: puts the bundle into the service and its sources beside this script. `make demo` then draws
# the contact sheet that README shows (out/demo/contact_sheet.png).
if [ "${1:-}" = install ]; then
	parts=("$WORK"/{bundle,annotations,reports,{nearest,curve}.png,{oracle,interpreter}.{json,safetensors}})
	ls -d "${parts[@]}" >/dev/null # stops here, before anything is removed, if one is missing
	rm -rf service/labelmint_service/bundles/toonhead export/toonhead/annotations export/toonhead/reports
	mkdir -p service/labelmint_service/bundles export/toonhead
	cp -r "$WORK/bundle" service/labelmint_service/bundles/toonhead
	cp -r "${parts[@]:1}" export/toonhead/
	run keep-networks --training "$WORK/codes-last" --out export/toonhead/networks # to go on from: --start-from
	cp "$WORK/mapping/generator.safetensors" "$WORK/mapping/generator.json" export/toonhead/
	for size in 32 64 128; do cp "$WORK/auto$size/log.jsonl" "export/toonhead/log-$size.jsonl"; done
	for stage in codes codes-fine{r,st} codes-last mapping; do cp "$WORK/$stage/log.jsonl" "export/toonhead/log-$stage.jsonl"; done
	cp "$(ls "$WORK"/mapping/grid-*.png | tail -n 1)" export/toonhead/grid.png
	cp "$(ls "$WORK"/codes-last/grid-*.png | tail -n 2 | head -n 1)" export/toonhead/reconstructions.png # before the mapping
fi
