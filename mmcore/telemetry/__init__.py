"""What a run says about itself: events, costs, and the one door to MLflow."""
