"""What is answered, the same at every door: one file for each noun."""
