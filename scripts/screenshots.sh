#!/usr/bin/env bash
# Paints the screenshots of assets/screenshots/ from the real program, and records assets/demo.cast: each tab of
# `flm-tui --demo`, a chat, a comparison and the wizard, in both languages.
#
#   scripts/screenshots.sh [FOLDER]
#
# Needs what scripts/install-test-components.sh installs (terminal emulator, image library, fonts).
set -euo pipefail
cd "$(dirname "$0")/.."
components=${FLM_TEST_COMPONENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/flm-test-components}
python=$components/python/bin/python
if [ ! -x "$python" ]; then
  echo "error: $python is missing" >&2
  echo "hint: run scripts/install-test-components.sh" >&2
  exit 1
fi
cargo build --release --quiet
exec "$python" scripts/screenshots.py "${CARGO_TARGET_DIR:-target}/release/flm-tui" "${1:-assets/screenshots}"
