"""The files people write: one strict parser for `apply`, `run FILE` and `PUT`, with the place of every problem."""
