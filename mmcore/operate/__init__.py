"""What keeps pipelines going: services, deployments, watching for new data, alerts."""
