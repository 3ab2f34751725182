# Sourced by the scripts: a virtual environment in .venv with the project installed in it.
# setup EXTRAS   e.g. setup test; installs again only when what is built has changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export PIP_DISABLE_PIP_VERSION_CHECK=1
PYTHON=.venv/bin/python

find_python() {
	local name
	for name in "${CXL_MMU_PYTHON:-}" python3 python3.11 python3.12 python3.13 python3.14; do
		if [ -n "$name" ] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			echo "$name"
			return
		fi
	done
	echo "needs Python 3.11 or newer; set CXL_MMU_PYTHON to one" >&2
	return 1
}

setup() {
	local extras=${1:+[$1]} base stamp now
	base=$(find_python) || exit 2
	command -v gcc >/dev/null || command -v clang >/dev/null || { echo "needs gcc or clang" >&2; exit 2; }
	stamp=.venv/.installed-${1:-core}
	now=$(cat pyproject.toml cffi_build/*.py csrc/*.[ch] mmu/layout.py mmu/types.py mmu/*/format.py |
		grep -v '^/\* Generated' | cksum)
	[ -x "$PYTHON" ] || "$base" -m venv .venv || exit 2
	if [ "$(cat "$stamp" 2>/dev/null)" != "$now" ]; then
		echo "installing into .venv ..." >&2
		# The compiler that built this Python may be missing here; any C11 compiler will do.
		command -v gcc >/dev/null || export CC=clang
		"$PYTHON" -m pip install -q -e ".$extras" || exit 2
		now=$(cat pyproject.toml cffi_build/*.py csrc/*.[ch] mmu/layout.py mmu/types.py mmu/*/format.py |
			grep -v '^/\* Generated' | cksum)
		rm -f .venv/.installed-*
		echo "$now" > "$stamp"
	fi
}
