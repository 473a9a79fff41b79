"""Dashboards, rules and alerts as code; `make grafana` writes what stands beside this folder."""
