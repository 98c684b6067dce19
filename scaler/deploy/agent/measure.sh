#!/bin/sh
# Builds the engine of this bundle's network, measures it and runs it on the pictures, and packs what comes out.
#
# Where there is Python 3.6 or newer, deploy.py does it, and explains the results. Where there is none, this script does
# it more plainly: the same files, but no layers, no power, and no second try. Killed at any point, both go on.
set -u
LC_ALL=C
export LC_ALL

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1

say() { printf '%s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

for name in ${PYTHON:-python3 python3.6 python3.8 python}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1; then
        exec "$name" "$here/deploy.py" "$@"
    fi
done

# --- without Python ---

usage() {
    say "usage: measure.sh [--out FOLDER] [--trtexec FILE] [--retry-failed] [--pack] [--rounds N] [--duration SECONDS]
                  [--warm-up MILLISECONDS] [--workspace MIB] [--build-timeout SECONDS]"
}

out=$here/results trtexec='' retry='' pack='' rounds=4 duration=3 warm_up=1000 workspace=512 build_timeout=3600 root=/
run_timeout=900

number() {
    case $2 in '' | 0 | *[!0-9]*) die "$1 $2: expected a whole number of 1 or more" ;; esac
}

while [ $# -gt 0 ]; do
    option=$1
    shift
    case $option in
        --*=*) set -- "${option#*=}" "$@" && option=${option%%=*} ;;
        --retry-failed | --pack | --help | -h) ;;
        --*) [ $# -gt 0 ] || die "$option needs a value" ;;
    esac
    case $option in
        --retry-failed) retry=yes && continue ;;
        --pack) pack=yes && continue ;;
        --help | -h) usage && exit 0 ;;
        --out) out=$1 ;;
        --trtexec) trtexec=$1 ;;
        --system-root) root=$1 ;;
        --rounds) number "$option" "$1" && rounds=$1 ;;
        --duration) number "$option" "$1" && duration=$1 ;;
        --warm-up) number "$option" "$1" && warm_up=$1 ;;
        --workspace) number "$option" "$1" && workspace=$1 ;;
        --build-timeout) number "$option" "$1" && build_timeout=$1 ;;
        --power-seconds) number "$option" "$1" ;;
        *) usage >&2 && die "unknown option $option" ;;
    esac
    shift
done
root=${root%/}

for needed in sed awk grep od sha256sum tar gzip cmp; do
    command -v "$needed" >/dev/null 2>&1 || die "there is neither Python 3.6 nor $needed; install one of them"
done
say "no Python 3.6 or newer found: measuring without it, neither layers nor power"

# --- files ---

field() { # file, key: a value that stands on a line of its own at the top of the file's tree
    sed -n 's/^ "'"$2"'": "\{0,1\}\([A-Za-z0-9._-]*\)"\{0,1\},\{0,1\}$/\1/p' "$1"
}

deep() { # file, key: all values of the key, however deep
    sed -n 's/^ *"'"$2"'": "\{0,1\}\([A-Za-z0-9._-]*\)"\{0,1\},\{0,1\}$/\1/p' "$1"
}

sum_of() { sha256sum "$1" | cut -d ' ' -f 1; }

sums() { # folder: write the checksums of its files
    (
        cd "$1" || exit 1
        rm -f SHA256SUMS
        find . -maxdepth 1 -type f ! -name '.*' | sed 's|^\./||' | sort | xargs sha256sum >.sums
        mv .sums SHA256SUMS
    )
}

whole() { # folder: whether its files are what the checksums say
    [ -s "$1/SHA256SUMS" ] && (cd "$1" && sha256sum -c SHA256SUMS) >/dev/null 2>&1
}

good() { # part: whether it was done and went well
    whole "$out/networks/$1" && grep -q '"error": ""' "$out/networks/$1/result.json"
}

texts_of() { # patterns below the root: the files, each below a line with its path
    for pattern in "$@"; do
        for file in "$root"/$pattern; do
            [ -r "$file" ] && text=$(head -c 65536 "$file" 2>/dev/null | tr '\0' ' ') &&
                printf '== %s\n%s\n' "${file#"$root"/}" "$text"
        done
    done
}

