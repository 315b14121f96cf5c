#!/usr/bin/env bash
# What the failover controller calls to be sure that the other NameNode is gone: it takes its process, and says so.
#   fence.sh WORK-FOLDER NAMENODE-ID
set -euo pipefail
work="$1" node="$2"
pid="$(cat "$work/$node.pid")"
# Its number may be another's by now: the NameNode is the one with this configuration on its command line.
if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$work/conf/$node:" && kill -KILL "$pid" 2>/dev/null; then
  printf '%s killed\n' "$node" >>"$work/fenced"
else
  printf '%s was gone\n' "$node" >>"$work/fenced"
fi
