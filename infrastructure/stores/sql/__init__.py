"""What every SQL store does in the same way: the fence, the checkpoint, staging, merging and quarantine."""