# --- what is there ---

[ -s "$here/SHA256SUMS" ] || die "$here is no whole bundle: there is no SHA256SUMS; unpack the bundle again"
if ! checked=$(cd "$here" && sha256sum -c SHA256SUMS 2>/dev/null); then
    broken=$(printf '%s\n' "$checked" | sed -n 's/: FAILED.*//p' | head -n 1)
    die "the bundle is damaged: ${broken:-SHA256SUMS} is missing or changed; copy and unpack it again"
fi
plan=$here/plan.json
name=$(field "$plan" name) precision=$(field "$plan" precision) dla=$(field "$plan" dla)
typed=$(field "$here/bundle.json" strongly_typed) input=$(deep "$plan" input) parts=$(deep "$plan" network)
engine=$here/engine/$name.engine

if [ -z "$trtexec" ]; then
    for place in "$(command -v trtexec)" /usr/src/tensorrt/bin/trtexec /usr/local/tensorrt/bin/trtexec \
        /opt/tensorrt/bin/trtexec; do
        if [ -x "$place" ]; then
            trtexec=$place
            break
        fi
    done
fi
[ -n "$trtexec" ] ||
    die "there is no trtexec; JetPack brings it (package libnvinfer-bin); name its place with --trtexec"
said=$("$trtexec" --help 2>&1 </dev/null)
number=$(printf '%s\n' "$said" | sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' | head -n 1)
[ -n "$number" ] || die "$trtexec does not tell its version; it said: $(printf '%s\n' "$said" | head -n 1 | cut -c 1-200)"
if [ "$number" -lt 10000 ]; then # v8201 is 8.2.1, v100300 is 10.3.0
    number=$((number / 1000 * 10000 + number % 1000))
fi
version=$((number / 10000)).$((number / 100 % 100)).$((number % 100))

at_least() { [ "$number" -ge "$1" ]; }

at_least 80000 || die "TensorRT $version is too old: 8.0 (JetPack 4.6) or newer is needed"
if [ "$typed" = true ]; then
    at_least 100000 || die "this bundle is strongly typed, which TensorRT $version does not know; write a plain one"
    precision=typed
    at_least 110000 && precision=tf32 # no flag: all is strongly typed there
elif at_least 110000; then
    case $precision in
        fp16 | int8) die "TensorRT $version takes the precision from the model; write the bundle with --tensorrt" ;;
    esac
fi
limit=''
command -v timeout >/dev/null 2>&1 && limit='timeout -k 10'

# --- the results: one run at a time ---

mkdir -p "$out/networks" "$out/work" "$here/engine" || exit 1
out=$(CDPATH='' cd -- "$out" && pwd) || exit 1
case $out in *[,:]*) die "$out: trtexec cannot read inputs below a folder with ',' or ':' in its name; use --out" ;; esac
work=$out/work log=$out/work/trtexec.log folder=$out/work/current

running() { # file with a process id, word: whether that process runs and has the word in its command line
    pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "$2"
}

running "$work/pid" measure && die "another run is at work in $out"
if running "$work/trtexec.pid" trtexec; then # left by a run that was killed
    pid=$(cat "$work/trtexec.pid")
    kill -9 "-$pid" 2>/dev/null || kill -9 "$pid" 2>/dev/null
fi
say $$ >"$work/pid"

interrupted() {
    [ -s "$work/trtexec.pid" ] && kill "$(cat "$work/trtexec.pid")" 2>/dev/null
    rm -f "$work/pid" "$work/trtexec.pid"
    printf '\nstopped; run again to go on\n' >&2
    exit 130
}
trap interrupted INT TERM HUP
trap 'rm -f "$work/pid"' EXIT

printf '{\n "schema_version": 1,\n "kind": "scaler-device-run",\n "tensorrt": "%s",\n "strongly_typed": %s,\n' \
    "$version" "$typed" >"$work/run.json"
