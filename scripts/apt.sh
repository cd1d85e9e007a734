# What scripts that install Debian packages share; to be sourced. The caller has `say`.

root_or_sudo=()
[ "$(id -u)" = 0 ] || root_or_sudo=(sudo -n)

can_install() { # whether apt-get is there and may be used; says why not
  command -v apt-get >/dev/null || { say "there is no apt-get here to install packages with"; return 1; }
  [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || { say "only root can install packages"; return 1; }
}

apt_install() { # apt_install PACKAGE... : installs them and starts none of their servers, neither now nor at the next boot
  local idle name unit
  # Packages start their servers through these two programs, found on the PATH that apt-get gives to dpkg.
  # Ours do nothing. So /usr/sbin/policy-rc.d, the usual way, is not touched and cannot be left behind.
  idle=$(mktemp -d)
  trap 'rm -rf "$idle"' RETURN
  for name in invoke-rc.d deb-systemd-invoke; do
    printf '#!/bin/sh\nexit 0\n' >"$idle/$name"
    chmod +x "$idle/$name"
    "$idle/$name" || { say "nothing can be run from $idle to keep servers from starting at once"; return 1; }
  done
  local options=(-qq -o "DPkg::Path=$idle:/usr/sbin:/usr/bin:/sbin:/bin" -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0)
  local apt=("${root_or_sudo[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get "${options[@]}")
  say "installing $* with apt-get (about a minute); they are not started"
  if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@"; } >"$idle/log" 2>&1; then
    tail -n 5 "$idle/log" >&2
    say "apt-get failed"
    return 1
  fi
  if command -v systemctl >/dev/null; then # Debian lets what it installs start at the next boot
    for unit in "${@/%/.service}" epmd.service epmd.socket docker.service docker.socket containerd.service; do
      "${root_or_sudo[@]}" systemctl --quiet disable "$unit" >/dev/null 2>&1 || true
    done
  fi
}
