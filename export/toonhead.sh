#!/usr/bin/env bash
# Makes the embedded model from nothing, in the folder $WORK (default out/toonhead). Every step is left out whose result
# is there, and an interrupted training goes on, so the script may be stopped and started again at any time. On two CPU
# cores it takes several hours. LABELMINT_EXPORT may name the program, TORCH_THREADS its threads.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
WORK=${WORK:-out/toonhead}
run() { "${LABELMINT_EXPORT:-.venv-dev/bin/labelmint-export}" "$@"; }
threads=(--threads "${TORCH_THREADS:-2}")
mkdir -p "$WORK"

# Pictures for the generator; pictures with true labels for the oracle, the test ones of held-out combinations.
[ -e "$WORK/train.npy" ] || run render --count 40000 --out "$WORK/train.npy"
[ -e "$WORK/oracle-train.npz" ] || run render --labels --seed 7 --count 16000 --out "$WORK/oracle-train.npz"
[ -e "$WORK/oracle-test.npz" ] || run render --labels --split test --seed 1 --count 1000 --out "$WORK/oracle-test.npz"

[ -e "$WORK/oracle.safetensors" ] || run train-oracle --train "$WORK/oracle-train.npz" --test "$WORK/oracle-test.npz" \
	--steps 3500 --out "$WORK/oracle.safetensors" "${threads[@]}" | tee "$WORK/oracle-report.json"

# The generator: three resolutions, each grown out of the one before. 40,000 pictures seen about five times: no overfitting
# that augmentation had to prevent (--ada-target 0).
channels=4:128,8:128,16:128,32:96,64:48,128:24
of_discriminator=4:128,8:128,16:128,32:64,64:32,128:16
stage() { # resolution, pictures, further settings
	[ -e "$WORK/gan$1/done" ] && return
	run train-gan --pictures "$WORK/train.npy" --out "$WORK/gan$1" --resolution "$1" --total-images "$2" \
		--channels "$channels" --discriminator-channels "$of_discriminator" --style-mixing 0.5 --ada-target 0 \
		--feature-network "$WORK/oracle.safetensors" --snapshot-images 10000 "${threads[@]}" "${@:3}"
	touch "$WORK/gan$1/done"
}
stage 32 70000 --r1-gamma 0.05 --path-length-weight 0
stage 64 60000 --r1-gamma 0.2 --path-length-weight 1 --start-from "$WORK/gan32"
stage 128 50000 --r1-gamma 0.5 --path-length-weight 1 --start-from "$WORK/gan64"
