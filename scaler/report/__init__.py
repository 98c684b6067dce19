"""What the user sees of a search: console tables, CSV and JSON files, pictures and an interactive page."""
