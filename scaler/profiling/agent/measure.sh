#!/bin/sh
# Measures the networks of this bundle with trtexec, and packs what comes out into results.tar.gz.
#
# Where there is Python 3.6 or newer, measure.py does it. Where there is none, this script does it by itself: the same
# builds, rounds, profiles and files (measure.py explains them), but rounds that disagree are not measured again, and a
# network that takes the whole device down is tried again and again. Killed at any point, both go on when run again.
set -u
LC_ALL=C
export LC_ALL

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1

say() { printf '%s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

find_python() {
    for name in ${PYTHON:-python3 python3.6 python3.8 python}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1; then
            say "$name"
            return 0
        fi
    done
    return 1
}

if python=$(find_python); then
    exec "$python" "$here/measure.py" "$@"
fi

# --- without Python ---

usage() {
    say "usage: measure.sh [--out FOLDER] [--trtexec FILE] [--retry-failed] [--pack] [--rounds N] [--duration SECONDS]
                  [--power-seconds SECONDS] [--warm-up MILLISECONDS] [--workspace MIB] [--build-timeout SECONDS]
                  [--system-root FOLDER]"
}

out=$here/results trtexec='' retry='' pack='' rounds=4 duration=3 warm_up=1000 workspace=512 build_timeout=3600 root=/
power_seconds=6 run_timeout=900

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
        --power-seconds) number "$option" "$1" && power_seconds=$1 ;;
        --warm-up) number "$option" "$1" && warm_up=$1 ;;
        --workspace) number "$option" "$1" && workspace=$1 ;;
        --build-timeout) number "$option" "$1" && build_timeout=$1 ;;
        *) usage >&2 && die "unknown option $option" ;;
    esac
    shift
done
root=${root%/}

for needed in sed awk grep sha256sum tar gzip cmp; do
    command -v "$needed" >/dev/null 2>&1 || die "there is neither Python 3.6 nor $needed; install one of them"
done
say "no Python 3.6 or newer found: measuring without it"

# --- files ---

field() { # file, key: a value that stands on a line of its own
    sed -n 's/^ *"'"$2"'": "\{0,1\}\([A-Za-z0-9._-]*\)"\{0,1\},\{0,1\}$/\1/p' "$1"
}

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

texts_of() { # patterns below the root: the files, each below a line with its path
    for pattern in "$@"; do
        for file in "$root"/$pattern; do
            [ -r "$file" ] && text=$(head -c 65536 "$file" 2>/dev/null | tr '\0' ' ') &&
                printf '== %s\n%s\n' "${file#"$root"/}" "$text"
        done
    done
}

duration_text() {
    if [ "$1" -lt 90 ]; then say "$1 s"; elif [ "$1" -lt 5400 ]; then say "$((($1 + 30) / 60)) min"; else
        say "$(($1 / 3600)) h $(($1 % 3600 / 60)) min"
    fi
}

# --- what is there ---

[ -s "$here/SHA256SUMS" ] || die "$here is no whole bundle: there is no SHA256SUMS; unpack the bundle again"
if ! checked=$(cd "$here" && sha256sum -c SHA256SUMS 2>/dev/null); then
    broken=$(printf '%s\n' "$checked" | sed -n 's/: FAILED.*//p' | head -n 1)
    die "the bundle is damaged: ${broken:-SHA256SUMS} is missing or changed; copy and unpack it again"
fi
networks=$(field "$here/plan.json" network)
precision=$(field "$here/plan.json" precision)
typed=$(field "$here/bundle.json" strongly_typed)

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
        fp16 | int8) die "TensorRT $version takes the precision from the model; write the bundle strongly typed" ;;
    esac
fi
limit=''
command -v timeout >/dev/null 2>&1 && limit='timeout -k 10'

# --- the results: one run at a time ---

mkdir -p "$out/networks" "$out/work" || exit 1
out=$(CDPATH='' cd -- "$out" && pwd) || exit 1
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

