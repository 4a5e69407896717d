"""The installation itself: is it well, is it ready."""
