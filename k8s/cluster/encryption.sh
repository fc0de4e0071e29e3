#!/bin/sh
# Prints the configuration with which the API server encrypts Secrets in etcd, with a key made on the spot.
#
#   umask 077; sh encryption.sh > /etc/kubernetes/stockade/encryption.yaml
#
# The key never leaves the control plane's disk, and every control plane node needs the same file. To rotate: put a new key
# first and keep the old one second, let every API server read it (they reload by themselves), rewrite all Secrets with
# `kubectl get secrets -A -o json | kubectl replace -f -`, then take the old key away. Against somebody who has the disk of
# the control plane it does not help, as the key lies beside the data; a KMS provider would, and goes in the same place.
set -eu

key=$(head -c 32 /dev/urandom | base64)
cat <<YAML
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      # XSalsa20-Poly1305: authenticated, unlike aescbc, and without aesgcm's bound on writes per key.
      - secretbox:
          keys:
            - name: key-$(date -u +%Y%m%d)
              secret: $key
      # Reads what was written before encryption was switched on.
      - identity: {}
YAML