stats=''
interrupted() {
    [ -z "$stats" ] || kill -9 "$stats" 2>/dev/null
    [ -s "$work/trtexec.pid" ] && kill "$(cat "$work/trtexec.pid")" 2>/dev/null
    rm -f "$work/pid" "$work/trtexec.pid"
    printf '\nstopped; run again to go on\n' >&2
    exit 130
}
trap interrupted INT TERM HUP
trap 'rm -f "$work/pid"' EXIT

bundle_sum=$(sha256sum "$here/SHA256SUMS" | cut -d ' ' -f 1)
printf '{\n "schema_version": 1,\n "kind": "scaler-device-run",\n "tensorrt": "%s",\n "strongly_typed": %s,\n' \
    "$version" "$typed" >"$work/run.json"
printf ' "bundle_sha256": "%s",\n "rounds": %s,\n "duration": %s,\n "warm_up": %s,\n "workspace": %s\n}\n' \
    "$bundle_sum" "$rounds" "$duration" "$warm_up" "$workspace" >>"$work/run.json"
if whole "$out"; then
    cmp -s "$work/run.json" "$out/run.json" ||
        die "$out holds results of another bundle, TensorRT or setting; name another folder with --out"
else
    [ -z "$(ls "$out/networks")" ] ||
        die "$out holds results, but their run.json is damaged; name another folder with --out"
    cp "$here/plan.json" "$out/plan.json"
    cp "$work/run.json" "$out/run.json"
    texts_of proc/device-tree/model proc/device-tree/compatible proc/version etc/nv_tegra_release etc/nvpmodel.conf \
        >"$out/system.txt"
    sums "$out"
fi

# --- one network ---

note() { grep -qxF "$*" "$folder/notes.txt" || say "$*" >>"$folder/notes.txt"; }

start_stats() { # interval, file, lines: start tegrastats and wait for its first lines; fails where there is none
    tool=$(PATH=$PATH:/usr/sbin:/sbin command -v tegrastats) || return 1
    "$tool" --interval "$1" >"$2" 2>/dev/null </dev/null &
    stats=$! waited=0
    while [ $waited -lt 30 ] && kill -0 $stats 2>/dev/null && [ "$(wc -l <"$2")" -lt "$3" ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
}

end_stats() {
    kill -9 "$stats" 2>/dev/null
    wait "$stats" 2>/dev/null
    stats=''
}

keep_log() { # file: the log, its middle left out where it is long
    if [ "$(wc -c <"$log")" -gt 65536 ]; then
        { head -c 32768 "$log" && printf '\n[...]\n' && tail -c 32768 "$log"; } >"$1"
    else
        cp "$log" "$1"
    fi
}

conditions() { # before or after: as the system tells them
    for name in nvpmodel jetson_clocks; do
        option=-q
        [ $name = jetson_clocks ] && option=--show
        if ! tool=$(PATH=$PATH:/usr/sbin:/sbin command -v $name); then
            note "there is no $name"
        elif [ "$(id -u)" != 0 ] && sudo -n "$tool" $option >"$work/text" 2>&1; then
            mv "$work/text" "$folder/$1-$name.txt"
        elif "$tool" $option >"$work/text" 2>&1; then
            mv "$work/text" "$folder/$1-$name.txt"
        else
            note "$name was not permitted; it said: $(tail -n 1 "$work/text" | cut -c 1-200)"
        fi
    done
    : >"$folder/$1-tegrastats.txt"
    if start_stats 200 "$folder/$1-tegrastats.txt" 4; then
        end_stats
    fi
    texts_of proc/meminfo var/lib/nvpmodel/status 'sys/class/devfreq/*/cur_freq' 'sys/class/devfreq/*/min_freq' \
        'sys/class/devfreq/*/max_freq' 'sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_*_freq' \
        'sys/class/thermal/thermal_zone*/type' 'sys/class/thermal/thermal_zone*/temp' \
        'sys/class/thermal/cooling_device*/type' 'sys/class/thermal/cooling_device*/cur_state' \
        'sys/class/hwmon/hwmon*/oc*_event_cnt' >"$folder/$1-files.txt"
}

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

build() { # network, engine
    rm -f "$work/timing.cache.tmp"
    [ -f "$work/timing.cache" ] && cp "$work/timing.cache" "$work/timing.cache.tmp"
    name=$1 engine=$2
    set -- "$trtexec"
    if at_least 80400; then set -- "$@" "--memPoolSize=workspace:$workspace"; else set -- "$@" "--workspace=$workspace"; fi
    if at_least 80600; then set -- "$@" --skipInference --maxAuxStreams=0; else set -- "$@" --buildOnly; fi
    if at_least 80200; then set -- "$@" --profilingVerbosity=detailed; else set -- "$@" --nvtxMode=verbose; fi
    set -- "$@" "--timingCacheFile=$work/timing.cache.tmp" "--onnx=$here/models/$name.onnx" "--saveEngine=$engine.tmp"
    case $precision in
        fp32) set -- "$@" --noTF32 ;;
        fp16) set -- "$@" --fp16 ;;
        int8) set -- "$@" --int8 --fp16 ;;
        typed) set -- "$@" --stronglyTyped ;;
    esac
    call "building the engine of $name" "$build_timeout" "$@" || return 1
    [ -s "$engine.tmp" ] || { failure="building the engine of $name: trtexec wrote no engine" && return 1; }
    mv "$engine.tmp" "$engine"
    [ ! -f "$work/timing.cache.tmp" ] || mv "$work/timing.cache.tmp" "$work/timing.cache"
}

