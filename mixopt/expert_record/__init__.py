"""What a run keeps of its experts, and what it says: a folder, numbers for MLflow, a summary."""
