"""What a user orders: `run.run` trains one network or several winners, each into a folder of its own (`folder`)."""