printf ' "bundle_sha256": "%s",\n "rounds": %s,\n "duration": %s,\n "warm_up": %s,\n "workspace": %s\n}\n' \
    "$(sum_of "$here/SHA256SUMS")" "$rounds" "$duration" "$warm_up" "$workspace" >>"$work/run.json"
if whole "$out"; then
    cmp -s "$work/run.json" "$out/run.json" ||
        die "$out holds results of another bundle, TensorRT or setting; name another folder with --out"
else
    [ -z "$(ls "$out/networks")" ] ||
        die "$out holds results, but their run.json is damaged; name another folder with --out"
    cp "$plan" "$out/plan.json"
    cp "$work/run.json" "$out/run.json"
    texts_of proc/device-tree/model proc/device-tree/compatible proc/version etc/nv_tegra_release etc/nvpmodel.conf \
        >"$out/system.txt"
    sums "$out"
fi
if [ -n "$(ls "$out/networks")" ] && { ! whole "$out/networks/engine" || good engine; }; then # all of one engine
    wanted=$(good engine && deep "$out/networks/engine/network.engine.json" engine_sha256)
    if [ ! -f "$engine" ] || [ "$(sum_of "$engine")" != "$wanted" ]; then
        say "$engine is gone or another one: beginning again"
        rm -rf "$out/networks" && mkdir "$out/networks"
    fi
fi

# --- trtexec ---

call() { # what, seconds, command: run trtexec; the reason in `failure` if it fails
    what=$1 seconds=$2
    shift 2
    say "$*" >>"$folder/commands.txt"
    if [ -n "$limit" ]; then
        set -- $limit "$seconds" "$@"
    fi
    "$@" >"$log" 2>&1 </dev/null &
    say $! >"$work/trtexec.pid"
    wait $!
    code=$?
    rm -f "$work/trtexec.pid"
    [ $code = 0 ] && grep -q '^&&&& PASSED' "$log" && return 0
    case $code in
        124) failure="trtexec was stopped after $seconds s" ;;
        137) failure="trtexec was killed (signal 9), probably because memory ran out" ;;
        1[3-9][0-9]) failure="trtexec crashed (signal $((code - 128)))" ;;
        *) failure="trtexec failed (code $code)" ;;
    esac
    failure="$what: $failure"
    return 1
}

build() { # network or reference, engine
    rm -f "$work/timing.cache.tmp"
    [ -f "$work/timing.cache" ] && cp "$work/timing.cache" "$work/timing.cache.tmp"
    what=$1 target=$2
    set -- "$trtexec"
    if at_least 80400; then set -- "$@" "--memPoolSize=workspace:$workspace"; else set -- "$@" "--workspace=$workspace"; fi
    if at_least 80600; then set -- "$@" --skipInference --maxAuxStreams=0; else set -- "$@" --buildOnly; fi
    if at_least 80200; then set -- "$@" --profilingVerbosity=detailed; else set -- "$@" --nvtxMode=verbose; fi
    set -- "$@" "--timingCacheFile=$work/timing.cache.tmp" "--onnx=$here/models/$what.onnx" "--saveEngine=$target.tmp"
    case $precision in
        fp32) set -- "$@" --noTF32 ;;
        fp16) set -- "$@" --fp16 ;;
        int8) set -- "$@" --int8 --fp16 ;;
        typed) set -- "$@" --stronglyTyped ;;
    esac
    if [ "$what" = network ] && [ "$dla" != null ]; then set -- "$@" "--useDLACore=$dla" --allowGPUFallback; fi
    call "building the engine of $what" "$build_timeout" "$@" || return 1
    [ -s "$target.tmp" ] || { failure="building the engine of $what: trtexec wrote no engine" && return 1; }
    mv "$target.tmp" "$target"
    [ ! -f "$work/timing.cache.tmp" ] || mv "$work/timing.cache.tmp" "$work/timing.cache"
}

