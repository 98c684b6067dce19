"""What runs a network and says how long it takes."""