run() { # what, engine, flags of this run
    what=$1 engine=$2
    shift 2
    set -- "--warmUp=$warm_up" "--duration=$duration" "$@"
    if at_least 110000; then set -- --noCudaGraph "$@"; else set -- --noDataTransfers --useSpinWait "$@"; fi
    call "$what" "$run_timeout" "$trtexec" "--loadEngine=$engine" "$@"
}

time_engine() { # what, engine, file
    run "timing $1" "$2" "--exportTimes=$3" || return 1
    if ! grep -q computeMs "$3" 2>/dev/null || [ "$(tail -n 1 "$3")" != "]" ] || grep -q ': *-\{0,1\}nan' "$3"; then
        failure="timing $1: trtexec wrote no usable $(basename "$3")"
        return 1
    fi
}

power() { # run $network once more beside tegrastats, where there is one
    start_stats 100 "$folder/power.txt" 1 || return 0
    usual=$duration duration=$power_seconds
    if ! time_engine "the network beside tegrastats" "$work/$network.engine" "$folder/times-power.json"; then
        note "$failure"
        rm -f "$folder/power.txt" "$folder/times-power.json"
    fi
    duration=$usual
    end_stats
}

measure() { # fill the folder of $network; the reason in `failure` if it fails
    build "$network" "$work/$network.engine" || return 1
    keep_log "$folder/build.log"
    time_engine "the reference" "$work/reference.engine" "$folder/times-reference-0.json" || return 1
    round=0
    while [ $round -lt "$rounds" ]; do
        time_engine "the network" "$work/$network.engine" "$folder/times-network-$round.json" || return 1
        keep_log "$folder/run.log"
        round=$((round + 1))
        time_engine "the reference" "$work/reference.engine" "$folder/times-reference-$round.json" || return 1
    done
    power
    set -- --dumpProfile "--exportProfile=$folder/profile.json"
    at_least 80200 && set -- "$@" --profilingVerbosity=detailed "--exportLayerInfo=$folder/layers.json"
    if ! run "profiling" "$work/$network.engine" "$@" ||
        ! time_engine "the reference" "$work/reference.engine" "$folder/times-reference-profile.json"; then
        note "$failure"
        rm -f "$folder/profile.json" "$folder/layers.json" "$folder/times-reference-profile.json"
    fi
    return 0
}

