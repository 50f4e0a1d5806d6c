#!/usr/bin/env bash
# Writes the kubeconfig of KUBECONFIG_BASE64 to the file given, opens the tunnel if there is one, and asks the cluster.
# Prints why it cannot be reached, in words that may stand in a public comment; nothing if it answers.
set -euo pipefail
umask 077
kubeconfig=$1

if [ -z "${KUBECONFIG_BASE64:-}" ]; then
  echo "no kubeconfig"
  exit
fi
if ! base64 --decode <<< "$KUBECONFIG_BASE64" > "$kubeconfig" || ! grep -Eq '"?kind"?: *"?Config' "$kubeconfig"; then
  echo "KUBECONFIG_BASE64 is no kubeconfig in base64"
  exit
fi

if [ -n "${TUNNEL_SSH_KEY:-}" ]; then
  printf '%s\n' "$TUNNEL_SSH_KEY" > "$kubeconfig.key"
  printf '%s\n' "${TUNNEL_KNOWN_HOSTS:-}" > "$kubeconfig.hosts"
  # The kubeconfig says `proxy-url: socks5://127.0.0.1:1080`, so server name and certificate stay as they are.
  # It goes to the background only once the port is open; its output must not keep this step waiting.
  if ! ssh -f -N -D 127.0.0.1:1080 -i "$kubeconfig.key" -o IdentitiesOnly=yes -o BatchMode=yes \
    -o StrictHostKeyChecking=yes -o UserKnownHostsFile="$kubeconfig.hosts" -o ExitOnForwardFailure=yes \
    -o ConnectTimeout=20 -o ServerAliveInterval=15 -- "${TUNNEL_DESTINATION:-}" > "$kubeconfig.log" 2>&1; then
    cat "$kubeconfig.log" >&2
    echo "the tunnel does not open"
    exit
  fi
fi

if ! kubectl --kubeconfig "$kubeconfig" get --raw /version --request-timeout=20s > /dev/null; then
  echo "the cluster does not answer"
fi
