"""Pictures of the dashboards for the documentation; `make pictures`."""
