"""The paper: its figures, its claims, recipes at its settings."""
