"""A study: recipes, their stages, and running those in order."""
