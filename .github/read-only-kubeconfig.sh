#!/usr/bin/env bash
# Prints a read-only kubeconfig for the workflows, in base64 on one line: GitHub masks each line of a secret by itself,
# so a plain kubeconfig would turn every `apiVersion: v1` of a comment into asterisks.
# Usage: bash .github/read-only-kubeconfig.sh CONTEXT [PROXY-URL]
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "usage: bash .github/read-only-kubeconfig.sh CONTEXT [PROXY-URL], the context as in Pulumi.<site>.yaml" >&2
  exit 1
fi
context=$1 proxy=${2:-}
cluster() { kubectl config view --context "$context" --minify --raw --flatten -o jsonpath="{.clusters[0].cluster.$1}"; }

kubectl --context "$context" apply -f "$(dirname "$0")/cluster-access.yaml" >&2
token=""
for _ in $(seq 30); do
  token=$(kubectl --context "$context" -n kube-system get secret homestead-preview -o jsonpath='{.data.token}' | base64 --decode)
  if [ -n "$token" ]; then break; fi
  sleep 1
done
if [ -z "$token" ]; then
  echo "the cluster has put no token into the Secret homestead-preview" >&2
  exit 1
fi

# Not `base64 --wrap=0`: macOS has none.
base64 << END | tr -d '\n'
apiVersion: v1
kind: Config
clusters:
  - name: $context
    cluster:
      server: $(cluster server)
      certificate-authority-data: $(cluster certificate-authority-data)${proxy:+
      proxy-url: $proxy}
users:
  - name: homestead-preview
    user:
      token: $token
contexts:
  - name: $context
    context:
      cluster: $context
      user: homestead-preview
current-context: $context
END
echo
