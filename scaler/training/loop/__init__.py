"""Training itself: `train.train` takes a `plan.TrainingPlan` and tells what happens by `events`."""
