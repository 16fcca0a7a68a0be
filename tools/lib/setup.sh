# shellcheck shell=bash
# Sets up what the programs in tools/ need: a Python, a virtual environment, Debian packages.
#
# To be sourced by a script that has done `set -euo pipefail`. Nothing here changes pip's or apt's own configuration; all of
# it can be run again and then does only what is missing.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$root/.venv
python=$venv/bin/python

# Debian keeps servers such as mosquitto in /usr/sbin, which is not on everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s\n' "$*" >&2; }

# fail MESSAGE [STATUS]: one sentence, then the end.
fail() {
    say "tools/$(basename "$0"): $1"
    exit "${2:-1}"
}

# as_root COMMAND..: run it as root, where this user may without being asked for a password.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

can_install() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

# no_autostart on|off: while on, packages being installed do not start their services (policy-rc.d is Debian's door for
# that). An existing policy is the administrator's and is left alone.
policy=/usr/sbin/policy-rc.d
policy_made=
no_autostart() {
    if [ "$1" = on ] && ! [ -e "$policy" ]; then
        # shellcheck disable=SC2016  # expanded by the inner shell
        as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$1" && chmod 755 "$1"' sh "$policy" && policy_made=1
    elif [ "$1" = off ] && [ -n "$policy_made" ]; then
        as_root rm -f "$policy"
        policy_made=
    fi
}

# apt_install PACKAGE..: true when all of them were installed.
apt_install() {
    local log status=0 service
    log=$(mktemp)
    trap 'no_autostart off; exit 130' INT TERM
    no_autostart on
    {
        as_root apt-get -qq -o DPkg::Lock::Timeout=300 update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
                -o DPkg::Lock::Timeout=300 install "$@"
    } >"$log" 2>&1 </dev/null || status=$?
    no_autostart off
    trap - INT TERM
    if [ "$status" != 0 ]; then
        tail -n 5 "$log" >&2
    elif [ -d /run/systemd/system ]; then
        # Installed for a child process of ours: not to be up after the next boot either.
        for service in mosquitto victoria-metrics; do
            case " $* " in *" $service "*) as_root systemctl --quiet disable "$service" 2>/dev/null || true ;; esac
        done
    fi
    rm -f "$log"
    return "$status"
}

# find_python: print the path of a Python that is new enough.
find_python() {
    local name path
    for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        path=$(command -v "$name") || continue
        if "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$path"
            return
        fi
    done
    return 1
}

# make_venv: a virtual environment under .venv; a broken one (its Python was removed or replaced) is made anew.
make_venv() {
    local base package
    if [ -x "$python" ] && "$python" -c 'import pip' 2>/dev/null; then
        return
    fi
    base=$(find_python) ||
        fail "Python 3.11 or newer is needed and was not found; install it (Debian 12, Raspberry Pi OS: apt install python3) or name it with PYTHON=/path/to/python3."
    if ! "$base" -c 'import ensurepip, venv' 2>/dev/null; then
        package=python$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
        can_install ||
            fail "$base cannot make virtual environments: install Debian's python3-venv (sudo apt install $package), then run this again."
        say "Installing $package (Debian's python3-venv), which $base lacks."
        apt_install "$package" || fail "$package could not be installed with apt; the lines above say why."
    fi
    say "Making a virtual environment in .venv with $("$base" --version)."
    rm -rf "$venv"
    "$base" -m venv "$venv" || fail "the virtual environment in .venv could not be made; the lines above say why."
}

# install_package EXTRAS: install the checkout, editable, into the virtual environment, with the extras named (commas
# between them), unless it was since pyproject.toml last changed.
install_package() {
    local extras=$1 sum stamp
    sum=$(cksum <"$root/pyproject.toml")
    stamp=$venv/.installed-${extras:-plain}
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]; then
        return
    fi
    say "Installing the gateway and its libraries into .venv with pip (once; a minute or two on a PC, longer on a Raspberry Pi)."
    "$python" -m pip install --quiet --editable "$root${extras:+[$extras]}" ||
        fail "pip could not install the gateway's libraries; the lines above say why."
    # With more extras it is also installed with fewer.
    for stamp in plain ${extras//,/ } "$extras"; do
        [ -z "$stamp" ] || printf '%s\n' "$sum" >"$venv/.installed-$stamp"
    done
}
