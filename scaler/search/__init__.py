"""Finding the Pareto front: evaluation of candidates, exact fronts, and Optuna studies."""
