"""The sidecar: serves the numbers of all workers of a service from outside of them."""
