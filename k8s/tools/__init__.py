"""What writes and reads the Kubernetes tree: Kong's file, rendered manifests, allowed connections, images."""