time_engine() { # network or reference, engine, file
    what=$1 target=$2 times=$3
    set -- "--warmUp=$warm_up" "--duration=$duration" "--exportTimes=$times"
    if at_least 110000; then set -- --noCudaGraph "$@"; else set -- --noDataTransfers --useSpinWait "$@"; fi
    if [ "$what" = network ] && [ "$dla" != null ]; then set -- "$@" "--useDLACore=$dla" --allowGPUFallback; fi
    call "timing the $what" "$run_timeout" "$trtexec" "--loadEngine=$target" "$@" || return 1
    if ! grep -q computeMs "$times" 2>/dev/null || [ "$(tail -n 1 "$times")" != "]" ] ||
        grep -q ': *-\{0,1\}nan' "$times"; then
        failure="timing the $what: trtexec wrote no usable $(basename "$times")"
        return 1
    fi
}

told() { # the lines that tell placement and memory; before 8.2 the layers stand in the line below
    awk '/[Ll]ayers [Rr]unning on/ { print; below = 1; next }
        below || /DLA|DlaLayer|GpuLayer|[Mm]em|Selected Device|Compute Capability/ { print } { below = 0 }' "$log"
}

# --- the parts ---

conditions() { # before or after: as the system tells them
    if tool=$(PATH=$PATH:/usr/sbin:/sbin command -v nvpmodel) && "$tool" -q >"$work/text" 2>&1; then
        mv "$work/text" "$folder/$1-nvpmodel.txt"
    fi
    texts_of proc/meminfo var/lib/nvpmodel/status 'sys/class/devfreq/*/cur_freq' 'sys/class/devfreq/*/min_freq' \
        'sys/class/devfreq/*/max_freq' 'sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_*_freq' \
        'sys/class/thermal/thermal_zone*/type' 'sys/class/thermal/thermal_zone*/temp' \
        'sys/class/thermal/cooling_device*/type' 'sys/class/thermal/cooling_device*/cur_state' \
        'sys/class/hwmon/hwmon*/oc*_event_cnt' >"$folder/$1-files.txt"
}

measure_engine() {
    begun=$(date +%s)
    build network "$engine" || return 1
    took=$(($(date +%s) - begun))
    told >"$folder/said.txt"
    gpu=$(sed -n 's/.*\[I\] Selected Device: //p' "$log" | head -n 1 | tr -d '"\\')
    head -c 65536 "$log" >"$folder/build.log"
    awk '/^ "engine": \{/ { inside = 1; print "{"; next } inside && /^ \}/ { print "}"; exit } inside' "$plan" |
        sed -e 's|^  "engine_sha256": "".*|  "engine_sha256": "'"$(sum_of "$engine")"'",|' \
            -e 's|^  "tensorrt": "".*|  "tensorrt": "'"$version"'",|' -e 's|^  "gpu": "".*|  "gpu": "'"$gpu"'",|' \
            -e 's|^  "build_seconds": .*|  "build_seconds": '"$took"',|' >"$folder/network.engine.json"
    cp "$folder/network.engine.json" "$engine.json"
    time_engine reference "$work/reference.engine" "$folder/times-reference-0.json" || return 1
    round=0
    while [ $round -lt "$rounds" ]; do
        time_engine network "$engine" "$folder/times-network-$round.json" || return 1
        [ $round = 0 ] && told >>"$folder/said.txt"
        round=$((round + 1))
        time_engine reference "$work/reference.engine" "$folder/times-reference-$round.json" || return 1
    done
}

