#!/usr/bin/env bash
# Which recurrent model forecasts sunspots, and is it more than a linear one? A sweep from a shell, on the table that
# statsmodels ships: three models, two learning rates, three seeds, two processes.
#     examples/workflows/sweep/sweep.sh --out build/sweep           (kill it, and start it again: it goes on)
#     examples/workflows/sweep/sweep.sh --out build/sweep --smoke   (seconds: does it run at all?)
set -euo pipefail
out=build/sweep fit=() smoke=
while [ $# -gt 0 ]; do
  case "$1" in
    --out) out="$2"; shift 2 ;;
    --smoke) fit=(--fit steps=4 --fit stopping.every=2) smoke=yes; shift ;;
    *) echo "usage: $0 [--out DIR] [--smoke]" >&2; exit 2 ;;
  esac
done

mkdir -p "$out"
cp "$(dirname "$0")"/{models.py,linear.toml,study.toml} "$out"
if [ -n "$smoke" ]; then sed "s/^seeds = .*/seeds = [0]/" "$(dirname "$0")/study.toml" >"$out/study.toml"; fi
shipped="$(python -c 'import pathlib, statsmodels.datasets.sunspots as s; print(pathlib.Path(s.__file__).with_name("sunspots.csv"))')"
cp "$shipped" "$out/sunspots.csv"

latentrnn info "$out/sunspots.csv"
latentrnn study "$out/study.toml" --workers 2 --quiet "${fit[@]}" --runs
best="$(latentrnn study "$out/study.toml" --status --json "${fit[@]}" | python -c '
import json, sys
print(max((run for run in json.load(sys.stdin)["runs"] if run["status"] == "complete"), key=lambda run: run["objective"])["run"])')"
latentrnn report "$out/runs/runs/$best" --out "$out/report.html" --samples 100
latentrnn forecast "$out/runs/runs/$best" --horizon 11 --part test --out "$out/next.csv"
