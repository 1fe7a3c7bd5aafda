#!/usr/bin/env bash
# A file that is edited in place in one environment built by uv is edited in the others too, in those built
# before it and in those built after it.
#
# Guess: an environment has files of its own; what happens in one changes no other.
# Seen (uv 0.13.9, Linux, ext4, six 1.16.0), where uv links an environment's files to those of its cache:
#   edited in the first environment:          edited
#   an environment built before:              edited
#   an environment built afterwards:          edited
#   the first one in a new folder:            edited
#   the first one after --reinstall:          original
#   the one built before, after that:         edited
#   a new one after that:                     original
#   edited with --link-mode copy, another:    original
# So who patches a candidate in place patches its baseline too, and whoever builds a damaged environment once
# more, by removing its folder, gets the damaged file again: `--reinstall` reads anew, a new folder does not.
# On file systems with copy-on-write (btrfs, xfs, APFS) uv clones files instead of linking them; the script
# asks for links, which are what uv does elsewhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv tool
tool/bin/python -m pip install -q uv==0.13.9
export UV_CACHE_DIR="$folder/cache" UV_LINK_MODE=hardlink
uv() { tool/bin/uv --quiet --no-config "$@"; }
environment() { # name, further options
  uv venv --clear "$1"
  uv pip install --python "$1/bin/python" "${@:2}" six==1.16.0
}
state() { "$1/bin/python" -B -c 'import six; print("edited" if hasattr(six, "EDITED") else "original")'; }
expect() { # what, state, expected
  echo "$1: $2"
  [ "$2" = "$3" ] || {
    echo "changed: expected $3"
    exit 1
  }
}
environment before
environment first
echo 'EDITED = True' >>"$(echo first/lib/python*/site-packages/six.py)"
expect 'edited in the first environment' "$(state first)" edited
expect 'an environment built before' "$(state before)" edited
environment after
expect 'an environment built afterwards' "$(state after)" edited
rm -rf first
environment first
expect 'the first one in a new folder' "$(state first)" edited
uv pip install --python first/bin/python --reinstall six==1.16.0
expect 'the first one after --reinstall' "$(state first)" original
expect 'the one built before, after that' "$(state before)" edited
environment fresh
expect 'a new one after that' "$(state fresh)" original
rm -rf cache
export UV_LINK_MODE=copy
environment one
environment other
echo 'EDITED = True' >>"$(echo one/lib/python*/site-packages/six.py)"
expect 'edited with --link-mode copy, another' "$(state other)" original
echo "as described"