floats() { # number of a picture: its input, every byte looked up
    side=$(($(wc -c <"$here/pictures/$1.u8") / 3))
    od -An -v -tu1 "$here/pictures/table.f32" >"$work/table.txt"
    od -An -v -tu1 "$here/pictures/$1.u8" | awk -v side=$side '
        FNR == NR { for (i = 1; i <= NF; i++) table[n++] = $i + 0; next }
        { for (i = 1; i <= NF; i++) {
            at = 4 * (256 * int(done / side) + $i)
            done += 1
            printf "%c%c%c%c", table[at], table[at + 1], table[at + 2], table[at + 3] } }
    ' "$work/table.txt" - >"$work/input.f32"
    [ "$(sum_of "$work/input.f32")" = "$(sed -n "s/  $1\$//p" "$here/pictures/inputs.txt")" ] && return 0
    failure="picture $1: this awk computes other inputs; install python3"
    return 1
}

run_on_pictures() { # part
    deep "$out/networks/engine/network.engine.json" engine_sha256 >"$folder/engine.txt"
    at=0
    for mine in $(deep "$plan" part); do
        picture=$(printf %05d $at)
        at=$((at + 1))
        [ "$mine" = "$1" ] || continue
        floats "$picture" || return 1
        rm -f "$work/outputs.json"
        set -- "$1" "--loadInputs=$input:$work/input.f32" "--exportOutput=$work/outputs.json" \
            --iterations=1 --avgRuns=1 --warmUp=0 --duration=0
        at_least 110000 && set -- "$@" --includeDataTransfers
        [ "$dla" = null ] || set -- "$@" "--useDLACore=$dla" --allowGPUFallback
        part=$1
        shift
        call "picture $picture" "$run_timeout" "$trtexec" "--loadEngine=$engine" "$@" || return 1
        [ -s "$work/outputs.json" ] || { failure="picture $picture: trtexec wrote no outputs" && return 1; }
        gzip -nc "$work/outputs.json" >"$folder/$picture.json.gz"
        set -- "$part"
    done
}

todo=''
for part in $parts; do
    if whole "$out/networks/$part" && { [ -z "$retry" ] || good "$part"; }; then continue; fi
    todo="$todo $part"
done
if [ -z "$pack" ]; then
    say "TensorRT $version: $(set -- $todo && say $#) parts to do"
    needed=$((($(cat "$here"/models/*.onnx | wc -c) * 4 + 2 * $(field "$plan" result_bytes)) / 1024 + 65536))
    free=$(df -Pk "$out" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$needed" ] || die "$out: $((free / 1024)) MiB are free, $((needed / 1024)) are needed; make room"
else
    todo=''
fi
for part in $todo; do
    started=$(date +%s) failure=''
    rm -rf "$folder" && mkdir -p "$folder" && say "measured without Python" >"$folder/notes.txt"
    if [ "$part" = engine ]; then
        { [ -s "$work/reference.engine" ] &&
            time_engine reference "$work/reference.engine" "$work/times.json"; } ||
            { build reference "$work/reference.engine" &&
                time_engine reference "$work/reference.engine" "$work/times.json"; } ||
            die "the reference cannot be measured: $failure
$(tail -n 40 "$log")"
    elif ! good engine; then
        break # without an engine there is nothing to run
    fi
    conditions before
    if [ "$part" = engine ]; then measure_engine; else run_on_pictures "$part"; fi && failure='' || {
        rm -f "$folder"/*.json
        tail -n 40 "$log" >"$folder/error.log"
    }
    conditions after
    seconds=$(($(date +%s) - started)) tries=1
    [ -z "$failure" ] || tries=0
    printf '{\n "schema_version": 1,\n "kind": "scaler-device-result",\n "network": "%s",\n "model_sha256": "%s",\n' \
        "$part" "$(sum_of "$here/models/network.onnx")" >"$folder/result.json"
    printf ' "tries": %s,\n "seconds": %s,\n "error": "%s"\n}\n' "$tries" "$seconds" "$failure" >>"$folder/result.json"
    sums "$folder"
    sync
    rm -rf "$out/networks/$part"
    mv "$folder" "$out/networks/$part"
    say "$part: ${failure:-done}, $seconds s"
done

# --- pack ---

archive=$out.tar.gz
find "$out" -maxdepth 1 -type f ! -name '.*' | sed "s|^.*/||" | sort >"$work/names"
(cd "$out" && find networks -type f | sort) >>"$work/names"
tar -c -C "$out" -T "$work/names" --transform 's|^|scaler-results/|' | gzip -c >"$archive.tmp" || die "cannot pack $archive"
mv "$archive.tmp" "$archive"
(cd "$(dirname "$archive")" && sha256sum "$(basename "$archive")" >"$(basename "$archive").sha256")
for part in $parts; do
    good "$part" || say "$part is not done; run again, with --retry-failed where it failed"
done
[ ! -f "$engine" ] || say "the engine stays here, to be used here: $engine"
say "copy $archive back and read it with: scaler import $(basename "$archive")"
exit 0
