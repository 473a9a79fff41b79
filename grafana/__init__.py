"""What Prometheus, Alertmanager and Grafana need, and the generators that write it."""
