#!/usr/bin/env bash
# Writes docs/schemas/commands.json from the types of the sources. A change there is a change for every reader: fields may be
# added at any time, everything else needs a new version of the shape (src/control/protocol.rs).
set -euo pipefail
cd "$(dirname "$0")/.."
FLM_UPDATE_SCHEMAS=1 exec cargo test --quiet --lib -- operations::shapes
