# Sourced by scripts/demo and scripts/test: makes .venv with mlkd and the extras in $1, or re-uses it.
# A CPU-only Linux machine saves gigabytes with PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu.

mlkd_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  echo "error[E501]: mlkd needs Python 3.11 to 3.13 with venv; set PYTHON=/path/to/python" >&2
  return 5
}

mlkd_setup() {
  local extras=$1 root python stamp state
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  cd "$root" || return 5
  if [ ! -x .venv/bin/python ]; then
    python=$(mlkd_python) || return 5
    echo "setting up .venv (once; some minutes)" >&2
    "$python" -m venv .venv || return 5
  fi
  # What is installed is what pyproject.toml, the constraints and the extras say; the folder is part of it because an
  # editable install points there.
  state=$(cat pyproject.toml scripts/constraints.txt <(echo "$extras $root") | cksum)
  stamp=".venv/.mlkd-installed-$(echo "$extras" | tr -c 'a-z\n' '-')"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$state" ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --constraint scripts/constraints.txt --editable ".[$extras]" || return 5
    echo "$state" > "$stamp"
  fi
}
