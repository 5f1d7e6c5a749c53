"""What a run is made from: recipes, prompts, models, and tables of any format."""
