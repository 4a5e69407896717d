"""What commands ask, one way for all: a running `headrace up`, or the use cases in this process."""
