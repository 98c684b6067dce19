"""From what a network says of pictures to detections, average precision and drawn boxes. Knows no torch."""
