#!/bin/sh
# Runs one pipeline as several processes on this machine, and starts them again until all end well.
#
#   supervise.sh PIPELINE.yaml PROCESSES [PORT]      ETL_STREAM=path of the program
#
# Line I of the host file is where process I listens for the others: PORT, PORT+1, …
# A process that fails ends the others; each is then started again. SIGTERM or SIGINT ends all in good order.
set -u
file=$1 processes=$2 port=${3:-7700}
program=${ETL_STREAM:-etl-stream}
hosts=$(mktemp)
pids=
stopping=
trap 'rm -f "$hosts"' EXIT
trap 'stopping=1; kill -TERM $pids 2>/dev/null' TERM INT

i=0
while [ "$i" -lt "$processes" ]; do
  echo "127.0.0.1:$((port + i))" >>"$hosts"
  i=$((i + 1))
done

# One process, again and again. Exit codes 2 and 3 are mistakes that no restart mends.
keep() {
  child=
  trap 'kill -TERM "$child" 2>/dev/null; ending=1' TERM INT
  ending=
  while :; do
    "$program" run "$file" --processes "$processes" --process "$1" --hostfile "$hosts" --listen none ${ETL_STREAM_MORE:-} &
    child=$!
    wait "$child"; code=$?
    # A signal ends the wait, not the process.
    while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
    [ "$code" -eq 0 ] && exit 0
    [ -n "$ending" ] && exit "$code"
    [ "$code" -eq 2 ] && exit "$code"
    echo "process $1 ended with $code: starting it again" >&2
    sleep 1
  done
}

i=0
while [ "$i" -lt "$processes" ]; do
  keep "$i" &
  pids="$pids $!"
  i=$((i + 1))
done

result=0
for pid in $pids; do
  wait "$pid"; code=$?
  while kill -0 "$pid" 2>/dev/null; do wait "$pid"; code=$?; done
  [ "$code" -eq 0 ] || result=$code
done
exit "$result"
