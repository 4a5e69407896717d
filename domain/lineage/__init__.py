"""What flows from where to where."""