result() { # network, error, seconds
    tries=1
    [ -z "$2" ] || tries=0
    model_sum=$(sha256sum "$here/models/$1.onnx" | cut -d ' ' -f 1)
    printf '{\n "schema_version": 1,\n "kind": "scaler-device-result",\n "network": "%s",\n "model_sha256": "%s",\n' \
        "$1" "$model_sum"
    printf ' "tries": %s,\n "seconds": %s,\n "error": "%s"\n}\n' "$tries" "$3" "$2"
}

# --- all networks ---

count() { set -- $1 && say $#; }

todo=''
for network in $networks; do
    if whole "$out/networks/$network" && { [ -z "$retry" ] || grep -q '"error": ""' "$out/networks/$network/result.json"; }
    then
        continue
    fi
    todo="$todo $network"
done
total=$(count "$todo") place=0 spent=0
if [ -z "$pack" ]; then
    say "TensorRT $version: $total networks to measure, $(($(count "$networks") - total)) measured already"
    largest=$(for model in "$here"/models/*.onnx; do wc -c <"$model"; done | sort -n | tail -n 1)
    needed=$((5 * largest / 1024 + total * 1024 + 65536))
    free=$(df -Pk "$out" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$needed" ] || die "$out: $((free / 1024)) MiB are free, $((needed / 1024)) are needed; make room"
else
    todo=''
fi
if [ -n "$todo" ]; then
    if [ ! -f "$out/idle-power.txt" ] && start_stats 100 "$work/idle-power.txt" 1; then
        sleep $((power_seconds / 2))
        end_stats
        mv "$work/idle-power.txt" "$out/idle-power.txt"
        sums "$out"
    fi
    find "$work" -name '*.engine*' ! -name reference.engine -exec rm -f {} + # left by a run that was killed
    rm -rf "$folder" && mkdir -p "$folder"
    if ! { [ -s "$work/reference.engine" ] &&
        time_engine "the reference" "$work/reference.engine" "$work/times.json"; }; then
        { build reference "$work/reference.engine" &&
            time_engine "the reference" "$work/reference.engine" "$work/times.json"; } ||
            die "the reference cannot be measured: $failure
$(tail -n 40 "$log")"
    fi
fi
for network in $todo; do
    place=$((place + 1)) started=$(date +%s) failure=''
    rm -rf "$folder" && mkdir -p "$folder" && : >"$folder/notes.txt" && : >"$folder/commands.txt"
    conditions before
    if measure; then
        failure=''
    else
        rm -f "$folder"/*.json
        tail -n 40 "$log" >"$folder/error.log"
    fi
    rm -f "$work/$network.engine"*
    conditions after
    seconds=$(($(date +%s) - started)) spent=$((spent + $(date +%s) - started))
    result "$network" "$failure" "$seconds" >"$folder/result.json"
    sums "$folder"
    sync
    rm -rf "$out/networks/$network"
    mv "$folder" "$out/networks/$network"
    left=''
    [ $place -lt "$total" ] && left="; about $(duration_text $((spent * (total - place) / place))) left"
    say "[$place/$total] $network: ${failure:-measured}, $(duration_text $seconds)$left"
done

# --- pack ---

archive=$out.tar.gz
find "$out" -maxdepth 1 -type f ! -name '.*' | sed "s|^.*/||" | sort >"$work/names"
(cd "$out" && find networks -type f | sort) >>"$work/names"
tar -c -C "$out" -T "$work/names" --transform 's|^|scaler-results/|' | gzip -c >"$archive.tmp" || die "cannot pack $archive"
mv "$archive.tmp" "$archive"
(cd "$(dirname "$archive")" && sha256sum "$(basename "$archive")" >"$(basename "$archive").sha256")
failed=''
for network in $networks; do
    [ -f "$out/networks/$network/result.json" ] && ! grep -q '"error": ""' "$out/networks/$network/result.json" &&
        failed="$failed $network"
done
say "$(($(ls "$out/networks" | wc -l) - $(count "$failed"))) measured, $(count "$failed") failed$failed"
say "copy $archive back and read it with: scaler profile import $(basename "$archive")"
exit 0
